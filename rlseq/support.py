"""Which tokens were allowed in a rollout: one mask `[V]` where it was always the same, else `[B, T, V]`."""

from __future__ import annotations

import torch
from torch import Tensor


class Allowed:
    """Gathers, step by step, which tokens could be chosen; all of them where nothing else is said.

    Args:
        rows: B.
        steps: T.
    """

    def __init__(self, rows: int, steps: int) -> None:
        self._shape, self._first = (rows, steps + 1), True  # what is done writes into a spare column
        self._mask: Tensor | None = None
        self._said: Tensor | None = None  # the task's own tensor, where there was one mask so far,
        self._version = 0  # and how often it had been written

    @property
    def mask(self) -> Tensor | None:
        """`[V]` or `[B, T, V]`; None where everything was allowed."""
        return self._mask[:, :-1] if self._mask is not None and self._mask.ndim == 3 else self._mask

    def note(self, rows: Tensor, place: Tensor, support: Tensor | None) -> None:
        """Keep what was allowed in some rows `[n]` in their places `[n]`: `[V]`, `[n, V]` or None."""
        same = support is self._said and (support is None or support._version == self._version)
        if self._first and support is not None and support.ndim == 1:
            self._said, self._version = support, support._version
            self._mask = support.clone()  # as a task may write its next mask into this one
        elif not same:  # whether its values differ could only be waited for
            if self._mask is None or self._mask.ndim == 1:
                words = (self._mask if support is None else support).shape[-1]  # type: ignore[union-attr]
                before = place.new_ones((), dtype=torch.bool) if self._mask is None else self._mask
                self._mask = before.expand(*self._shape, words).clone()
            self._mask[rows, place] = True if support is None else support
        self._first = False
