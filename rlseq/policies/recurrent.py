"""Recurrent policies: a language model, or an encoder–decoder where the task has a source.

hₜ = g(hₜ₋₁, xₜ),   π(yₜ | y₍₁…ₜ₋₁₎, source) = softmax(W hₜ + b)
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from rlseq.policies.cells import tanh
from rlseq.policies.head import Head, PackingPolicy
from rlseq.policies.matmul import Linear
from rlseq.policies.recurrence import Cell, Memory, Recurrence, last_state, looked_up
from rlseq.policies.sharing import each_once
from rlseq.policies.spec import TokenEmbedding, TokenSpec
from rlseq.types import Context, WordsRead
from rlseq.utils.arguments import PositiveInt, ShareBelowOne, checked_arguments

RecurrentState = tuple[Tensor, ...]  # (memory… `[B, H]`, and the share of a source in the gates)


class Recurrent(PackingPolicy):
    """An LSTM or GRU language model; where there is a source, another one encodes it.

    The source is summed up in one vector (the encoder's state after its last real word), from which the
    decoder starts and which it sees at every step (Cho et al. 2014). Dropout is on what enters and leaves
    the recurrence (Zaremba et al. 2014).

    Args:
        cell: `nn.LSTM` or `nn.GRU`.
        words: what is written and read.
        hidden: H, width of the state.
        embedding: width of the embeddings.
        layers: of the encoder, and of the decoder.
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
        self.words, self.hidden = words, hidden
        self.embedding = TokenEmbedding(words.read, embedding)
        if words.source is not None:
            self.source_embedding = nn.Embedding(words.source, embedding)
            self.encoder = Recurrence(cell, embedding, hidden, layers)
            self.bridge = Linear(hidden, hidden)
        self.decoder = Recurrence(cell, embedding + hidden * (words.source is not None), hidden, layers)
        self.dropout = nn.Dropout(dropout)
        self.head = Head(hidden, words.written, value)

    def start(self, context: Context) -> RecurrentState:
        """Read the source, if there is one; the last part of the state is its share in the gates."""
        memory, source = self._read(context)
        return (*memory, *[self.decoder.entering(s, self.embedding.embedding_dim) for s in source])

    def step(self, token: WordsRead, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        """Read a token."""
        memory, source = state[: self.decoder.memories], state[self.decoder.memories :]
        entering = self.decoder.entering_words(token, self.embedding, self.dropout)
        h, memory = self.decoder.step(sum(source, start=entering), memory)
        return self.head(self.dropout(h)), (*memory, *source)

    def features(self, read: WordsRead, context: Context, lengths: Tensor | None = None) -> Tensor:
        """Read all words at once; of texts of some lengths `[B]`, what follows is padding."""
        memory, source = self._read(context)
        x, which = looked_up(read, self.embedding, self.dropout)
        beside = next(iter(source), None)
        h: Tensor = self.dropout(self.decoder.unroll(x, memory, which=which, beside=beside, lengths=lengths))
        return h

    def _read(self, context: Context) -> tuple[Memory, Sequence[Tensor]]:
        """Return the decoder's first memory, and the summary of the source, `[B, H]`, if there is one."""
        if self.words.source is None:
            return self.decoder.from_first(self.head.weight.new_zeros(len(context["index"]), self.hidden)), ()
        memory, summary = each_once(self, self._encode, context, "source")
        return memory, (summary,)

    def _encode(self, context: Context) -> tuple[Memory, Tensor]:
        """Return the decoder's first memory, and the summary of the source, `[B, H]`."""
        source = context["source"]
        present = self.words.present(source)
        x, which = looked_up(source, self.source_embedding, self.dropout)
        summary = last_state(self.encoder.unroll(x, which=which, lengths=present.sum(1)), present)
        return self.decoder.from_first(tanh(self.bridge(summary))), summary
