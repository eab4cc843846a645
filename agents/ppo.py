"""PPO: several steps on a batch, held near the policy that wrote it by a clip, or by a price."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlseq.agents.a2c import A2C
from rlseq.engine.rollout import evaluate_frozen
from rlseq.policy_gradient.diagnostics import watch
from rlseq.policy_gradient.factors import Scale
from rlseq.policy_gradient.losses import clipped, distance, out_of_clip, per_token, ratio_weighted
from rlseq.types import Evaluation, Metrics, Rollout
from rlseq.utils.arguments import PositiveFloat, PositiveInt
from rlseq.utils.stateful import Stateful


@dataclass(eq=False)
class PPO(A2C):
    """Maximise E[ Σₜ min(ρₜAₜ, clip(ρₜ, 1−ε, 1+ε) Aₜ) ],   ρₜ = π(aₜ|sₜ) / π_old(aₜ|sₜ).

    Schulman et al. 2017. With one epoch of one minibatch ρ = 1, and it is A2C.
    """

    clip: PositiveFloat = 0.2  # ε
    epochs: PositiveInt = 4  # times that a batch is learned from
    minibatches: PositiveInt = 4  # steps each time
    scale: Scale | str = "by_batch"  # of Q̂ − b (rlseq.policy_gradient.factors)

    def surrogate(self, seen: Evaluation, batch: Rollout) -> Tensor:
        """−min(ρA, clip(ρ, 1 − ε, 1 + ε) A)."""
        return clipped(seen.log_probs, batch.log_probs, batch.advantages, self.clip, self.clip)

    def watch(self, seen: Evaluation, batch: Rollout) -> Metrics:
        """Also the share of tokens from which the clip keeps the gradient."""
        out = out_of_clip(seen.log_probs, batch.log_probs, batch.advantages, self.clip, self.clip)
        return watch(seen, batch, clip_fraction=out.float())


@dataclass(eq=False)
class PPOKL(A2C):
    """Maximise E[ Σₜ ρₜAₜ ] − β KL(π_old ‖ π), with a β that keeps the divergence near a target.

    Schulman et al. 2017, §4: after a batch β doubles where KL > 1.5 target, and halves where KL < target/1.5.
    """

    kl_target: PositiveFloat = 0.01  # divergence from the old policy, nats per token
    beta: PositiveFloat = 1.0  # β of the first batch
    epochs: PositiveInt = 4  # times that a batch is learned from
    minibatches: PositiveInt = 4  # steps each time
    scale: Scale | str = "by_batch"  # of Q̂ − b (rlseq.policy_gradient.factors)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.adaptive_kl = AdaptiveKL(self.kl_target, self.beta)

    def surrogate(self, seen: Evaluation, batch: Rollout) -> Tensor:
        """−ρA + β (ρ − 1 − log ρ): the second is the divergence, estimated from what π_old wrote."""
        moved = distance(seen.log_probs, batch.log_probs)
        return (
            ratio_weighted(seen.log_probs, batch.log_probs, batch.advantages) + self.adaptive_kl.beta * moved
        )

    def update(self, batch: Rollout) -> Metrics:
        """Learn, then see how far that went."""
        metrics = super().update(batch)
        moved = distance(evaluate_frozen(self.policy, batch).log_probs, batch.log_probs)
        self.adaptive_kl.learn((moved * per_token(batch.mask)).sum())
        return {**metrics, "beta": self.adaptive_kl.beta}


class AdaptiveKL(Stateful):
    """β of a divergence that is to stay near a target."""

    def __init__(self, target: float, beta: float) -> None:
        self.target, self.beta = target, torch.tensor(beta)

    def learn(self, divergence: Tensor) -> None:
        """Double it, halve it, or leave it."""
        doubled, halved = divergence > 1.5 * self.target, divergence < self.target / 1.5
        self.beta = self.beta.to(divergence.device) * 2.0 ** (doubled.float() - halved.float())
