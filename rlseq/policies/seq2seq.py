"""An encoder–decoder with attention (Bahdanau et al. 2015).

s̄₁…S = encoder, in both directions        hₜ = g(hₜ₋₁, xₜ)
aₜ = Σᵢ softmaxᵢ(hₜ·K s̄ᵢ / √H) V s̄ᵢ        h̃ₜ = tanh(W [hₜ; aₜ])        π = softmax(W' h̃ₜ + b)

Attention looks from the decoder's output (Luong et al. 2015, eq. 5), and h̃ₜ is not fed back: so the
recurrence never waits for attention, and a given text is scored by one run of the recurrence and one batched
product, where input feeding would take T steps.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlseq.policies.attention import attention, seen_where
from rlseq.policies.cells import tanh
from rlseq.policies.head import Head, PackingPolicy
from rlseq.policies.matmul import Linear
from rlseq.policies.packed import ALL, RealPlaces
from rlseq.policies.recurrence import Cell, Memory, Recurrence, last_state, looked_up, reversed_within
from rlseq.policies.sharing import each_once
from rlseq.policies.spec import TokenEmbedding, TokenSpec
from rlseq.types import Context, WordsRead
from rlseq.utils.arguments import PositiveInt, ShareBelowOne, checked_arguments
from rlseq.utils.masks import until

EncodedSource = tuple[Tensor, Tensor, Tensor]  # K s̄, V s̄ `[B, S, H]`; 0 at words, else −∞, `[B, 1, S]`
Seq2SeqState = tuple[Memory, EncodedSource]


class Seq2Seq(PackingPolicy):
    """A bidirectional encoder, attention, and a decoder.

    Args:
        cell: `nn.LSTM` or `nn.GRU`.
        words: what is written and read; there must be a source.
        hidden: H, width of the state.
        embedding: width of the embeddings.
        layers: of each direction of the encoder, and of the decoder.
        dropout: share of entries dropped in training.
        value: add a value head V(sₜ) on the shared trunk.
    """

    @checked_arguments
    def __init__(
        self,
        cell: Cell,
        words: TokenSpec,
        *,
        hidden: PositiveInt = 256,
        embedding: PositiveInt = 128,
        layers: PositiveInt = 1,
        dropout: ShareBelowOne = 0.0,
        value: bool = False,
    ) -> None:
        super().__init__()
        if words.source is None:
            raise ValueError("seq2seq reads a source, and this task has none; use lstm, gru or transformer")
        self.words = words
        self.embedding = TokenEmbedding(words.read, embedding)
        self.source_embedding = nn.Embedding(words.source, embedding)
        self.forwards = Recurrence(cell, embedding, hidden, layers)
        self.backwards = Recurrence(cell, embedding, hidden, layers)
        self.bridge = Linear(2 * hidden, hidden)
        self.keys_values = Linear(2 * hidden, 2 * hidden, bias=False)
        self.decoder = Recurrence(cell, embedding, hidden, layers)
        self.combine = Linear(2 * hidden, hidden)
        self.dropout = nn.Dropout(dropout)
        self.head = Head(hidden, words.written, value)

    def start(self, context: Context) -> Seq2SeqState:
        """Read the source."""
        return each_once(self, self._encode, context, "source")

    def _encode(self, context: Context) -> Seq2SeqState:
        """Read the source in both directions; the decoder starts from what each knew at its end."""
        source = context["source"]
        present = self.words.present(source)
        x, which = looked_up(source, self.source_embedding, self.dropout)
        turned = (
            (reversed_within(x, present), None) if which is None else (x, reversed_within(which, present))
        )
        lengths = present.sum(1)
        there = self.forwards.unroll(x, which=which, lengths=lengths)
        back = self.backwards.unroll(turned[0], which=turned[1], lengths=lengths)
        first = tanh(self.bridge(torch.cat([last_state(there, present), last_state(back, present)], 1)))
        real = RealPlaces.of(present)
        read = torch.cat([real.gathered(there), real.gathered(reversed_within(back, present))], -1)
        keys, values = real.spread(self.keys_values(self.dropout(read))).chunk(2, 2)
        return self.decoder.from_first(first), (keys, values, seen_where(present.unsqueeze(1), keys.dtype))

    def step(self, token: WordsRead, state: Seq2SeqState) -> tuple[Tensor, Seq2SeqState]:
        """Read a token."""
        memory, source = state
        entering = self.decoder.entering_words(token, self.embedding, self.dropout)
        h, memory = self.decoder.step(entering, memory)
        return self.head(self._attend(h.unsqueeze(1), source).squeeze(1)), (memory, source)

    def features(self, read: WordsRead, context: Context, lengths: Tensor | None = None) -> Tensor:
        """Read all words at once; of texts of some lengths `[B]`, what follows is padding."""
        memory, source = self.start(context)
        x, which = looked_up(read, self.embedding, self.dropout)
        h = self.decoder.unroll(x, memory, which=which, lengths=lengths)
        return self._attend(h, source, ALL if lengths is None else RealPlaces.of(until(lengths, h.shape[1])))

    def _attend(self, h: Tensor, source: EncodedSource, real: RealPlaces = ALL) -> Tensor:
        """Return h̃ `[B, T, H]`, 0 on padding."""
        both = torch.cat([real.gathered(h), real.gathered(attention(h, *source))], -1)
        return real.spread(self.dropout(tanh(self.combine(both))))
