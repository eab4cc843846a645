"""A policy's state: a tree of tensors with B rows, which can be copied by row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rlseq.types import State


class RowsError(RuntimeError):
    """A policy cannot go on with some of its rows, as it keeps a part of its memory outside its state."""


def fork(state: State, rows: Tensor | slice) -> State:
    """Return some rows: indices copy them, in that order and as often as named; a slice shares memory."""
    if isinstance(state, Tensor):
        return state[rows]
    return tuple(fork(part, rows) for part in state)


def checked_state(state: State, rows: int) -> State:
    """Return a policy's first state, if its rows can be forked; lists become tuples."""
    if isinstance(state, Tensor):
        if state.ndim and len(state) == rows:
            return state
        raise ValueError(
            f"every tensor of a policy's state must have B = {rows} rows, got shape {tuple(state.shape)}; "
            "put the rows first (nn.LSTM and nn.GRU put layers there: h.transpose(0, 1))"
        )
    if isinstance(state, (tuple, list)):
        return tuple(checked_state(part, rows) for part in state)
    raise TypeError(
        "a policy's state must be a tensor or a tuple of states, so that its rows can be forked, "
        f"got {type(state).__name__}; without memory it is ()"
    )


def pick_rows(states: Sequence[State], which: Tensor, rows: Tensor) -> State:
    """Return copies of rows of several states: row `rows[i]` of state `which[i]`."""
    first = states[0]
    if not isinstance(first, Tensor):
        return tuple(pick_rows([s[i] for s in states], which, rows) for i in range(len(first)))
    if all(state is first for state in states):  # a cache that is written in place is the same in all
        return first[rows]
    return torch.stack(list(states))[which, rows]
