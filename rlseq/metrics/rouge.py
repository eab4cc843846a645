"""ROUGE (Lin 2004): the longest common subsequence, or the n-grams, shared with a reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from rlseq.metrics.base import Metric, WholeTexts
from rlseq.metrics.bitparallel import greatest, patterns
from rlseq.metrics.bleu import counted
from rlseq.metrics.encode import RefTable
from rlseq.metrics.ngrams import repeats, take
from rlseq.metrics.tokenize import Tokenize, single_space
from rlseq.utils.arguments import NgramOrder, PositiveFloat

Combine = Callable[[Tensor, Tensor], Tensor]  # (precision, recall) -> score


def f_measure(precision: Tensor, recall: Tensor, beta: float = 1.0) -> Tensor:
    """F_β = (1 + β²)PR / (R + β²P), 0 where both are 0."""
    weight = beta * beta
    return (1 + weight) * precision * recall / (recall + weight * precision).clamp(min=_TINY)


def recall_only(precision: Tensor, recall: Tensor) -> Tensor:
    """Return the recall, which is ROUGE-N as first published."""
    return recall


@dataclass(eq=False)
class ROUGEL(Metric):
    """ROUGE-L as pycocoevalcap computes it, 0–1:  F_β of  P = max_r LCS/|h|,  R = max_r LCS/|r|.

    Args:
        beta: weight of recall.
    """

    beta: PositiveFloat = 1.2

    name: ClassVar[str] = "rouge_l"
    words: ClassVar[Tokenize] = staticmethod(single_space)

    def fit(self, table: RefTable) -> None:
        """Record where each token occurs in each reference."""
        self.patterns = patterns(table)

    def judge(self, batch: WholeTexts) -> Tensor:
        """Return F_β of the best precision and the best recall, maybe against different references."""
        common = self.patterns.common(batch).to(self.dtype)
        ref_lengths = self.patterns.lengths[batch.rows, None].clamp(min=1)
        precision = greatest(common) / batch.lengths.clamp(min=1)
        return f_measure(precision, greatest(common / ref_lengths), self.beta)

    def cells(self, width: int) -> int:
        """Return the memory cells that the patterns need."""
        return self.patterns.cells(width)

    def settings(self) -> dict[str, object]:
        """Return β."""
        return {"beta": f"{self.beta:g}"}


@dataclass(eq=False)
class ROUGEN(Metric):
    """ROUGE-N, 0–1: clipped n-gram matches against the best reference.

    Args:
        order: N.
        combine: what to make of precision and recall: `f_measure` (F₁) or `recall_only`.
    """

    order: NgramOrder = 2
    combine: Combine = f_measure

    name: ClassVar[str] = "rouge_n"

    def fit(self, table: RefTable) -> None:
        """Count how often each n-gram occurs in each reference."""
        self.trie, self.count = counted(table, self.order)
        self.ngrams = table.spread((table.lengths - self.order + 1).clamp(min=0))

    def judge(self, batch: WholeTexts) -> Tensor:
        """Return the best score over references."""
        *_, node = self.trie.walk(batch.ids, batch.rows)
        *_, seen = repeats(batch.ids, self.order)
        matches = batch.total(seen[..., None] < take(self.count, node)).to(self.dtype)
        own = (batch.lengths - self.order + 1).clamp(min=1)[..., None]
        theirs = self.ngrams[batch.rows, None].clamp(min=1)
        return greatest(self.combine(matches / own, matches / theirs))

    def settings(self) -> dict[str, object]:
        """Return N and the combination."""
        return {"n": self.order, "value": self.combine.__name__}


_TINY = 1e-30
