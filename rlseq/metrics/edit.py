"""Edit distance and its rates against the nearest reference; exact match; token error rate.

Distances are to be small, rewards to be large: `score` is the distance or the rate, and the reward
call is 1 − rate, or what `gain` says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rlseq.metrics.base import Metric, WholeTexts
from rlseq.metrics.bitparallel import least, patterns
from rlseq.metrics.encode import Line, RefTable

Gain = Callable[[Tensor, Tensor], Tensor]  # (distance, length of the reference) -> reward


def one_minus_rate(distance: Tensor, ref_length: Tensor) -> Tensor:
    """Return 1 − d/|r|: 1 for a match, below 0 for more errors than words."""
    return 1 - distance / ref_length.clamp(min=1)


def negative(distance: Tensor, ref_length: Tensor) -> Tensor:
    """Return −d, the reward of Practical_RL's self-critical notebook."""
    return -distance


@dataclass(eq=False)
class EditDistance(Metric):
    """Levenshtein distance to the nearest reference (insert, delete, replace, each at cost 1).

    The unit is the token: phonemes or words as they come, characters with `tokenize=characters`. In a task
    whose tokens are pieces of words, the metric of this name counts words.

    Args:
        gain: the reward, of the distance and the length of the nearest reference.
    """

    gain: Gain = one_minus_rate

    name: ClassVar[str] = "edit_distance"

    def fit(self, table: RefTable) -> None:
        """Record where each token occurs in each reference."""
        self.patterns = patterns(table)

    def judge(self, batch: WholeTexts) -> Tensor:
        """Return the distance."""
        return self.nearest(batch)[0]

    def reward(self, batch: WholeTexts) -> Tensor:
        """The gain."""
        return self.gain(*self.nearest(batch))

    def nearest(self, batch: WholeTexts) -> tuple[Tensor, Tensor]:
        """Return the distance to the nearest reference (of several the longest), and its length, [B, P]."""
        ref_lengths = self.patterns.lengths.index_select(0, batch.rows)[:, None]
        distance = torch.where(ref_lengths < 0, _FAR, self.patterns.distances(batch))
        key = least((distance << 32) - ref_lengths)  # nearest first, then longest
        nearest = (key + (2**32 - 1)) >> 32
        return nearest.to(self.dtype), ((nearest << 32) - key).to(self.dtype)

    def cells(self, width: int) -> int:
        """Return the memory cells that the patterns need."""
        return self.patterns.cells(width)

    def settings(self) -> dict[str, object]:
        """The gain."""
        return {"gain": self.gain.__name__}


@dataclass(eq=False)
class ErrorRate(EditDistance):
    """Distance over reference length: word, character or phoneme error rate, by the tokens given.

    The corpus figure is all errors over all reference tokens, as WER is reported.
    """

    name: ClassVar[str] = "error_rate"

    def judge(self, batch: WholeTexts) -> Tensor:
        """Return the rate."""
        distance, ref_length = self.nearest(batch)
        return distance / ref_length.clamp(min=1)

    def corpus(self, hypotheses: Sequence[Line]) -> float:
        """Return Σ distance / Σ reference length."""
        errors, tokens = self.pooled(lambda batch: torch.cat(self.nearest(batch), 1), hypotheses)
        return float(errors / tokens.clamp(min=1))


@dataclass(eq=False)
class Exact(Metric):
    """1 where the sequence equals one of the references, else 0."""

    name: ClassVar[str] = "exact"

    def fit(self, table: RefTable) -> None:
        """Keep the references themselves."""
        self.table = table.spread(table.ids, fill=-1)
        self.ref_lengths = table.spread(table.lengths, fill=-1)

    def judge(self, batch: WholeTexts) -> Tensor:
        """Return 1 where all positions and the length are right, else 0."""
        right = batch.total(_agree(batch, self.table)) == batch.lengths[..., None]
        ended = batch.lengths[..., None] == self.ref_lengths[batch.rows, None]
        return (right & ended).any(-1).to(self.dtype)

    def cells(self, width: int) -> int:
        """Return the memory cells of a row: every position with every reference."""
        return (width + 1) * self.table.shape[1]


@dataclass(eq=False)
class TokenErrorRate(Exact):
    """Share of wrong positions (Hamming):  Δ(ŷ, y) = Σₜ 1[ŷₜ ≠ yₜ] / max(|ŷ|, |y|).

    Positions that one of the two lacks are wrong. The least over references; reward 1 − Δ.
    """

    name: ClassVar[str] = "token_error_rate"

    def judge(self, batch: WholeTexts) -> Tensor:
        """Return the rate."""
        right = batch.total(_agree(batch, self.table)).to(self.dtype)
        ref_lengths = self.ref_lengths[batch.rows, None]
        longer = torch.maximum(batch.lengths[..., None], ref_lengths).clamp(min=1)
        return torch.where(ref_lengths < 0, 1, 1 - right / longer).amin(-1)

    def reward(self, batch: WholeTexts) -> Tensor:
        """Return 1 − Δ."""
        return 1 - self.judge(batch)


_FAR = 2**28  # the distance to a reference that an item does not have


def _agree(batch: WholeTexts, table: Tensor) -> Tensor:
    """Return whether reference and sequence have the same token at t, [B, T], [items, R, L] → [B, T, R]."""
    width = batch.ids.shape[1]
    aligned = torch.nn.functional.pad(table[:, :, :width], (0, max(0, width - table.shape[2])), value=-1)
    same = batch.ids[:, :, None] == aligned[batch.rows].transpose(1, 2)
    return same & batch.real[:, :, None]
