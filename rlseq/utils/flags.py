"""Checks of values on a device. On an accelerator their flags are read together, as reading waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

Refusal = tuple[Tensor, Callable[[], Exception]]
_unread: ContextVar[list[Refusal] | None] = ContextVar("unread", default=None)


def refuse_where(flag: Tensor, error: Callable[[], Exception]) -> None:
    """Raise an error where a flag is set: at once, or on an accelerator when `read_once` reads all flags.

    Args:
        flag: a truth value on a device. What follows must bear a wrong value until the flag is read.
        error: makes the error.
    """
    unread = _unread.get()
    if flag.is_cuda and unread is not None:
        unread.append((flag, error))
    elif flag:
        raise error()


@contextmanager
def read_once() -> Iterator[None]:
    """Read the flags of all checks when the context ends; of one within another, when that ends."""
    if _unread.get() is not None:
        yield
        return
    unread: list[Refusal] = []
    before = _unread.set(unread)
    try:
        yield
    finally:
        _unread.reset(before)
    if unread:
        _read(unread, [])


def read_beside(number: Tensor) -> int:
    """Return a number, for which the host waits; the flags so far are read with it."""
    unread = _unread.get() or []
    flags, unread[:] = [*unread], []
    return _read(flags, [number])[0]


def _read(refusals: list[Refusal], numbers: list[Tensor]) -> list[int]:
    """Read flags and numbers in one transfer; raise the error of the first flag that is set."""
    values = torch.stack([*(flag.long() for flag, _ in refusals), *(number.long() for number in numbers)])
    found: list[int] = values.tolist()
    for raised, (_, error) in zip(found, refusals, strict=False):
        if raised:
            raise error()
    return found[len(refusals) :]
