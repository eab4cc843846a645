"""A policy's state as a tree of tensors with B rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rlseq.types import State


def fork(state: State, rows: Tensor | slice) -> State:
    """The given rows: indices copy them, in that order and as often as named; a slice shares memory."""
    if isinstance(state, Tensor):
        return state[rows]
    return tuple(fork(part, rows) for part in state)


def pick_rows(states: Sequence[State], which: Tensor, rows: Tensor) -> State:
    """Copies of rows of several states: row `rows[i]` of state `which[i]`."""
    first = states[0]
    if not isinstance(first, Tensor):
        return tuple(pick_rows([s[i] for s in states], which, rows) for i in range(len(first)))
    if all(state is first for state in states):  # a cache that is written in place is the same in all
        return first[rows]
    return torch.stack(list(states))[which, rows]
