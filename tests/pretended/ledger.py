"""Counts of what a device would have been asked to do: kernels launched, and times that the host waited."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PRODUCT = tuple(f"{ROOT / folder}/" for folder in ("rlseq", "agents", "envs"))
OUTSIDE = "outside rlseq"


class Ledger:
    """The counts since the last reset.

    Attributes:
        waits: how often the host waited for the device, by `(line of rlseq, operation)`.
        kernels: how many kernels were launched, by operation; an operation counts as one kernel.
    """

    def __init__(self) -> None:
        self.waits: Counter[tuple[str, str]] = Counter()
        self.kernels: Counter[str] = Counter()

    def reset(self) -> None:
        """Forget all counts."""
        self.waits.clear()
        self.kernels.clear()

    def wait(self, operation: str) -> None:
        """Note that the host waits."""
        self.waits[line_of_rlseq(), operation] += 1

    def waited(self) -> dict[str, int]:
        """Return how often the host waited at each line."""
        return {f"{line} ({operation})": n for (line, operation), n in sorted(self.waits.items())}


def line_of_rlseq() -> str:
    """Return the innermost line of rlseq that is being run, as `file:line function`."""
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(PRODUCT):
            file = Path(code.co_filename).relative_to(ROOT)
            return f"{file}:{frame.f_lineno} {code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return OUTSIDE
