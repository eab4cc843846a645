"""BLEU (Papineni et al. 2002): clipped n-gram precisions and a brevity penalty.

    BLEU = BP · exp( 1/N Σₙ log pₙ ),    BP = min(1, exp(1 − r/c))

with pₙ = clipped matches / n-grams of the hypothesis, c its length and r that of the closest
reference. What happens where a match count is 0 differs from one implementation to the next; each
way has a name here, and the name is part of the signature.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from rlseq.metrics.base import Metric, WholeTexts
from rlseq.metrics.bitparallel import least
from rlseq.metrics.encode import Line, RefTable
from rlseq.metrics.ngrams import Trie, repeats, take
from rlseq.metrics.tokenize import Tokenize, mteval_13a
from rlseq.utils.arguments import NgramOrder

# (matches [..., N], n-grams [..., N], length [...], reference length [...]) -> BLEU in [0, 1]
Formula = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def brevity(length: Tensor, ref_length: Tensor) -> Tensor:
    """min(1, exp(1 − r/c)), 0 for an empty hypothesis."""
    penalty = torch.exp((1 - ref_length / length.clamp(min=1)).clamp(max=0))
    return torch.where(length > 0, penalty, 0)


# (matches [..., N], n-grams [..., N]) -> both, so that an order without a match need not be 0
Smooth = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def unsmoothed(matches: Tensor, ngrams: Tensor) -> tuple[Tensor, Tensor]:
    """Return the counts as they are."""
    return matches, ngrams


def halving(matches: Tensor, ngrams: Tensor) -> tuple[Tensor, Tensor]:
    """Count the k-th order without a match as 2⁻ᵏ matches, sacreBLEU's "exp"."""
    powers = torch.exp2(-(matches == 0).cumsum(-1).to(matches.dtype))
    return torch.where(matches > 0, matches, powers), ngrams


def floor(value: float = 0.1) -> Smooth:
    """Count an order without a match as `value` matches: sacreBLEU's "floor", NLTK's method 1 ("epsilon")."""

    def smooth(matches: Tensor, ngrams: Tensor) -> tuple[Tensor, Tensor]:
        return torch.where(matches > 0, matches, value), ngrams

    return _named(smooth, "floor", value)


def add_k(k: float = 1.0) -> Smooth:
    """Add k to the matches and the n-grams of every order above 1: sacreBLEU's "add-k", NLTK's method 2."""

    def smooth(matches: Tensor, ngrams: Tensor) -> tuple[Tensor, Tensor]:
        more = k * (torch.arange(matches.shape[-1], device=matches.device) > 0).to(matches.dtype)
        return matches + more, ngrams + more

    return _named(smooth, "add-k", k)


def _named(smooth: Smooth, name: str, value: float) -> Smooth:
    """Name a smoothing by its parameter, which must be a number above 0."""
    if not 0 < value < float("inf"):
        raise ValueError(
            f"the parameter of the smoothing {name} must be a finite number above 0, got {value}"
        )
    smooth.__name__ = f"{name}[{value:g}]"
    return smooth


def geometric(
    matches: Tensor, ngrams: Tensor, length: Tensor, ref_length: Tensor, *, smooth: Smooth, effective: bool
) -> Tensor:
    """BP times the geometric mean of the smoothed precisions; 0 without any match at all.

    Where an order has no n-grams, the score is 0, or with `effective` the order is left out of the mean.
    """
    found, all_ = smooth(matches, ngrams)
    used = all_ > 0
    logs = torch.where(used, torch.log(found / torch.where(used, all_, 1)), 0)
    orders = used.sum(-1).clamp(min=1)
    score = torch.exp(logs.sum(-1) / orders) * brevity(length, ref_length)
    scored = (matches > 0).any(-1) & (effective | used.all(-1))
    return torch.where(scored, score, 0)


def plus_one(matches: Tensor, ngrams: Tensor, length: Tensor, ref_length: Tensor) -> Tensor:
    """(matches + 1) / (n-grams + 1) for every order that both sides have; BP on r + 1.

    The reward of MIXER (Ranzato et al. 2016) as its code computes it.
    """
    order = torch.arange(matches.shape[-1], device=matches.device)
    used = order < torch.minimum(length, ref_length)[..., None]
    logs = torch.where(used, torch.log((matches + 1) / (ngrams + 1)), 0)
    mean = logs.sum(-1) / used.sum(-1).clamp(min=1)
    longer = torch.where(length < ref_length, ref_length + 1, ref_length)
    return torch.where(used.any(-1), torch.exp(mean), 0) * brevity(length, longer)


def epsilon(matches: Tensor, ngrams: Tensor, length: Tensor, ref_length: Tensor) -> Tensor:
    """Every match count + 10⁻¹⁵, every n-gram count + 10⁻⁹ (pycocoevalcap)."""
    tiny, small = 1e-15, 1e-9
    mean = torch.log((matches + tiny) / (ngrams + small)).mean(-1)
    ratio = (length + tiny) / (ref_length + small)
    return torch.exp(mean + (1 - 1 / ratio).clamp(max=0))


@dataclass(frozen=True)
class Definition:
    """A named definition of BLEU: the formulas of a sentence and of a corpus, and the scale."""

    name: str
    sentence: Formula
    corpus: Formula
    scale: float


