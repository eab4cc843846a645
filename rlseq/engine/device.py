"""Choices that depend on the device: rows per block, precision, and when the host looks at results."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import torch
from torch import Tensor

BLOCK = 1 << 21  # logits of one step that the caches of a CPU still hold; more rows go block by block
LOOK_EVERY = 8  # steps between two looks at whether all rows are done, on an accelerator
LOOK_EVERY_ON_CPU = 2  # the same where no answer must be waited for
LEAST_FINISHED = 0.2  # share of the rows of a block that leave it together: the others are copied


def blocks(rows: int, words: int, device: torch.device) -> list[slice]:
    """Return the blocks of rows: all at once on an accelerator, on a CPU as many as its caches hold."""
    count = 1
    if device.type == "cpu":
        count = -(-rows * words // BLOCK)
        keep_freed_memory()
    # All alike: a small last one costs as many steps as a large one, and would be compiled by itself.
    count = next((n for n in range(count, 2 * count) if rows % n == 0), count)
    size = -(-rows // count)
    return [slice(i, min(i + size, rows)) for i in range(0, rows, size)]


@lru_cache(1)
def keep_freed_memory() -> None:
    """Let the allocator keep freed memory; otherwise page faults for new logits take half of a step's time.

    glibc returns freed memory beyond twice the largest block that it has mapped and freed, up to 32 MiB, so
    one such block is allocated and freed. With other allocators this does nothing.
    """
    torch.empty((32 << 20) - (64 << 10), dtype=torch.uint8)


def casting(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager[None]:
    """Return a context that autocasts to a type; None changes nothing."""
    if dtype is None:
        return nullcontext()
    if dtype not in (torch.bfloat16, torch.float16):
        raise ValueError(f"autocast must be torch.bfloat16, torch.float16 or None, got {dtype!r}")
    return torch.autocast(device.type, dtype)


class AllDone:
    """A test whether all rows are done, as far as is known without waiting for the device.

    On an accelerator the answer is copied while later steps run, and read when it has arrived.
    """

    def __init__(self, possible: bool) -> None:
        self.possible, self.steps = possible, 0
        self._answer: tuple[Tensor, torch.cuda.Event] | None = None

    def __call__(self, done: Tensor) -> bool:
        """Return True if all rows are known to be done; to be called after every step."""
        self.steps += 1
        every = LOOK_EVERY if done.is_cuda else LOOK_EVERY_ON_CPU
        if not self.possible or self.steps % every:
            return False
        if not done.is_cuda:
            return bool(done.all())
        if torch.cuda.is_current_stream_capturing():  # a graph has as many steps as it was captured with
            return False
        if self._answer is not None and not self._answer[1].query():  # type: ignore[no-untyped-call]
            return False
        known = self._answer is not None and bool(self._answer[0])
        answer, arrived = torch.empty((), dtype=torch.bool, pin_memory=True), torch.cuda.Event()  # type: ignore[no-untyped-call]
        answer.copy_(done.all(), non_blocking=True)
        arrived.record(torch.cuda.current_stream(done.device))  # which may not be the current device
        self._answer = answer, arrived
        return known


def unfinished(done: Tensor, step: int) -> Tensor | None:
    """Return the rows of a block that are not done, `[n]`; None if the others are too few to leave it now.

    Args:
        done: of each row, on a CPU.
        step: t, of which every second one is looked at.
    """
    if (step + 1) % LOOK_EVERY_ON_CPU:
        return None
    left = done.logical_not().nonzero().squeeze(1)
    return left if len(left) <= (1 - LEAST_FINISHED) * len(done) else None
