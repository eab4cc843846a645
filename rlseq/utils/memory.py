"""Sizes that cannot fit are refused with the estimate, before anything is allocated."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container
_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


def check_fits(needed: int, **sizes: int | None) -> None:
    """Refuse sizes that need more memory than this machine has.

    Args:
        needed: an estimate from below, in bytes.
        **sizes: the arguments that it follows from, for the error.
    """
    if needed > memory():
        given = ", ".join(f"{name}={_number(size)}" for name, size in sizes.items() if size is not None)
        raise ValueError(
            f"{given} would need {_size(needed)} of memory, this machine has {_size(memory())}; "
            "choose smaller sizes"
        )


@cache
def memory() -> int:
    """The memory of this machine in bytes, or of the container that this process is in."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in map(Path, _LIMITS):
        text = path.read_text().strip() if path.is_file() else "max"
        limits += [int(text)] if text.isdigit() else []
    return min(limits)


def _size(number: int) -> str:
    """Bytes in words."""
    for unit in _UNITS:
        if number < 1000:
            return f"{number} {unit}"
        number = (number + 500) // 1000
    return "more than 1,000 PB"


def _number(number: int) -> str:
    return f"{number:,}" if abs(number) < 10**15 else "more than 10^15"
