"""chrF (Popović 2015): F_β of character n-grams, 0–100 as sacreBLEU prints it.

chrF = 100 · (1 + β²) P R / (β² P + R),    P, R = means of precision and recall over n = 1 … 6
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rlseq.arguments import NgramOrder, PositiveFloat
from rlseq.metrics.base import Batch, Metric
from rlseq.metrics.bleu import counts
from rlseq.metrics.dynamic import added, greatest
from rlseq.metrics.encode import Line, RefTable
from rlseq.metrics.ngrams import Trie, repeats, take
from rlseq.metrics.tokenize import Tokenize, letters


@dataclass(eq=False)
class ChrF(Metric):
    """chrF against the best reference; the corpus figure pools the counts of the best references.

    As a reward on token ids it is the same formula with tokens for characters, which makes it chrF
    in an environment that writes characters.

    Args:
        order: the longest n-gram.
        beta: weight of recall.
    """

    order: NgramOrder = 6
    beta: PositiveFloat = 2.0

    name: ClassVar[str] = "chrf"
    words: ClassVar[Tokenize] = staticmethod(letters)

    def fit(self, table: RefTable) -> None:
        """How often each n-gram occurs in each reference."""
        self.trie, levels = Trie.grow(table.ids, table.item, table.items, self.order)
        self.count = counts(levels, self.trie.nodes, table)
        self.ref_lengths = table.spread(table.lengths, fill=-1)

    def judge(self, batch: Batch) -> Tensor:
        """The best over references."""
        return greatest(self.f_score(self.statistics(batch)))

    def corpus(self, hypotheses: Sequence[Line]) -> float:
        """The figure of the counts summed over all sentences, each with its best reference."""
        ids, rows = self.lines(hypotheses)
        pooled = self.chunked(self._best, Batch, ids, rows, torch.float64).sum(0)
        return float(self.f_score(pooled.view(3, self.order)))

    def _best(self, batch: Batch) -> Tensor:
        """[B, 3·order]: the counts against the best reference."""
        stats = self.statistics(batch, torch.float64)[:, 0]
        best = self.f_score(stats).argmax(-1)
        return stats[torch.arange(len(best), device=best.device), best].flatten(1)

    def statistics(self, batch: Batch, dtype: torch.dtype | None = None) -> Tensor:
        """[B, P, R, 3, order]: n-grams of the hypothesis, of the reference, and of both."""
        walk = zip(self.trie.walk(batch.ids, batch.rows), repeats(batch.ids, self.order), strict=True)
        both = [batch.total(seen[..., None] < take(self.count, node)) for node, seen in walk]
        shared = torch.stack(both, -1)
        n = torch.arange(self.order, device=shared.device)
        theirs = (self.ref_lengths[batch.rows, None, :, None] - n).clamp(min=0).expand_as(shared)
        own = torch.where(theirs > 0, (batch.lengths[..., None, None] - n).clamp(min=0), 0)
        return torch.stack([own, theirs, shared], -2).to(dtype or self.dtype)

    def f_score(self, stats: Tensor) -> Tensor:
        """[..., 3, order] → [...]; orders that one side lacks are left out of the means."""
        own, theirs, shared = stats.unbind(-2)
        used = (own > 0) & (theirs > 0)
        orders = used.sum(-1).clamp(min=1)
        precision = added(torch.where(used, shared / own.clamp(min=1), 0)) / orders
        recall = added(torch.where(used, shared / theirs.clamp(min=1), 0)) / orders
        weight = self.beta**2
        f = (1 + weight) * precision * recall / (weight * precision + recall).clamp(min=_TINY)
        return 100 * f

    def settings(self) -> dict[str, object]:
        """Order and β."""
        return {"nc": self.order, "beta": f"{self.beta:g}", "scale": 100}

    def cells(self, width: int) -> int:
        """Pairs of positions, and every position with every reference."""
        return (width + 1) * (width + 1 + 8 * self.count.shape[1])


_TINY = 1e-30
