"""Rows that read the same: several texts of one source need its encoding once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from rlseq.engine.state import fork
from rlseq.types import Context, State

ReadFrom = TypeVar("ReadFrom", bound=State)


def each_once(
    policy: nn.Module, read: Callable[[Context], ReadFrom], context: Context, entry: str
) -> ReadFrom:
    """Return what a policy reads from a context, with one encoding for neighbours that read the same.

    On a CPU only, as the host looks at the rows; and not in training mode, where each row has dropout of its
    own and batches are normalised.

    Args:
        policy: whose mode counts.
        read: maps a context to tensors with its rows.
        context: the context.
        entry: the name of the entry that is read.
    """
    x = context[entry]
    if policy.training or x.device.type != "cpu" or torch.compiler.is_compiling():
        return read(context)
    first, run = runs_of_rows(x)
    if len(first) == len(x):
        return read(context)
    return cast(ReadFrom, fork(read({entry: x[first]}), run))


def runs_of_rows(*parts: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first row of each run of equal rows, `[R]`, and the run of every row, `[B]`."""
    new = torch.zeros(len(parts[0]), dtype=torch.bool, device=parts[0].device)
    new[:1] = True
    for part in parts:
        new[1:] |= (part[1:] != part[:-1]).flatten(1).any(1)
    return new.nonzero().squeeze(1), new.cumsum(0) - 1
