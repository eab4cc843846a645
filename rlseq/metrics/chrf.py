"""chrF (Popović 2015): F_β of character n-grams, 0–100 as sacreBLEU prints it.

chrF = 100 · (1 + β²) P R / (β² P + R),    P, R = means of precision and recall over n = 1 … 6
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from rlseq.metrics.base import Metric, WholeTexts
from rlseq.metrics.bitparallel import added, greatest
from rlseq.metrics.bleu import counted
from rlseq.metrics.encode import Line, RefTable
from rlseq.metrics.ngrams import repeats, take
from rlseq.metrics.tokenize import Tokenize, end_marks, letters
from rlseq.utils.arguments import NgramOrder, PositiveFloat

Mean = Callable[[Tensor, float], Tensor]  # (counts [..., 3, order], β²) -> score in [0, 1]


def effective_orders(stats: Tensor, weight: float) -> Tensor:
    """F_β of the mean precision and the mean recall, over the orders that both sides have."""
    own, theirs, shared = stats.unbind(-2)
    used = (own > 0) & (theirs > 0)
    orders = used.sum(-1).clamp(min=1)
    precision = added(torch.where(used, shared / own.clamp(min=1), 0)) / orders
    recall = added(torch.where(used, shared / theirs.clamp(min=1), 0)) / orders
    return (1 + weight) * precision * recall / (weight * precision + recall).clamp(min=_TINY)


def all_orders(stats: Tensor, weight: float) -> Tensor:
    """The mean over all orders of F_β, 10⁻¹⁶ where it is not defined: sacreBLEU's eps_smoothing=True."""
    own, theirs, shared = stats.unbind(-2)
    precision = torch.where(own > 0, shared / own.clamp(min=1), _EPS)
    recall = torch.where(theirs > 0, shared / theirs.clamp(min=1), _EPS)
    bottom = weight * precision + recall
    f = torch.where(bottom > 0, (1 + weight) * precision * recall / bottom.clamp(min=_TINY), _EPS)
    return added(f) / f.shape[-1]


@dataclass(eq=False)
class ChrF(Metric):
    """chrF against the best reference; the corpus figure pools the counts of the best references.

    As a reward on token ids it is the same formula with tokens for characters, which makes it chrF
    in an environment that writes characters.

    Args:
        order: the longest n-gram.
        beta: weight of recall.
        mean: from counts [..., 3, order] and β² to the score in [0, 1]: `effective_orders` as sacreBLEU's
            default, or `all_orders` as its eps_smoothing=True, chrF++.py, NLTK and Moses.
    """

    order: NgramOrder = 6
    beta: PositiveFloat = 2.0
    mean: Mean = effective_orders

    name: ClassVar[str] = "chrf"
    words: ClassVar[Tokenize] = staticmethod(letters)

    def fit(self, table: RefTable) -> None:
        """Count how often each n-gram occurs in each reference."""
        self.trie, self.count = counted(table, self.order)
        self.ref_lengths = table.spread(table.lengths, fill=-1)

    def judge(self, batch: WholeTexts) -> Tensor:
        """Return the best score over references."""
        return greatest(self.each(self.statistics(batch), batch.rows))

    def corpus(self, hypotheses: Sequence[Line]) -> float:
        """Return the figure of the counts summed over all sentences, each with its best reference."""
        return float(self.f_score(self.pooled(self._best, hypotheses).view(3, self.order)))

    def _best(self, batch: WholeTexts) -> Tensor:
        """Return the counts against the best reference, [B, 3·order]."""
        stats = self.statistics(batch, torch.float64)
        best = self.each(stats, batch.rows).argmax(-1)[:, 0]
        stats = stats[:, 0]
        return stats[torch.arange(len(best), device=best.device), best].flatten(1)

    def statistics(self, batch: WholeTexts, dtype: torch.dtype | None = None) -> Tensor:
        """Count the n-grams of the hypothesis, of the reference, and of both, [B, P, R, 3, order]."""
        walk = zip(self.trie.walk(batch.ids, batch.rows), repeats(batch.ids, self.order), strict=True)
        both = [batch.total(seen[..., None] < take(self.count, node)) for node, seen in walk]
        shared = torch.stack(both, -1)
        n = torch.arange(self.order, device=shared.device)
        theirs = (self.ref_lengths[batch.rows, None, :, None] - n).clamp(min=0).expand_as(shared)
        own = torch.where(theirs > 0, (batch.lengths[..., None, None] - n).clamp(min=0), 0)
        return torch.stack([own, theirs, shared], -2).to(dtype or self.dtype)

    def each(self, stats: Tensor, rows: Tensor) -> Tensor:
        """Return the score against each reference, [B, P, R], −1 where an item has fewer references."""
        return torch.where(self.ref_lengths[rows, None] < 0, -1, self.f_score(stats))

    def f_score(self, stats: Tensor) -> Tensor:
        """Return the score of counts, [..., 3, order] → [...]."""
        return 100 * self.mean(stats, self.beta**2)

    def settings(self) -> dict[str, object]:
        """Return order, β, and another mean than the default."""
        mean = "" if self.mean is effective_orders else getattr(self.mean, "__name__", "custom")
        return {"nc": self.order, "beta": f"{self.beta:g}", **({"mean": mean} if mean else {}), "scale": 100}

    def cells(self, width: int) -> int:
        """Return the memory cells of a row: pairs of positions, and every position with every reference."""
        return (width + 1) * (width + 1 + 8 * self.count.shape[1])


@dataclass(eq=False)
class ChrFPlusPlus(ChrF):
    """chrF++ (Popović 2017): chrF over n-grams of characters and of words; of texts only.

    Words have no ids among characters, so that it is no reward on token ids; chrF is.

    Args:
        word_order: the longest n-gram of words; 2 is chrF++, 1 is chrF+.
    """

    word_order: NgramOrder = 2

    name: ClassVar[str] = "chrf++"

    def __post_init__(self) -> None:
        """Fit on characters, and on words."""
        references = self.references
        super().__post_init__()
        if self.encoder.integral:
            raise TypeError(
                "chrF++ compares characters and words of texts, got token ids; use ChrF for those"
            )
        self.by_word = ChrF(references, order=self.word_order, tokenize=end_marks, dtype=self.dtype)

    def score(self, hypotheses: Sequence[Line]) -> Tensor:
        """Return the score of hypothesis i against the best of references[i], [N]."""
        stats, rows = self._counts(hypotheses, self.dtype)
        return greatest(self.each(stats, rows))[:, 0]

    def corpus(self, hypotheses: Sequence[Line]) -> float:
        """Return the figure of the counts summed over all sentences, each with its best reference."""
        stats, rows = self._counts(hypotheses, torch.float64)
        best = self.each(stats, rows).argmax(-1)[:, 0]
        return float(self.f_score(stats[rows, 0, best].sum(0)))

    def _counts(self, hypotheses: Sequence[Line], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Count characters, then words, [N, 1, R, 3, order + word_order], of rows 0 … N − 1."""
        parts = []
        for metric in (self, self.by_word):
            ids, rows = metric.lines(hypotheses)
            parts.append(metric.chunked(partial(metric.statistics, dtype=dtype), ids, rows, dtype=dtype))
        return torch.cat(parts, -1), rows

    def settings(self) -> dict[str, object]:
        """Return the settings of chrF, and the order of words."""
        return {"nw": self.word_order, **super().settings()}


_TINY = 1e-30
_EPS = 1e-16
