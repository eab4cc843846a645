"""Two policies that talk with each other, and are trained together on the score of their dialogue.

    π(yₜ | y₍₁…ₜ₋₁₎, source) = π₁ in the turns of the first, π₂ in those of the second

A turn ends with the word `<turn>`. Both read all of the dialogue; each writes its own turns and learns from
them, as ∇ log π(y) is the sum of the two gradients. Any agent trains the pair as one policy.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rlseq.policies.head import LinearLogits, token_scores
from rlseq.policies.seq2seq import Seq2Seq
from rlseq.policies.spec import TokenSpec
from rlseq.types import RAW, BasePolicy, Behaviour, Context, Evaluation, State, WordsRead
from rlseq.utils.arguments import PositiveInt, ShareBelowOne, checked_arguments


class Speakers(BasePolicy):
    """Two encoder–decoders with attention, of which each writes every second turn of a dialogue.

    Args:
        words: what is written and read; there must be a source, and turns.
        hidden: H, width of the state of each.
        embedding: width of the embeddings.
        layers: of each direction of the encoders, and of the decoders.
        dropout: share of entries dropped in training.
        turn: id of the word between two turns; that of the task when not given.
    """

    @checked_arguments
    def __init__(
        self,
        words: TokenSpec,
        *,
        hidden: PositiveInt = 256,
        embedding: PositiveInt = 128,
        layers: PositiveInt = 1,
        dropout: ShareBelowOne = 0.0,
        turn: int | None = None,
    ) -> None:
        super().__init__()
        self.words, self.turn = words, words.turn if turn is None else turn
        if self.turn < 0 or words.noise:
            why = (
                "noise" if words.noise else "no turns; make one that has, such as rlseq/Chat-v0 with turns=2"
            )
            raise ValueError(f"speakers write dialogues of several turns without noise; this task has {why}")
        sizes: dict[str, Any] = {"hidden": hidden, "embedding": embedding}
        self.first, self.second = (
            Seq2Seq(nn.LSTM, words, **sizes, layers=layers, dropout=dropout) for _ in range(2)
        )

    def describe(self) -> dict[str, Any]:
        """Return the word between turns, which a task without data does not know."""
        return {"turn": self.turn}

    def start(self, context: Context) -> State:
        """Let both read the source; no turn has ended."""
        ended = torch.zeros_like(context["source"][:, 0])
        return self.first.start(context), self.second.start(context), ended

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """Let both read a token; the logits are those of the one whose turn it is."""
        first, second, ended = state
        ended = ended + (token == self.turn)
        z, first = self.first.step(token, first)
        other, second = self.second.step(token, second)
        return torch.where(self._second_speaks(ended), other, z), (first, second, ended)

    def evaluate(
        self,
        actions: Tensor,
        context: Context,
        behaviour: Behaviour = RAW,
        inputs: WordsRead | None = None,
    ) -> Evaluation:
        """Score dialogues by one linear head: [W₁ W₂] [h₁; 0] in the turns of the first, else [0; h₂]."""
        read = self.words.before(actions if inputs is None else inputs)
        if not isinstance(read, Tensor) or read.is_floating_point():
            raise TypeError("speakers read words, by which turns are known, not mixtures of words")
        theirs = self._second_speaks((read == self.turn).cumsum(1))
        h, other = (_with_one(policy.features(read, context)) for policy in (self.first, self.second))
        features = torch.cat([h * ~theirs, other * theirs], 2)
        weight = torch.cat([self.first.head.weight, self.second.head.weight], 1)
        log_probs, entropy, top = token_scores(features, weight, actions, behaviour)
        return Evaluation(log_probs, entropy, None, top, LinearLogits(features, weight, behaviour))

    @staticmethod
    def _second_speaks(ended: Tensor) -> Tensor:
        """Return whether it is a turn of the second, by the number of turns that have ended, `[…, 1]`."""
        return (ended % 2 == 1).unsqueeze(-1)


def _with_one(h: Tensor) -> Tensor:
    """Return [h; 1]: the last column of a head's weight is its bias."""
    return nn.functional.pad(h, (0, 1), value=1.0)