def sacrebleu(smooth: Smooth = halving) -> Definition:
    """Return sacreBLEU with a smoothing: `unsmoothed`, `floor(0.1)`, `add_k(1)`, or its default `halving`.

    As in sacreBLEU, a sentence is scored over the orders that it has, a corpus over all.
    """
    name = "sacrebleu" if smooth is halving else f"sacrebleu+{getattr(smooth, '__name__', 'custom')}"
    sentence = partial(geometric, smooth=smooth, effective=True)
    return Definition(name, sentence, partial(geometric, smooth=smooth, effective=False), 100.0)


SACREBLEU = sacrebleu()
COCO = Definition("coco", epsilon, epsilon, 1.0)
MIXER = Definition("mixer", plus_one, partial(geometric, smooth=unsmoothed, effective=False), 1.0)


@dataclass(eq=False)
class BLEU(Metric):
    """BLEU-N against any number of references, sentence and corpus.

    Args:
        order: N, the longest n-gram.
        definition: `SACREBLEU` (0–100), `sacrebleu(floor(0.1))` and so on (0–100, with another smoothing),
            `COCO` (0–1, pycocoevalcap) or `MIXER` (0–1, +1 smoothing).
    """

    order: NgramOrder = 4
    definition: Definition = SACREBLEU

    name: ClassVar[str] = "bleu"
    words: ClassVar[Tokenize] = staticmethod(mteval_13a)

    def fit(self, table: RefTable) -> None:
        """Count for every n-gram of an item its most occurrences in one reference."""
        self.trie, levels = Trie.grow(table.ids, table.item, table.items, self.order)
        self.most = largest(levels, self.trie.nodes)
        self.ref_lengths = distinct_lengths(table)

    def judge(self, batch: WholeTexts) -> Tensor:
        """Return BLEU of each sentence, or of each prefix."""
        return self.definition.scale * self.definition.sentence(*self.statistics(batch))

    def corpus(self, hypotheses: Sequence[Line]) -> float:
        """Return BLEU of the summed counts of all sentences."""
        pooled = self.pooled(self._packed, hypotheses)
        found, ngrams, lengths = torch.split(pooled, [self.order, self.order, 2])
        return self.definition.scale * float(self.definition.corpus(found, ngrams, *lengths))

    def _packed(self, batch: WholeTexts) -> Tensor:
        """Return the statistics of each sentence side by side, to be summed, [B, 2·order + 2]."""
        found, ngrams, length, closest = self.statistics(batch, torch.float64)
        return torch.cat([found, ngrams, length[..., None], closest[..., None]], -1)[:, 0]

    def statistics(self, batch: WholeTexts, dtype: torch.dtype | None = None) -> tuple[Tensor, ...]:
        """Return matches [B, P, N], n-grams [B, P, N], length [B, P], length of the closest reference."""
        walk = zip(self.trie.walk(batch.ids, batch.rows), repeats(batch.ids, self.order), strict=True)
        matches = [batch.total(seen < take(self.most, node)) for node, seen in walk]
        length = batch.lengths
        orders = torch.arange(self.order, device=length.device)
        ngrams = (length[..., None] - orders).clamp(min=0)
        closest = closest_length(length, self.ref_lengths[batch.rows])
        found = torch.stack(matches, -1).to(dtype or self.dtype)
        return found, ngrams.to(found.dtype), length.to(found.dtype), closest.to(found.dtype)

    def settings(self) -> dict[str, object]:
        """Return order, definition and scale."""
        return {"n": self.order, "def": self.definition.name, "scale": f"{self.definition.scale:g}"}


_FAR = 2**30  # the length of a reference that an item does not have


def counted(table: RefTable, order: int) -> tuple[Trie, Tensor]:
    """Return the n-grams of each item, and their counts in each of its references, [nodes, width]."""
    trie, levels = Trie.grow(table.ids, table.item, table.items, order)
    dtype = _counting(table.ids.shape[1])
    found = torch.zeros(trie.nodes, table.width, dtype=dtype)
    for level in levels:
        row, position = (level > 0).nonzero(as_tuple=True)
        one = torch.ones(len(row), dtype=dtype)
        found.index_put_((level[row, position], table.slot[row]), one, accumulate=True)
    return trie, found


def largest(levels: Sequence[Tensor], nodes: int) -> Tensor:
    """Return the most occurrences of each n-gram in one reference, [nodes]."""
    most = torch.zeros(nodes, dtype=torch.int64)
    for level in levels:
        row, position = (level > 0).nonzero(as_tuple=True)
        pairs, count = torch.unique(level[row, position] * len(level) + row, return_counts=True)
        most.scatter_reduce_(0, pairs // len(level), count, "amax")
    return most.to(_counting(levels[0].shape[1]))


def _counting(longest: int) -> torch.dtype:
    """Return the smallest type that can count the n-grams of a text of `longest` tokens."""
    return torch.int16 if longest <= torch.iinfo(torch.int16).max else torch.int32


def distinct_lengths(table: RefTable) -> Tensor:
    """Return the different lengths of an item's references, [items, K], `_FAR` where it has fewer."""
    pairs = torch.unique(table.item * _FAR + table.lengths)  # sorted by item
    item, lengths = pairs // _FAR, pairs % _FAR
    per_item = torch.bincount(item, minlength=table.items)
    slot = torch.arange(len(item)) - (per_item.cumsum(0) - per_item)[item]
    found = torch.full((table.items, int(per_item.max())), _FAR)
    found[item, slot] = lengths
    return found


def closest_length(length: Tensor, ref_lengths: Tensor) -> Tensor:
    """Return the reference length nearest to each length, the shorter of two, [B, P], [B, R] → [B, P]."""
    gap = (ref_lengths[:, None, :] - length[..., None]).abs()
    return least((gap << 32) + ref_lengths[:, None, :]) & (2**32 - 1)
