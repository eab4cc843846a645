"""Measures of variety in a set of sequences: self-BLEU, distinct n-grams, repetition, duplicates, length.

These need no references. As rewards they judge each row, some of them against its batch; as
monitors they show mode collapse and generic answers, which BLEU and CIDEr do not.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rlseq.metrics.algebra import Composable
from rlseq.metrics.base import SIGNATURE_VERSION, scored
from rlseq.metrics.bleu import SACREBLEU, Definition
from rlseq.metrics.encode import Encoder, Line, check_settings
from rlseq.metrics.ngrams import PAD, Trie, repeats
from rlseq.metrics.tokenize import Tokenize, whitespace
from rlseq.types import Context
from rlseq.utils.arguments import NgramOrder, NonNegativeInt, check_fields


@dataclass(eq=False)
class SetMetric(Composable):
    """A figure of each sequence of a set [N], and one of the set.

    Args:
        tokenize: from a text to its words.
        eos: the id of EOS, at which a sequence of ids ends.
        dtype: precision of the scores.
    """

    _: KW_ONLY
    tokenize: Tokenize = whitespace
    eos: NonNegativeInt | None = None
    dtype: torch.dtype = torch.float32

    name: ClassVar[str]

    def __post_init__(self) -> None:
        """Check the settings."""
        check_fields(self)
        check_settings(self)

    @abstractmethod
    def judge(self, ids: Tensor) -> Tensor:
        """Return the figure of each row of ids [N, T], padded with PAD, as [N]; shares in float64."""

    def pool(self, ids: Tensor) -> Tensor:
        """Return the figure of the set of ids [N, T]; by default the mean."""
        return self.judge(ids).double().mean()

    def __call__(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the figure of each row within its batch, [B]."""
        return self.judge(scored(tokens, mask, self.eos)).to(self.dtype)

    def score(self, hypotheses: Sequence[Line]) -> Tensor:
        """Return the figure of each sequence within the set, [N]."""
        return self.judge(self._ids(hypotheses)).to(self.dtype)

    def corpus(self, hypotheses: Sequence[Line]) -> float:
        """Return the figure of the set."""
        return float(self.pool(self._ids(hypotheses)))

    def _ids(self, hypotheses: Sequence[Line]) -> Tensor:
        return Encoder(self.tokenize, self.eos).hypotheses(hypotheses)

    @property
    def signature(self) -> str:
        """Name, settings and version."""
        parts = "".join(f"|{key}:{value}" for key, value in self.settings().items())
        return (
            f"{self.name}{parts}|tok:{getattr(self.tokenize, '__name__', 'custom')}|rlseq:{SIGNATURE_VERSION}"
        )

    def settings(self) -> dict[str, object]:
        """Return the metric's own parameters."""
        return {}


@dataclass(eq=False)
class Length(SetMetric):
    """Number of tokens of a sequence; the mean of a set."""

    name: ClassVar[str] = "length"

    def judge(self, ids: Tensor) -> Tensor:
        """Return the number of tokens of each row, [N]."""
        return (ids >= 0).sum(1)


@dataclass(eq=False)
class DistinctN(SetMetric):
    """Distinct n-grams over n-grams (Li et al. 2016): within a sequence, or over the whole set.

    Args:
        order: n.
    """

    order: NgramOrder = 2

    name: ClassVar[str] = "distinct"

    def judge(self, ids: Tensor) -> Tensor:
        """Return the share of each row, [N]; 0 for a sequence without n-grams."""
        *_, seen = repeats(ids, self.order)
        whole = _whole(ids, self.order)
        return (whole & (seen == 0)).sum(1).double() / whole.sum(1).clamp(min=1)

    def pool(self, ids: Tensor) -> Tensor:
        """Return the distinct n-grams of the set over all its n-grams."""
        _, (*_, level) = Trie.grow(ids.cpu(), torch.zeros(len(ids), dtype=torch.int64), 1, self.order)
        whole = level > 0
        return torch.tensor(len(torch.unique(level[whole])) / max(1, int(whole.sum())), dtype=torch.float64)

    def settings(self) -> dict[str, object]:
        """Return the order."""
        return {"n": self.order}


