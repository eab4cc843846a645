"""A transformer: decoder-only, or encoder–decoder where there is a source or a picture (Vaswani et al. 2017).

Every layer, pre-norm (Xiong et al. 2020):

    x ← x + Attention(LN x)      over the words so far
    x ← x + Attention(LN x, s̄)   over the source, if there is one
    x ← x + W₂ gelu(W₁ LN x)

Attention(q, k, v) = softmax(q·kᵀ/√d) v,   π = softmax(W LN x + b)
"""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from rlseq.policies.attention import (
    FactorizedEmbedding,
    KeysValues,
    Learned,
    Positions,
    TransformerLayer,
    seen_where,
)
from rlseq.policies.encoders import WordReader, picture_reader
from rlseq.policies.head import Head, PackingPolicy, working_dtype
from rlseq.policies.packed import ALL, RealPlaces
from rlseq.policies.sharing import each_once
from rlseq.policies.spec import TokenSpec
from rlseq.types import Context, WordsRead
from rlseq.utils.arguments import PositiveInt, ShareBelowOne, checked_arguments
from rlseq.utils.masks import until

CachedSource = tuple[tuple[KeysValues, ...], Tensor]  # by layer; 0 where words are, else −∞, `[B, 1, 1, S]`
ALIGNED = 8  # the width of a mask is a multiple of it, or a GPU's fused attention copies it in every call
TransformerState = tuple[Tensor, tuple[KeysValues, ...], CachedSource | tuple[()]]  # next place `[B]`, caches


class Transformer(PackingPolicy):
    """A transformer policy.

    `step` writes each word's keys and values into its place of a cache `[B, heads, T, d]`, **in place**. An
    older state stays good, as it never looks beyond its own place; but of two continuations of one state, at
    least one must be a copy (`rlseq.engine.state.fork`), and `step` is not to be differentiated.

    Args:
        words: what is written and read.
        hidden: H, width of the trunk.
        embedding: width of the embeddings, H when not given; narrower ones spare memory.
        layers: of the decoder, and of the encoder.
        heads: of attention; H is divided among them.
        dropout: share of entries dropped in training.
        positions: how places are known, `Learned` or `Rotary`, or your own.
        value: add a value head V(sₜ) on the shared trunk.
    """

    differentiable_step = False  # the cache is written in place

    @checked_arguments
    def __init__(
        self,
        words: TokenSpec,
        *,
        hidden: PositiveInt = 256,
        embedding: PositiveInt | None = None,
        layers: PositiveInt = 2,
        heads: PositiveInt = 4,
        dropout: ShareBelowOne = 0.0,
        positions: Positions = Learned,
        value: bool = False,
    ) -> None:
        super().__init__()
        if hidden % heads:
            raise ValueError(f"hidden must be divisible by heads, got hidden={hidden} and heads={heads}")
        self.words, self.heads = words, heads
        self.embedding = FactorizedEmbedding(words.read, embedding or hidden, hidden)
        self.positions = positions(hidden, heads, words.length)
        self.reader = picture_reader(words, hidden)
        if words.source is not None:
            sizes = hidden, embedding or hidden, layers, heads, dropout
            self.reader = WordReader(words, *sizes, positions)
        crosses = self.reader is not None
        self.decoder = nn.ModuleList(TransformerLayer(hidden, heads, dropout, crosses) for _ in range(layers))
        self.dropout, self.norm = nn.Dropout(dropout), nn.LayerNorm(hidden)
        self.head = Head(hidden, words.written, value)

    def start(self, context: Context) -> TransformerState:
        """Read the source, if there is one, and lay out the caches."""
        rows, weight = len(context["index"]), self.head.weight
        places = self.words.length + (-self.words.length % ALIGNED if weight.is_cuda else 0)
        shape = rows, self.heads, places, self.norm.weight.shape[0] // self.heads
        # Zeros, not whatever lies there: what is masked has weight 0, but 0 · NaN is NaN.
        empty = partial(weight.new_zeros, shape, dtype=working_dtype(weight))
        caches = tuple((empty(), empty()) for _ in self.decoder)
        return torch.zeros(rows, dtype=torch.int64, device=weight.device), caches, self._read(context)

    def step(self, token: WordsRead, state: TransformerState) -> tuple[Tensor, TransformerState]:
        """Read a token; its place is a tensor, so that neither the host nor a captured graph must know it."""
        place, caches, source = state
        x, turn = self.positions(self.embedding(token).unsqueeze(1), place.unsqueeze(1))
        x = self.dropout(x)
        places = caches[0][0].shape[2]
        so_far = torch.arange(places, device=place.device) <= place.view(-1, 1, 1, 1)
        seen = seen_where(so_far, caches[0][0].dtype)
        # A cache seen as lines of d numbers: this word's go to lines (row · heads + head) · T + place.
        lines = torch.arange(len(x) * self.heads, device=place.device).view(len(x), -1)
        lines = (lines * places + place.unsqueeze(1)).flatten()
        for i, layer in enumerate(self.decoder):
            x = layer(x, turn, seen, partial(_write, caches[i], lines), _of_layer(source, i))
        return self.head(self.norm(x.squeeze(1))), (place + 1, caches, source)

    def features(self, read: WordsRead, context: Context, lengths: Tensor | None = None) -> Tensor:
        """Read all words at once; of texts of some lengths `[B]`, what follows is padding."""
        source = self._read(context)
        x = self.embedding(read)
        x, turn = self.positions(x, torch.arange(x.shape[1], device=x.device).unsqueeze(0))
        real = ALL if lengths is None else RealPlaces.of(until(lengths, x.shape[1]))
        x = self.dropout(real.gathered(x))
        for i, layer in enumerate(self.decoder):
            x = layer(x, turn, source=_of_layer(source, i), real=real)
        h: Tensor = real.spread(self.norm(x))
        return h

    def _read(self, context: Context) -> CachedSource | tuple[()]:
        """Return keys and values of the source, for every layer that attends to it."""
        if self.reader is None:
            return ()
        return each_once(self, self._encode, context, self.reader.entry)

    def _encode(self, context: Context) -> CachedSource:
        """Return the keys and values for every layer."""
        x, present = self.reader(context)
        looked_at = tuple(cast(TransformerLayer, layer).look_at(x) for layer in self.decoder)
        return looked_at, seen_where(present[:, None, None], working_dtype(x))


def _of_layer(source: CachedSource | tuple[()], layer: int) -> tuple[KeysValues, Tensor] | None:
    return (source[0][layer], source[1]) if source else None


def _write(cache: KeysValues, lines: Tensor, *new: Tensor) -> KeysValues:
    """Put new keys and values `[B, heads, 1, d]` into their lines of a cache, and return all of it."""
    for all_words, word in zip(cache, new, strict=True):
        width = word.shape[-1]
        all_words.view(-1, width).index_copy_(0, lines, word.reshape(-1, width).to(all_words.dtype))
    return cache
