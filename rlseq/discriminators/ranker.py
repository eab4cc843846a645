"""RankGAN's judge: how a text ranks among real ones, not whether it passes for one (Lin et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rlseq.discriminators.adversary import Adversary, watched
from rlseq.discriminators.texts import TextBatch, real, remembered
from rlseq.mdp.sequence_env import sequence_env
from rlseq.utils.arguments import PositiveFloat, PositiveInt
from rlseq.utils.modules import eval_mode


@dataclass(eq=False)
class Ranker(Adversary):
    """R(s | U, C) = mean over u ∈ U of exp(γ s·u) / Σ_{s'∈C∪{s}} exp(γ s'·u), of features of length 1.

        min −E_real log R(s | U, generated) − E_π log(1 − R(s | U, real))

    U are real texts to be like, C those to be compared with. A text is paid log R(s | U, real), with U and C
    drawn anew whenever it learns. As relative judgements these are bounded, and never all alike.
    """

    gamma: PositiveFloat = 10.0  # γ, how much likeness counts (the inverse of a temperature)
    references: PositiveInt = 16  # texts in U
    rivals: PositiveInt = 63  # texts in C, where texts are paid

    def __post_init__(self) -> None:
        super().__post_init__()
        self.pool: TextBatch | None = None
        if self.discriminator.conditional:
            raise ValueError("a ranker compares texts with each other; make its discriminator source=False")

    def begin(self, env: Any) -> None:
        """As any adversary; and draw U and C, where there are none yet."""
        super().begin(env)
        if self.pool is None:
            self._draw(env)

    def learn(self, policy: Any, env: Any, *, regenerations: int = 1, epochs: int = 1) -> Any:
        """As any adversary; and draw U and C anew."""
        metrics = super().learn(policy, env, regenerations=regenerations, epochs=epochs)
        if metrics:
            self._draw(env)
        return metrics

    def loss(self, high: TextBatch, low: TextBatch) -> tuple[Tensor, Sequence[Tensor]]:
        """Half of the real texts are references, the others must outrank generated ones."""
        up, down = self._features(high), self._features(low)
        like, up = up[: len(up) // 2], up[len(up) // 2 :]
        above, below = rank(up, like, down, self.gamma), rank(down, like, up, self.gamma)
        loss = -above.log().mean() - torch.log1p(-below.clamp(max=1 - 1e-6)).mean()
        return loss, watched((up @ like.t()).mean(1), (down @ like.t()).mean(1))

    def _whole(self, texts: TextBatch) -> Tensor:
        return self._paid(self._features(texts))

    def _prefixes(self, texts: TextBatch) -> Tensor:
        d = self.discriminator
        return self._paid(F.normalize(d.reader(d.embed(texts.tokens, texts.context), texts.mask), dim=-1))

    def _paid(self, features: Tensor) -> Tensor:
        """Log R."""
        if self.pool is None:
            raise ValueError("a ranker compares with real texts: call its `begin(env)` or `learn` first")
        with eval_mode(self.discriminator):
            known = self._features(self.pool)
        ranks = rank(features, known[: self.references], known[self.references :], self.gamma)
        return ranks.clamp(min=1e-12).log()

    def _features(self, texts: TextBatch) -> Tensor:
        """Of length 1, `[B, F]`."""
        d = self.discriminator
        return F.normalize(d.dropout(d.features(d.embed(texts.tokens, texts.context), texts.mask)), dim=-1)

    def _draw(self, env: Any) -> None:
        self.pool = real(sequence_env(env), self.references + self.rivals)

    def state_dict(self) -> dict[str, Any]:
        """Also U and C."""
        return {**super().state_dict(), "pool": self.pool and self.pool._asdict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        super().load_state_dict(state)
        self.pool = remembered(state["pool"], self.discriminator)


def rank(s: Tensor, like: Tensor, rivals: Tensor, gamma: float) -> Tensor:
    """R of features s `[…, F]`, given U `[U, F]` and C `[C, F]`: `[…]`."""
    mine = gamma * s @ like.t()
    theirs = torch.logsumexp(gamma * rivals @ like.t(), 0)
    return torch.sigmoid(mine - theirs).mean(-1)
