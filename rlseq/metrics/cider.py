"""CIDEr and CIDEr-D (Vedantam, Zitnick & Parikh 2015): tf-idf cosines of n-grams.

    CIDErₙ(h, r) = g(h)·g(r) / (‖g(h)‖ ‖g(r)‖),    g_ω(x) = count_ω(x) · log(N / df_ω)

averaged over references and over n = 1 … 4, times 10. CIDEr-D clips a hypothesis count at the
reference's and multiplies by exp(−(l(h) − l(r))² / 2σ²), against repetition and padding out. The
N items and their document frequencies df belong to a corpus and are fitted once; never to a batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from rlseq.metrics.base import Metric, WholeTexts
from rlseq.metrics.bitparallel import added
from rlseq.metrics.bleu import counted
from rlseq.metrics.encode import RefTable
from rlseq.metrics.ngrams import HashTable, Trie, repeats, take
from rlseq.utils.arguments import NgramOrder, PositiveFloat
from rlseq.utils.modules import Movable


@dataclass(frozen=True, eq=False)
class DocumentFrequency(Movable):
    """The number of items in which each n-gram of a corpus occurs; splits may share it.

    Pass `CIDErD(train).df` as `df=` to score other references by the training corpus.
    """

    items: int
    trie: Trie
    idf: Tensor  # [nodes] log(N / df), with df = 1 for n-grams that no item has
    words: dict[str, int]  # the vocabulary, empty where references are ids
    fingerprint: str

    @classmethod
    def fit(cls, table: RefTable, order: int, words: dict[str, int], fingerprint: str) -> DocumentFrequency:
        """Count items, not occurrences; the same references are counted once."""
        key = f"{fingerprint}|{order}"
        if key in _FITTED:
            return _FITTED[key]
        trie, levels = Trie.grow(table.ids, torch.zeros_like(table.item), 1, order)
        seen = torch.cat([level.view(-1) for level in levels])
        item = table.item[:, None].expand_as(table.ids).reshape(-1).repeat(order)
        pairs = torch.unique((seen * table.items + item)[seen > 0])
        frequency = torch.bincount(pairs // table.items, minlength=trie.nodes).double()
        idf = math.log(table.items) - torch.log(frequency.clamp(min=1))
        fitted = cls(table.items, trie, idf, words, fingerprint)
        _FITTED[key] = fitted
        return fitted

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything as tensors, for a checkpoint."""
        trie, table = self.trie, self.trie.table
        texts = {"words": "\n".join(self.words), "fingerprint": self.fingerprint}
        return {
            "sizes": torch.tensor([self.items, trie.order, trie.stride, trie.nodes]),
            "keys": table.keys,
            "values": table.values,
            "idf": self.idf,
            **{name: torch.tensor(list(text.encode()), dtype=torch.uint8) for name, text in texts.items()},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> DocumentFrequency:
        """Make it again of what `state_dict` returned."""
        items, order, stride, nodes, *_ = state["sizes"].tolist()
        keys, values, idf = (state[name].cpu() for name in ("keys", "values", "idf"))
        table = HashTable(keys[keys >= 0], values[keys >= 0])
        text = bytes(state["words"].tolist()).decode()
        words = {word: k for k, word in enumerate(text.split("\n"))} if text else {}
        fingerprint = bytes(state["fingerprint"].tolist()).decode()
        return cls(items, Trie(table, order, stride, nodes), idf, words, fingerprint)


_FITTED: WeakValueDictionary[str, DocumentFrequency] = WeakValueDictionary()


@dataclass(eq=False)
class CIDEr(Metric):
    """CIDEr as first published: no clipping, no length penalty; 0–10.

    Args:
        order: the longest n-gram.
        df: document frequencies fitted on another corpus; by default on these references.
    """

    order: NgramOrder = 4
    df: DocumentFrequency | None = None

    name: ClassVar[str] = "cider"

    def vocabulary(self) -> dict[str, int]:
        """Return the words of the corpus whose frequencies are used."""
        return {} if self.df is None else dict(self.df.words)

    def fit(self, table: RefTable) -> None:
        """Compute document frequencies, and for every n-gram of an item its normalised weight."""
        self.df = self.df or self._own_frequencies(table)
        self.trie, self.count = counted(table, self.order)
        self.idf = self.df.idf.to(self.dtype)
        norms = self._reference_norms(table)
        self.inverse = torch.where(norms > 0, 1 / norms, 0).to(self.dtype)
        self.bigrams = table.spread((table.lengths - 1).clamp(min=0)).to(self.dtype)
        self.share = 10 / (self.order * torch.tensor(self.counts, dtype=self.dtype))

    def _own_frequencies(self, table: RefTable) -> DocumentFrequency:
        if table.items < 2:
            raise ValueError(
                f"{self.name} needs the references of at least 2 items, got 1: with N = 1 every "
                "weight log(N/df) is 0, and so every score; fit on the corpus, or pass the "
                "frequencies of one: df=CIDErD(corpus_references).df"
            )
        return DocumentFrequency.fit(table, self.order, dict(self.encoder.words), self.fingerprint)

    def _reference_norms(self, table: RefTable) -> Tensor:
        """Return the length of the tf-idf vector of each reference, [items, width, order]."""
        assert self.df is not None
        root = torch.zeros_like(table.item)
        walk = zip(self.df.trie.walk(table.ids, root), repeats(table.ids, self.order), strict=True)
        real = table.ids >= 0
        norms = [_squares(seen, self.df.idf[node], real, n).sum(1) for n, (node, seen) in enumerate(walk)]
        return table.spread(torch.stack(norms, -1).sqrt())

    def judge(self, batch: WholeTexts) -> Tensor:
        """Return the mean over references and orders."""
        assert self.df is not None
        root = torch.zeros_like(batch.rows)
        total = torch.zeros((), dtype=self.dtype, device=batch.ids.device)
        walks = zip(
            self.trie.walk(batch.ids, batch.rows),
            self.df.trie.walk(batch.ids, root),
            repeats(batch.ids, self.order),
            strict=True,
        )
        for n, (node, word, seen) in enumerate(walks):
            idf = take(self.idf, word)
            dot = batch.total(self.products(take(self.count, node), seen) * (idf * idf)[..., None])
            norm = batch.total(_squares(seen, idf, batch.real, n)).sqrt()
            cosine = dot * self.inverse[batch.rows, None, :, n] / norm.clamp(min=_TINY)[..., None]
            total = total + cosine
        total = total * self.penalty(batch)
        return added(total) * self.share[batch.rows, None]

    def products(self, count: Tensor, seen: Tensor) -> Tensor:
        """Return what the n-gram at t adds to Σ_ω count_ω(h) · count_ω(r), [B, T, R]."""
        return count.to(self.dtype)

    def penalty(self, batch: WholeTexts) -> Tensor:
        """Return a factor for each reference, [B, P, R]."""
        return torch.ones((), dtype=self.dtype, device=batch.ids.device)

    def settings(self) -> dict[str, object]:
        """Return order, corpus of the document frequencies, and scale."""
        assert self.df is not None
        return {"n": self.order, "df": f"corpus:{self.df.items}", "scale": 10}


@dataclass(eq=False)
class CIDErD(CIDEr):
    """CIDEr-D, what pycocoevalcap prints as "CIDEr" and captioning papers report; 0–10.

    Args:
        sigma: σ of the length penalty; lengths are counted in bigrams, as the reference code does.
    """

    sigma: PositiveFloat = 6.0

    name: ClassVar[str] = "cider_d"

    def products(self, count: Tensor, seen: Tensor) -> Tensor:
        """Return the same of min(count_ω(h), count_ω(r)), so that further repeats add nothing."""
        return (count * (seen[..., None] < count)).to(self.dtype)

    def penalty(self, batch: WholeTexts) -> Tensor:
        """Return exp(−(l(h) − l(r))² / 2σ²)."""
        gap = (batch.lengths - 1).clamp(min=0)[..., None] - self.bigrams[batch.rows, None]
        return torch.exp(gap * gap / (-2 * self.sigma**2))

    def settings(self) -> dict[str, object]:
        """Return the settings of CIDEr, and σ."""
        return {"n": self.order, "sigma": f"{self.sigma:g}", **super().settings()}


_TINY = 1e-30  # keeps 0/0 at 0: without weight in the norm there is none in the product


def _squares(seen: Tensor, idf: Tensor, real: Tensor, n: int) -> Tensor:
    """Return what the (n+1)-gram at t adds to Σ (count · idf)², [B, T]: k² − (k−1)² times idf²."""
    whole = real & (torch.arange(real.shape[1], device=real.device) >= n)
    return torch.where(whole, (2 * seen + 1) * idf * idf, 0)
