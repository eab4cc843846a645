"""The real places of a batch of texts, step by step, so that no work is done on padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence


@dataclass(frozen=True, eq=False)
class Packed:
    """The real places of a batch `[B, T]`, step by step, the longest texts first.

    The texts of a step are so the first of those of the step before: the others have ended.
    """

    shape: tuple[int, int]  # B and T
    places: Tensor  # row · T + step of each, [N]
    at_work: Sequence[int]  # the number of texts in each step
    order: Tensor | None  # the rows, the longest text first, [B]; None where all are as long

    @classmethod
    def of(cls, words: Tensor, lengths: Tensor | None) -> Packed:
        """Return the places of texts `[B, T]` of these lengths `[B]`, at least 1; None where all have T."""
        rows, steps = words.shape
        places = torch.arange(rows * steps).view(rows, steps)
        if lengths is None:
            return cls((rows, steps), places.t().flatten(), [rows] * steps, None)
        packed = pack_padded_sequence(places, lengths, batch_first=True, enforce_sorted=False)
        return cls((rows, steps), packed.data, packed.batch_sizes.tolist(), packed.sorted_indices)

    def sorted(self, x: Tensor) -> Tensor:
        """Return a tensor of every row `[B, …]` in the order of the texts."""
        return x if self.order is None else x.index_select(0, self.order)

    def unpacked(self, x: Tensor) -> Tensor:
        """Return a tensor of every real place `[N, H]` as `[B, T, H]`, with zeros on padding."""
        rows, steps = self.shape
        return x.new_zeros(rows * steps, x.shape[1]).index_copy(0, self.places, x).view(rows, steps, -1)
