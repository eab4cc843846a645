"""`Ranker`: the reward of RankGAN, the rank of a text among real ones (Lin et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rlseq.discriminators.adversary import Adversary, reward_statistics
from rlseq.discriminators.texts import TextBatch, real_texts, restored
from rlseq.mdp.sequence_env import sequence_env
from rlseq.types import Metrics
from rlseq.utils.arguments import PositiveFloat, PositiveInt
from rlseq.utils.modules import eval_mode


@dataclass(eq=False)
class Ranker(Adversary):
    """R(s | U, C) = mean over u ∈ U of exp(γ s·u) / Σ_{s'∈C∪{s}} exp(γ s'·u), of features of length 1.

        min −E_real log R(s | U, generated) − E_π log(1 − R(s | U, real))

    U are real texts to resemble, C real texts to outrank. The reward is log R(s | U, real); U and C are drawn
    again whenever the ranker learns. Ranks are relative, so they are bounded, and never all equal.
    """

    gamma: PositiveFloat = 10.0  # γ, how much likeness counts (the inverse of a temperature)
    references: PositiveInt = 16  # texts in U
    rivals: PositiveInt = 63  # texts in C of a reward

    def __post_init__(self) -> None:
        super().__post_init__()
        self.pool: TextBatch | None = None
        if self.discriminator.conditional:
            raise ValueError("a ranker compares texts with each other; make its discriminator source=False")

    def begin(self, env: Any) -> None:
        """Check the task, and draw U and C where there are none yet."""
        super().begin(env)
        if self.pool is None:
            self._draw(env)

    def learn(self, policy: Any, env: Any, **how: Any) -> Metrics:
        """Train the discriminator, and draw U and C again."""
        metrics = super().learn(policy, env, **how)
        if metrics:
            self._draw(env)
        return metrics

    def loss(self, high: TextBatch, low: TextBatch) -> tuple[Tensor, Sequence[Tensor]]:
        """Return the loss: half of the real texts are U, the others must outrank generated ones."""
        up, down = self._features(high), self._features(low)
        like, up = up[: len(up) // 2], up[len(up) // 2 :]
        above, below = rank(up, like, down, self.gamma), rank(down, like, up, self.gamma)
        loss = -above.log().mean() - torch.log1p(-below.clamp(max=1 - 1e-6)).mean()
        return loss, reward_statistics((up @ like.t()).mean(1), (down @ like.t()).mean(1))

    def rewards(self, texts: TextBatch) -> Tensor:
        """Return the log rank of every text, `[B]`."""
        return self._paid(self._features(texts))

    def _prefixes(self, texts: TextBatch) -> Tensor:
        d = self.discriminator
        return self._paid(F.normalize(d.reader(d.embed(texts.tokens, texts.context), texts.mask), dim=-1))

    def _paid(self, features: Tensor) -> Tensor:
        """Return log R."""
        if self.pool is None:
            raise ValueError("a ranker compares with real texts; call its `begin(env)` or `learn` first")
        with eval_mode(self.discriminator):
            known = self._features(self.pool)
        ranks = rank(features, known[: self.references], known[self.references :], self.gamma)
        return ranks.clamp(min=1e-12).log()

    def _features(self, texts: TextBatch) -> Tensor:
        """Return features of length 1, `[B, F]`."""
        d = self.discriminator
        return F.normalize(d.dropout(d.features(d.embed(texts.tokens, texts.context), texts.mask)), dim=-1)

    def _draw(self, env: Any) -> None:
        self.pool = real_texts(sequence_env(env), self.references + self.rivals)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of an adversary, and U and C."""
        return {**super().state_dict(), "pool": self.pool and self.pool._asdict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        super().load_state_dict(state)
        self.pool = restored(state["pool"], self.discriminator)


def rank(s: Tensor, like: Tensor, rivals: Tensor, gamma: float) -> Tensor:
    """Return R of features s `[…, F]`, given U `[U, F]` and C `[C, F]`: `[…]`."""
    mine = gamma * s @ like.t()
    theirs = torch.logsumexp(gamma * rivals @ like.t(), 0)
    return torch.sigmoid(mine - theirs).mean(-1)
