"""The real places of a batch of texts, row by row or step by step, so that no work is done on padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence


@dataclass(frozen=True, eq=False)
class RealPlaces:
    """The real places of a batch `[B, T]`, row by row: layers that see one place at a time need no others."""

    shape: tuple[int, int]  # B and T
    places: Tensor | None  # row · T + step of each, [N]; None where all count, and nothing is gathered

    @classmethod
    def of(cls, mask: Tensor) -> RealPlaces:
        """Return the places where a mask `[B, T]` is True; all of them where the host must not look at it."""
        rows, steps = mask.shape
        if mask.device.type != "cpu" or torch.compiler.is_compiling():
            return cls((rows, steps), None)
        places = mask.flatten().nonzero().squeeze(1)
        return cls((rows, steps), None if len(places) == rows * steps else places)

    def gathered(self, x: Tensor) -> Tensor:
        """Return the real places of x `[B, T, …]`, `[N, …]`; x itself where all count."""
        return x if self.places is None else x.flatten(0, 1).index_select(0, self.places)

    def spread(self, x: Tensor) -> Tensor:
        """Return x `[N, …]` as `[B, T, …]`, with zeros on padding; x itself where all count."""
        if self.places is None:
            return x
        rows, steps = self.shape
        whole = x.new_zeros(rows * steps, *x.shape[1:]).index_copy(0, self.places, x)
        return whole.view(rows, steps, *x.shape[1:])


ALL = RealPlaces((0, 0), None)  # for layers of whole rectangles


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
    def of(cls, shape: Sequence[int], lengths: Tensor | None) -> Packed:
        """Return the places of texts `[B, T]` of these lengths `[B]`, at least 1; None where all have T."""
        rows, steps = shape
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
