"""Noise as an input of any policy: texts that differ by more than their own draws of words."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rlseq.types import NOISE, RAW, BasePolicy, Behaviour, Context, Evaluation, Shifted, State, WordsRead


class WithNoise(BasePolicy):
    """G(x, z): what the policy reads before every word is shifted by a linear map of noise z.

        e(yₜ₋₁) + W z,   z ~ N(0, 1)

    One z is drawn for every text, and the same one is read at all of its steps; Dai et al. 2017 give it to
    the first state of an LSTM. `rlseq.make_policy` makes it where the task draws noise.

    Args:
        policy: reads words through `embedding` (`rlseq.policies.spec.TokenEmbedding`).
        noise: the number of numbers in z.
    """

    def __init__(self, policy: Any, noise: int) -> None:
        super().__init__()
        self.policy, self.words = policy, policy.words
        self.shift = nn.Linear(noise, _width(policy), bias=False)
        self.differentiable_step = policy.differentiable_step

    @property
    def embedding(self) -> Any:
        """The table of the policy."""
        return self.policy.embedding

    @property
    def head(self) -> Any:
        """The head of the policy."""
        return self.policy.head

    def start(self, context: Context) -> State:
        """Read the context, and keep W z beside the state of the policy."""
        return self.shift(context[NOISE]), self.policy.start(context)

    def step(self, token: WordsRead, state: State) -> tuple[Tensor, State]:
        """Read a word and the noise."""
        shift, inner = state
        logits, inner = self.policy.step(Shifted(token, shift), inner)
        return logits, (shift, inner)

    def evaluate(
        self,
        actions: Tensor,
        context: Context,
        behaviour: Behaviour = RAW,
        inputs: WordsRead | None = None,
    ) -> Evaluation:
        """Score whole sequences, reading the given actions, or `inputs` in their place, and the noise."""
        read = Shifted(actions if inputs is None else inputs, self.shift(context[NOISE]).unsqueeze(1))
        found: Evaluation = self.policy.evaluate(actions, context, behaviour, read)
        return found

    def update_statistics(self, batch: Any) -> None:
        """Update running statistics of the policy."""
        self.policy.update_statistics(batch)

    def describe(self) -> dict[str, Any]:
        """Return the description of the policy."""
        described: dict[str, Any] = self.policy.describe()
        return described


@torch.no_grad()
def _width(policy: Any) -> int:
    """Return the width of the vectors that a policy reads; refuse one that no vector can be added to."""
    table = getattr(policy, "embedding", None) or getattr(policy, "embed", None)
    if not callable(table) or not isinstance(policy, BasePolicy):
        raise ValueError(
            f"{type(policy).__name__} has no input for noise: it must be a rlseq.policies.head.TokenPolicy "
            "that reads words by its `embedding`, a rlseq.policies.spec.TokenEmbedding; or make the task "
            "without noise"
        )
    word = torch.zeros(1, dtype=torch.int64, device=next(policy.parameters()).device)
    return int(table(word).shape[-1])
