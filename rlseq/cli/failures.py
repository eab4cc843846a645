"""One message and an exit status for an exception that ends a command."""

from __future__ import annotations

import dis
import gc
import os
import platform
import re
import sys
import sysconfig
import tempfile
import traceback
from collections.abc import Sequence
from types import CodeType, FunctionType, TracebackType
from typing import Any, NamedTuple

DEBUG = "RLSEQ_DEBUG"  # an environment variable; where it is set, exceptions are shown as Python shows them
MESSAGE_LENGTH = 2000  # characters of a message
OTHER_ARGUMENTS = r"(\S+)\(\) (?:takes|missing|got) "  # how Python begins the message of a wrong call
LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


class Failure(NamedTuple):
    """A message for the user of the command, and the exit status."""

    message: str
    status: int


def failure_of(error: Exception, words: Sequence[str]) -> Failure:
    """Return the message and the exit status for an exception that ended a command.

    An error in code that belongs neither to rlseq nor to a library is the user's, and is shown with their
    part of the traceback. An error that rlseq raises itself is a refusal whose message says what to change.
    Errors of the operating system name the file. Every other exception is a bug in rlseq.

    Args:
        error: the exception.
        words: the arguments of the command.
    """
    steps = list(traceback.walk_tb(error.__traceback__))
    first = next((i for i, (frame, _) in enumerate(steps) if _is_users(frame.f_globals, frame.f_code)), None)
    if first is not None:
        trace = error.__traceback__
        for _ in range(first):
            trace = trace and trace.tb_next
        shown = "".join(traceback.format_exception(type(error), error, trace))
        return Failure(f"{type(error).__name__} in code of your own, which rlseq has called:\n{shown}", 1)
    if (function := _called_otherwise(error)) is not None:
        place = f"{function.__code__.co_filename}, line {function.__code__.co_firstlineno}"
        call = traceback.extract_tb(error.__traceback__)[-1].line
        return Failure(f"code of your own ({place}) does not take what rlseq gives it: {error}\n  {call}", 1)
    if isinstance(error, OSError):
        return Failure(_of_system(error), 2)
    if isinstance(error, MemoryError) or "not enough memory" in str(error):
        return Failure(f"not enough memory ({error or 'MemoryError'}); choose smaller sizes", 2)
    if _raised_on_purpose(error.__traceback__):
        return Failure(str(error)[:MESSAGE_LENGTH], 2)
    return _bug(error, words)


def _is_users(module: dict[str, Any], code: CodeType) -> bool:
    """Return whether code is neither of rlseq nor of a library."""
    package = str(module.get("__name__")).partition(".")[0]
    return package not in ("rlseq", *sys.stdlib_module_names) and not code.co_filename.startswith(LIBRARIES)


def _called_otherwise(error: Exception) -> FunctionType | None:
    """Return the function of the user that was called with wrong arguments, if that is the error.

    Python raises this error before the function is entered, so that it is in no frame of the traceback; the
    message names it. A name that a function of rlseq or of a library has, too, decides nothing.
    """
    found = re.match(OTHER_ARGUMENTS, str(error)) if isinstance(error, TypeError) else None
    name = found and found[1]
    named = [f for f in gc.get_objects() if type(f) is FunctionType and f.__qualname__ == name]
    return named[0] if named and all(_is_users(f.__globals__, f.__code__) for f in named) else None


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