@dataclass(eq=False)
class Repetition(DistinctN):
    """Share of n-grams that occurred in the sequence before (Welleck et al. 2020, "rep-n")."""

    order: NgramOrder = 4

    name: ClassVar[str] = "repetition"

    def judge(self, ids: Tensor) -> Tensor:
        """Return the share of each row, [N]; 0 for a sequence without n-grams."""
        *_, seen = repeats(ids, self.order)
        return (seen > 0).sum(1).double() / _whole(ids, self.order).sum(1).clamp(min=1)

    def pool(self, ids: Tensor) -> Tensor:
        """Return the mean over sequences."""
        return self.judge(ids).double().mean()


@dataclass(eq=False)
class Commonness(SetMetric):
    """Share of the set that equals a sequence; of a set the share of its most frequent sequence."""

    name: ClassVar[str] = "commonness"

    def judge(self, ids: Tensor) -> Tensor:
        """Return the share of each row, [N], at least 1/N."""
        _, which, count = torch.unique(ids, dim=0, return_inverse=True, return_counts=True)
        share: Tensor = count[which].double() / max(1, len(ids))
        return share

    def pool(self, ids: Tensor) -> Tensor:
        """Return the share of the most frequent sequence."""
        return self.judge(ids).double().amax()


@dataclass(eq=False)
class SelfBLEU(SetMetric):
    """BLEU of each sequence against all others of the set (Zhu et al. 2018); high means alike.

    Args:
        order: the longest n-gram.
        definition: which BLEU, as in `BLEU`.
    """

    order: NgramOrder = 4
    definition: Definition = SACREBLEU

    name: ClassVar[str] = "self_bleu"

    def judge(self, ids: Tensor) -> Tensor:
        """Return BLEU of each row, [N], in one pass: of each n-gram only the two largest counts matter."""
        if len(ids) < 2:
            raise ValueError(f"SelfBLEU compares sequences with each other, got {len(ids)}")
        device, ids = ids.device, ids.cpu()  # where a trie is made; one wait, not one for each order
        root = torch.zeros(len(ids), dtype=torch.int64)
        trie, levels = Trie.grow(ids, root, 1, self.order)
        matches = []
        for level, seen in zip(levels, repeats(ids, self.order), strict=True):
            matches.append((seen < _most_elsewhere(level, seen, trie.nodes)).sum(1))
        length = (ids >= 0).sum(1)
        ngrams = (length[:, None] - torch.arange(self.order)).clamp(min=0)
        stats = [torch.stack(matches, -1), ngrams, length, _closest_other(length)]
        score = self.definition.scale * self.definition.sentence(*(s.to(self.dtype) for s in stats))
        return score.to(device, non_blocking=True)

    def settings(self) -> dict[str, object]:
        """Return order, definition and scale."""
        return {"n": self.order, "def": self.definition.name, "scale": f"{self.definition.scale:g}"}


def _whole(ids: Tensor, order: int) -> Tensor:
    """Return where an n-gram of this order ends, [N, T]."""
    return (ids != PAD) & (torch.arange(ids.shape[1], device=ids.device) >= order - 1)


def _most_elsewhere(level: Tensor, seen: Tensor, nodes: int) -> Tensor:
    """Return the largest count of the n-gram at each position in any one other row, [N, T]."""
    rows = len(level)
    row = torch.arange(rows, device=level.device)[:, None].expand_as(level)
    rank = torch.where(level > 0, (seen.long() + 1) * rows + row, 0)  # count first, then row
    empty = torch.zeros(nodes, dtype=torch.int64, device=level.device)
    first = empty.scatter_reduce(0, level.reshape(-1), rank.reshape(-1), "amax")[level]
    rest = torch.where(first % rows == row, 0, rank)  # ranks in rows other than the richest
    second = empty.scatter_reduce(0, level.reshape(-1), rest.reshape(-1), "amax")[level]
    most = torch.where(first % rows == row, second, first) // rows
    return torch.where(level > 0, most, 0)


def _closest_other(length: Tensor) -> Tensor:
    """Return the length closest to each sequence's own among all others, [N]; the shorter of two."""
    sizes: Tensor
    sizes, which, count = torch.unique(length, return_inverse=True, return_counts=True)
    alone = torch.diag(count == 1)  # the only sequence of a length is not another one
    gap = torch.where(alone, _FAR, (sizes - sizes[:, None]).abs())
    nearest = ((gap << 32) + sizes).amin(1) & (2**32 - 1)
    closest: Tensor = nearest.index_select(0, which)
    return closest


_FAR = 2**30  # farther than any length
