"""Variants of GRPO that bound the ratio π/π_old in another way: GSPO, CISPO, SAPO, GMPO, DPPO.

On fresh samples the ratio is 1, and all of them have GRPO's gradient; they differ in later steps on a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlseq.agents.grpo import GRPO, GroupRelative
from rlseq.policy_gradient.losses import (
    Aggregate,
    beyond_divergence,
    clipped,
    clipped_weight,
    geometric_mean,
    log_ratio_of_text,
    out_of_clip,
    per_token,
    soft_clipped,
    within_divergence,
)
from rlseq.types import Evaluation, LearningBatch, Metrics
from rlseq.utils.arguments import NonNegativeFloat, PositiveFloat


@dataclass(eq=False)
class GSPO(GRPO):
    """Maximise E[ mean over texts of min(sA, clip(s) A) ],   s = (π(y|x) / π_old(y|x))^(1/|y|).

    Zheng et al. 2025: the ratio is that of the text, as its reward is, and a text is clipped as a whole.
    """

    kl: NonNegativeFloat = 0.0  # β, weight of the divergence from the reference policy, in the loss
    clip: PositiveFloat = 3e-4  # ε below: the ratio of a text is clipped at 1 − ε
    clip_high: PositiveFloat = 4e-4  # ε above: the ratio of a text is clipped at 1 + ε

    def surrogate(self, evaluation: Evaluation, batch: LearningBatch) -> Tensor:
        """Return −min(sA, clip(s, 1 − clip, 1 + clip_high) A) at every token."""
        log_s = log_ratio_of_text(evaluation.log_probs, batch.log_probs, batch.mask)
        return clipped(log_s, torch.zeros_like(log_s), batch.advantages, self.clip, self.clip_high)

    def token_metrics(self, evaluation: Evaluation, batch: LearningBatch) -> Metrics:
        """Return from which tokens the clip keeps the gradient."""
        log_s = log_ratio_of_text(evaluation.log_probs, batch.log_probs, batch.mask)
        out = out_of_clip(log_s, torch.zeros_like(log_s), batch.advantages, self.clip, self.clip_high)
        return {"clip_fraction": out.float()}


@dataclass(eq=False)
class CISPO(GRPO):
    """Maximise E[ mean over tokens of sg(clip(ρ)) A log π ], sg without gradient   (MiniMax 2025).

    The clip bounds the weight of a token and never drops its gradient.
    """

    aggregate: Aggregate = per_token  # weight of each token in the loss (rlseq.losses)
    kl: NonNegativeFloat = 0.0  # β, weight of the divergence from the reference policy, in the loss
    clip: PositiveFloat = 1.0  # ε below: the weight is clipped at 1 − ε; 1 is no bound
    clip_high: PositiveFloat = 4.0  # ε above: the weight is clipped at 1 + ε

    def surrogate(self, evaluation: Evaluation, batch: LearningBatch) -> Tensor:
        """Return −clip(ρ, 1 − clip, 1 + clip_high) A log π."""
        return clipped_weight(
            evaluation.log_probs, batch.log_probs, batch.advantages, self.clip, self.clip_high
        )

    def token_metrics(self, evaluation: Evaluation, batch: LearningBatch) -> Metrics:
        """Return of which tokens the weight is clipped."""
        weight = (evaluation.log_probs - batch.log_probs).exp()
        return {"clip_fraction": ((weight < 1 - self.clip) | (weight > 1 + self.clip_high)).float()}


@dataclass(eq=False)
class SAPO(GroupRelative):
    """Maximise E[ mean over texts of mean over tokens of A σ(τ(ρ − 1)) 4/τ ]   (Gao et al. 2025).

    A soft gate in place of a clip: tokens fade out the further they have moved.
    """

    kl: NonNegativeFloat = 0.0  # β, weight of the divergence from the reference policy, in the loss
    rise: PositiveFloat = 1.0  # τ where A > 0: how fast the gradient fades as the ratio leaves 1
    fall: PositiveFloat = 1.05  # τ where A ≤ 0

    def surrogate(self, evaluation: Evaluation, batch: LearningBatch) -> Tensor:
        """Return −A σ(τ(ρ − 1)) 4/τ."""
        return soft_clipped(evaluation.log_probs, batch.log_probs, batch.advantages, self.rise, self.fall)


@dataclass(eq=False)
class GMPO(GRPO):
    """Maximise E[ mean over texts of A exp(meanₜ min(log ρ, clip(log ρ))) ]   (Zhao et al. 2025).

    The geometric mean over tokens in place of GRPO's arithmetic mean of ρA: one outlier moves it little.
    """

    kl: NonNegativeFloat = 0.0  # β, weight of the divergence from the reference policy, in the loss
    clip: PositiveFloat = 0.4  # ε below: log π/π_old of a token is clipped at −ε
    clip_high: PositiveFloat = 0.4  # ε above: log π/π_old of a token is clipped at ε

    def surrogate(self, evaluation: Evaluation, batch: LearningBatch) -> Tensor:
        """Return −A exp(meanₜ min(log ρ, clip(log ρ))) at every token."""
        return geometric_mean(
            evaluation.log_probs, batch.log_probs, batch.advantages, batch.mask, self.clip, self.clip_high
        )

    def token_metrics(self, evaluation: Evaluation, batch: LearningBatch) -> Metrics:
        """Return from which tokens the clip keeps the gradient."""
        log_ratio, sign = evaluation.log_probs - batch.log_probs, batch.advantages.sign()
        return {
            "clip_fraction": (log_ratio * sign > log_ratio.clamp(-self.clip, self.clip_high) * sign).float()
        }


@dataclass(eq=False)
class DPPO(GRPO):
    """Maximise E[ mean over tokens of sg(min(ρ, most)) A log π ] where |π − π_old| ≤ δ   (Qi et al. 2026).

    A ratio says little about how far a policy has moved: that of a rare token is soon large, that of a likely
    token never. The bound is on the probabilities themselves, and only on moves away from π_old.
    """

    aggregate: Aggregate = per_token  # weight of each token in the loss (rlseq.losses)
    kl: NonNegativeFloat = 0.0  # β, weight of the divergence from the reference policy, in the loss
    clip: PositiveFloat = 0.2  # δ below: tokens with A < 0 are dropped where π < π_old − δ
    clip_high: PositiveFloat = 0.2  # δ above: tokens with A > 0 are dropped where π > π_old + δ
    most: PositiveFloat = 20.0  # largest weight of a token: the ratio is truncated there

    def surrogate(self, evaluation: Evaluation, batch: LearningBatch) -> Tensor:
        """Return −min(ρ, most) A log π of the tokens that are within δ."""
        return within_divergence(
            *(evaluation.log_probs, batch.log_probs, batch.advantages, self.clip, self.clip_high, self.most)
        )

    def token_metrics(self, evaluation: Evaluation, batch: LearningBatch) -> Metrics:
        """Return which tokens are beyond δ, and have no gradient."""
        beyond = beyond_divergence(
            evaluation.log_probs, batch.log_probs, batch.advantages, self.clip, self.clip_high
        )
        return {"clip_fraction": beyond.float()}
