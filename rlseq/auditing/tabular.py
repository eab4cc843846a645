"""A policy with free logits in every state, whose gradient hides nothing of an estimator's mistakes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlseq.policies.head import Head, TokenPolicy
from rlseq.policies.spec import TokenSpec
from rlseq.types import Context, State, WordsRead


def prefix_codes(read: Tensor, words: int) -> Tensor:
    """Return a number for what was written before each place, `[B, T]`.

    Args:
        read: the word before each place, `[B, T]`; the first, BOS, is no part of what was written.
        words: V.
    """
    steps = torch.arange(read.shape[1], device=read.device)
    place = (words + 1) ** (steps - 1).clamp(min=0)
    return ((read + 1) * place * (steps > 0)).cumsum(1)


class Tabular(TokenPolicy):
    """π(·|x, prefix) = softmax of a row of a table: one for each context and prefix, and a spare one.

    Args:
        words: the vocabulary.
        contexts: number of contexts.
        logits: the table, `[states + 1, V]`; the last row is for places that no text has.
    """

    def __init__(self, words: TokenSpec, contexts: int, logits: Tensor) -> None:
        super().__init__()
        self.words, self.contexts = words, contexts
        self.head = Head(len(logits), words.written, value=True).to(logits.dtype)
        self.head.weight = nn.Parameter(logits.t().clone())  # without a column for a bias

    def start(self, context: Context) -> State:
        """Return the context, the code of the empty prefix and its length, of every row."""
        index = context["index"]
        return index, torch.zeros_like(index), torch.full_like(index, -1)

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """Read a token; the first, BOS, is no part of the prefix."""
        index, code, place = state
        more = (token + 1) * (self.words.written + 1) ** place.clamp(min=0)
        code = code + more.where(place >= 0, 0)
        return self.head(self._one_hot(code, index)), (index, code, place + 1)

    def features(self, read: WordsRead, context: Context) -> Tensor:
        """Return which row of the table holds each state, as one-hot vectors."""
        assert isinstance(read, Tensor)
        return self._one_hot(prefix_codes(read, self.words.written), context["index"].unsqueeze(1))

    def _one_hot(self, code: Tensor, index: Tensor) -> Tensor:
        states = self.head.weight.shape[1]
        return F.one_hot(code * self.contexts + index, states).to(self.head.weight.dtype)
