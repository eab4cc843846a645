"""One message and an exit status for an exception that ends a command."""

from __future__ import annotations

import dis
import os
import platform
import sys
import sysconfig
import tempfile
import traceback
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import NamedTuple

DEBUG = "RLSEQ_DEBUG"  # an environment variable; where it is set, exceptions are shown as Python shows them
MESSAGE_LENGTH = 2000  # characters of a message
LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


class Failure(NamedTuple):
    """A message for the user of the command, and the exit status."""

    message: str
    status: int


def explained(error: Exception, words: Sequence[str]) -> Failure:
    """Return what an exception means for the user of a command.

    An error in code that is neither of rlseq nor of a library is the user's, and is shown with their part of
    the traceback. What rlseq raises itself is a refusal, and says what to mend; files that cannot be read or
    written are named by the system. Whatever is left is a bug in rlseq.

    Args:
        error: as it was caught by the command.
        words: what was typed.
    """
    steps = list(traceback.walk_tb(error.__traceback__))
    first = next((i for i, (frame, _) in enumerate(steps) if _is_users(frame)), None)
    if first is not None:
        trace = error.__traceback__
        for _ in range(first):
            trace = trace and trace.tb_next
        shown = "".join(traceback.format_exception(type(error), error, trace))
        return Failure(f"{type(error).__name__} in code of your own, which rlseq has called:\n{shown}", 1)
    if isinstance(error, OSError):
        return Failure(_of_system(error), 2)
    if isinstance(error, MemoryError) or "not enough memory" in str(error):
        return Failure(f"not enough memory ({error or 'MemoryError'}); choose smaller sizes", 2)
    if _raised_on_purpose(error.__traceback__):
        return Failure(str(error)[:MESSAGE_LENGTH], 2)
    return _bug(error, words)


def _is_users(frame: FrameType) -> bool:
    """Return whether a frame runs code that is neither of rlseq nor of a library."""
    package = str(frame.f_globals.get("__name__")).partition(".")[0]
    path = frame.f_code.co_filename
    return package not in ("rlseq", *sys.stdlib_module_names) and not path.startswith(LIBRARIES)


def _raised_on_purpose(trace: TracebackType | None) -> bool:
    """Return whether an exception comes from a `raise` in rlseq, and not from an operation that failed."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or str(trace.tb_frame.f_globals.get("__name__")).partition(".")[0] != "rlseq":
        return False
    return dis.opname[trace.tb_frame.f_code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"


def _of_system(error: OSError) -> str:
    """Return the message of an error of the operating system, with the file that it concerns."""
    reason = error.strerror or str(error)
    return reason if error.filename is None else f"{os.fsdecode(error.filename)}: {reason}"


def _bug(error: Exception, words: Sequence[str]) -> Failure:
    """Write a report of a bug to a file, and return a message that names the file."""
    said = f"this is a bug in rlseq, not in what was typed: {type(error).__name__}: {error}"[:MESSAGE_LENGTH]
    text = f"rlseq {' '.join(map(ascii, words))}\n{sys.version}\n{platform.platform()}\n\n"
    text += "".join(traceback.format_exception(error))
    try:
        handle, path = tempfile.mkstemp(prefix="rlseq-bug-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError as full:
        return Failure(f"{said}\nno report could be written ({full.strerror}); {DEBUG}=1 shows all of it", 1)
    return Failure(f"{said}\nplease report it to the authors of rlseq, with {path}", 1)
