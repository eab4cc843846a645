"""PPO, and VinePPO: several steps on a batch, near the policy that sampled it by a clip, or by a penalty."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from rlseq.agents.a2c import A2C
from rlseq.engine.rollout import evaluate_frozen
from rlseq.policy_gradient.baselines import Baseline, CompletedValue, Value
from rlseq.policy_gradient.credit import Completions, Credit, Lambda, own_credit
from rlseq.policy_gradient.factors import Scale, by_batch
from rlseq.policy_gradient.losses import clipped, kl_estimate, out_of_clip, per_token, ratio_weighted
from rlseq.policy_gradient.sample_reuse import SampleReuse
from rlseq.types import Evaluation, LearningBatch, Metrics, Rollout
from rlseq.utils.arguments import (
    ClipRange,
    DivergenceTarget,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    TraceDecay,
)
from rlseq.utils.ranks import total
from rlseq.utils.stateful import Stateful, TensorState


@dataclass(eq=False)
class Proximal(SampleReuse):
    """The base of PPO and VinePPO: several steps on a batch, with a clip of the ratio."""

    clip: ClipRange = 0.2  # ε: the ratio π/π_old is clipped to 1 − ε … 1 + ε
    epochs: PositiveInt = 4  # number of passes over a batch
    minibatches: PositiveInt = 4  # gradient steps in each pass

    def surrogate(self, evaluation: Evaluation, batch: LearningBatch) -> Tensor:
        """Return −min(ρA, clip(ρ, 1 − ε, 1 + ε) A)."""
        return clipped(evaluation.log_probs, batch.log_probs, batch.advantages, self.clip, self.clip)

    def token_metrics(self, evaluation: Evaluation, batch: LearningBatch) -> Metrics:
        """Return from which tokens the clip keeps the gradient."""
        out = out_of_clip(evaluation.log_probs, batch.log_probs, batch.advantages, self.clip, self.clip)
        return {"clip_fraction": out.float()}


@dataclass(eq=False)
class PPO(Proximal):
    """Maximise E[ Σₜ min(ρₜAₜ, clip(ρₜ, 1−ε, 1+ε) Aₜ) ],   ρₜ = π(aₜ|sₜ) / π_old(aₜ|sₜ).

    Schulman et al. 2017. The advantage is A2C's: with one epoch of one minibatch ρ = 1, and it is A2C.
    """

    lam: TraceDecay = 0.95  # λ of the λ-return, where no credit is given
    credit: Credit = own_credit  # value of an action; the λ-return when not given
    baseline: Baseline = field(default_factory=Value)  # subtracted from the credit (rlseq.baselines)
    scale: Scale = by_batch  # normalisation of the advantage (rlseq.policy_gradient.factors)

    def make_credit(self) -> Credit:
        """Make the λ-return."""
        return Lambda(self.lam)


@dataclass(eq=False)
class PPOKL(A2C, SampleReuse):
    """Maximise E[ Σₜ ρₜAₜ ] − β KL(π_old ‖ π), with a β that keeps the divergence near a target.

    Schulman et al. 2017, §4: after a batch β doubles where KL > 1.5 target, and halves where KL < target/1.5.
    """

    kl_target: DivergenceTarget = 0.01  # target of the divergence from the old policy, nats per token
    beta: PositiveFloat = 1.0  # β of the first batch
    epochs: PositiveInt = 4  # number of passes over a batch
    minibatches: PositiveInt = 4  # gradient steps in each pass
    scale: Scale = by_batch  # normalisation of the advantage (rlseq.policy_gradient.factors)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.adaptive_kl = AdaptiveKL(self.kl_target, self.beta)

    def stateful_parts(self) -> dict[str, Stateful]:
        """Return the parts that have a state, β among them."""
        return {**super().stateful_parts(), "adaptive_kl": self.adaptive_kl}

    def surrogate(self, evaluation: Evaluation, batch: LearningBatch) -> Tensor:
        """Return −ρA + β (ρ − 1 − log ρ); the second term estimates the divergence from samples of π_old."""
        divergence = kl_estimate(evaluation.log_probs - batch.log_probs)
        gain = ratio_weighted(evaluation.log_probs, batch.log_probs, batch.advantages)
        return gain + self.adaptive_kl.beta * divergence

    def update(self, batch: Rollout) -> Metrics:
        """Learn from a batch, then adapt β to how far the policy has moved."""
        metrics = super().update(batch)
        moved = kl_estimate(evaluate_frozen(self.policy, batch).log_probs - batch.log_probs)
        self.adaptive_kl.learn(total((moved * per_token(batch.mask)).sum()))
        return {**metrics, "beta": self.adaptive_kl.beta}


@dataclass(eq=False)
class VinePPO(Proximal):
    """PPO with V by completions: A = V̂(sₜ₊₁) − V̂(sₜ), each the mean return of N completions.

    Kazemnejad et al. 2025. Unbiased, as V̂ is a mean of returns; it costs N(T − 1) + N texts for each text. No
    value head is needed.
    """

    completions: PositiveInt = 9  # N, completions of every prefix
    credit: Credit = own_credit  # value of an action; the mean return of completions when not given
    baseline: Baseline = field(default_factory=CompletedValue)  # subtracted from the credit (rlseq.baselines)
    value_weight: NonNegativeFloat = 0.0  # weight of the value loss, where a value head is used

    def make_credit(self) -> Credit:
        """Make the mean return of completions."""
        return Completions(self.completions)


class AdaptiveKL(TensorState):
    """The weight β of a divergence, adapted so that the divergence stays near a target."""

    tensors: ClassVar = ("beta",)

    def __init__(self, target: float, beta: float) -> None:
        self.target, self.beta = target, torch.tensor(beta)

    def learn(self, divergence: Tensor) -> None:
        """Double β, halve it, or leave it."""
        doubled, halved = divergence > 1.5 * self.target, divergence < self.target / 1.5
        self.beta = self.beta.to(divergence.device) * 2.0 ** (doubled.float() - halved.float())
