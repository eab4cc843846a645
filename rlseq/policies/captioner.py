"""Captioners: a picture is encoded once, and attended to before every word."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlseq.engine.state import fork
from rlseq.policies.cells import tanh
from rlseq.policies.encoders import PICTURE_READERS, picture_reader
from rlseq.policies.head import Head, PackingPolicy
from rlseq.policies.matmul import Linear
from rlseq.policies.packed import Packed
from rlseq.policies.recurrence import looked_up
from rlseq.policies.sharing import each_once
from rlseq.policies.spec import TokenEmbedding, TokenSpec
from rlseq.types import Context, WordsRead
from rlseq.utils.arguments import PositiveInt, ShareBelowOne, checked_arguments

# keys `[B, S, H]`, values `[B, S, 2H]`, and the score of what is absent
EncodedPicture = tuple[Tensor, Tensor, Tensor]
CaptionerState = tuple[Tensor, Tensor, EncodedPicture]  # h and c, `[B, H]` each


class Att2in(PackingPolicy):
    """An LSTM in which attention enters the cell alone (Att2in, Rennie et al. 2017).

        αₜ = softmaxᵢ(w · tanh(K x̄ᵢ + Q hₜ₋₁)),   aₜ = Σᵢ αₜᵢ x̄ᵢ
        iₜ, fₜ, oₜ = σ(W xₜ + U hₜ₋₁ + b)
        cₜ = iₜ ⊙ maxout(W' xₜ + U' hₜ₋₁ + V aₜ + b') + fₜ ⊙ cₜ₋₁
        hₜ = oₜ ⊙ tanh(cₜ),   π = softmax(W'' hₜ + b'')

    x̄ are the vectors of a picture, x the words, h₀ = c₀ = 0. As V Σ αᵢ x̄ᵢ = Σ αᵢ V x̄ᵢ, a picture is mapped
    by K and V once, when it is read.

    Args:
        words: what is written; there must be a picture.
        hidden: H, width of the state and of the vectors of a picture.
        embedding: width of the embeddings.
        dropout: share of entries dropped in training.
        value: add a value head V(sₜ) on the shared trunk.
    """

    @checked_arguments
    def __init__(
        self,
        words: TokenSpec,
        *,
        hidden: PositiveInt = 256,
        embedding: PositiveInt = 128,
        dropout: ShareBelowOne = 0.0,
        value: bool = False,
    ) -> None:
        super().__init__()
        self.words, self.hidden = words, hidden
        _check_picture(words)
        self.reader = picture_reader(words, hidden)
        self.embedding = TokenEmbedding(words.read, embedding)
        self.read_word = Linear(embedding, 5 * hidden)
        self.recall = Linear(hidden, 5 * hidden, bias=False)
        self.keys_values = Linear(hidden, 3 * hidden, bias=False)
        self.query, self.weigh = Linear(hidden, hidden), Linear(hidden, 1, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.head = Head(hidden, words.written, value)

    def start(self, context: Context) -> CaptionerState:
        """Read the picture."""
        return each_once(self, self._encode, context, self.reader.entry)

    def _encode(self, context: Context) -> CaptionerState:
        """Map the picture to keys and values; the decoder starts from zeros."""
        x, present = self.reader(context)
        keys, values = self.keys_values(self.dropout(x)).split([self.hidden, 2 * self.hidden], 2)
        keys = 2 * keys
        absent = torch.zeros_like(keys[:, :, 0]).masked_fill_(~present, -torch.inf)
        nothing = keys.new_zeros(len(keys), self.hidden)
        return nothing, nothing, (keys, values, absent)

    def step(self, token: WordsRead, state: CaptionerState) -> tuple[Tensor, CaptionerState]:
        """Read a word."""
        words, which = self._words(token)
        state = self._advance(_each(words, which), state)
        return self.head(self.dropout(state[0])), state

    def features(self, read: WordsRead, context: Context, lengths: Tensor | None = None) -> Tensor:
        """Read word by word, as attention needs the state; words and picture are mapped at once.

        Of texts of some lengths `[B]`, what follows is padding: in every step texts that have ended leave.
        """
        state, found = self.start(context), []
        words, which = self._words(read)
        if lengths is None or words.device.type != "cpu":
            for word in _each(words, which).unbind(1):
                state = self._advance(word, state)
                found.append(state[0])
            h: Tensor = self.dropout(torch.stack(found, 1))
            return h
        packed = Packed.of(words.shape[:2] if which is None else which.shape, lengths)
        state = state if packed.order is None else cast(CaptionerState, fork(state, packed.order))
        if which is None:
            real = words.flatten(0, 1).index_select(0, packed.places)
        else:
            real = F.embedding(which.flatten()[packed.places], words)
        for word in torch.split(real, [*packed.at_work]):
            state = self._advance(word, _first(state, len(word)))
            found.append(state[0])
        return packed.unpacked(self.dropout(torch.cat(found)))

    def _words(self, read: WordsRead) -> tuple[Tensor, Tensor | None]:
        """Return W x + b of words, and which of them is read at each place; None where each has its own."""
        x, which = looked_up(read, self.embedding, self.dropout)
        return self.read_word(x), which

    def _advance(self, word: Tensor, state: CaptionerState) -> CaptionerState:
        """Return hₜ and cₜ, of W xₜ + b `[B, 5H]` for the gates and the two candidates of the cell."""
        h, c, picture = state
        gates, cell = (word + self.recall(h)).split([3 * self.hidden, 2 * self.hidden], 1)
        enter, keep, show = gates.sigmoid().chunk(3, 1)
        candidates = (cell + self._look(h, picture)).unflatten(1, (2, -1))
        c = enter * candidates.amax(1) + keep * c
        return show * tanh(c), c, picture

    def _look(self, h: Tensor, picture: EncodedPicture) -> Tensor:
        """Return V aₜ, `[B, 2H]`."""
        keys, values, absent = picture
        # w · tanh x = 2 w · σ(2x) − Σ w, and softmax is the same without Σ w; σ takes a tenth of the time.
        seen = (keys + 2 * self.query(h).unsqueeze(1)).sigmoid()
        scores = 2 * self.weigh(seen).squeeze(2) + absent
        looked: Tensor = (scores.softmax(1).unsqueeze(1) @ values).squeeze(1)
        return looked


def _each(words: Tensor, which: Tensor | None) -> Tensor:
    """Return a vector for every place."""
    return words if which is None else F.embedding(which, words)


def _first(state: CaptionerState, n: int) -> CaptionerState:
    """Return the state of the first n rows."""
    return state if n == len(state[0]) else cast(CaptionerState, fork(state, slice(n)))


@checked_arguments
def captioner(
    words: TokenSpec,
    *,
    decoder: Callable[..., nn.Module] = Att2in,
    hidden: PositiveInt = 256,
    embedding: PositiveInt = 128,
    dropout: ShareBelowOne = 0.0,
    value: bool = False,
) -> nn.Module:
    """Make a policy that writes about a picture.

    Args:
        words: what is written; there must be a picture.
        decoder: `Att2in`, or `Transformer`, or your own; further sizes of its own by `functools.partial`.
        hidden: H.
        embedding: width of the embeddings.
        dropout: share of entries dropped in training.
        value: add a value head V(sₜ) on the shared trunk.
    """
    _check_picture(words)
    return decoder(words, hidden=hidden, embedding=embedding, dropout=dropout, value=value)


def _check_picture(words: TokenSpec) -> None:
    if not PICTURE_READERS.keys() & words.observed.keys():
        raise ValueError(
            "captioner reads a picture, and this task shows none (image or features); "
            "use seq2seq or transformer for a source of words"
        )
