"""GRPO, and the two choices of its factors that became known by names of their own."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from rlseq.policy_gradient.algorithm import PolicyGradient
from rlseq.policy_gradient.baselines import Baseline
from rlseq.policy_gradient.diagnostics import watch
from rlseq.policy_gradient.factors import Scale
from rlseq.policy_gradient.losses import Aggregate, clipped, out_of_clip
from rlseq.policy_gradient.penalties import Divergence
from rlseq.types import Evaluation, Metrics, Rollout
from rlseq.utils.arguments import NonNegativeFloat, PositiveFloat, PositiveInt


@dataclass(eq=False)
class GRPO(PolicyGradient):
    """Maximise E[ mean over texts of mean over tokens of min(ρA, clip(ρ) A) ] − β KL,   A = (R − mean) / std.

    The K texts of a context are each other's critic (Shao et al. 2024). Without the standard deviation A is
    RLOO's times (K−1)/K; the mean over tokens makes tokens of short texts weigh more.
    """

    samples: PositiveInt = 8  # K, texts of each context
    baseline: Baseline | str = "group_mean"  # b (rlseq.baselines, rlseq.policy_gradient.baselines)
    scale: Scale | str = "by_group"  # of Q̂ − b (rlseq.policy_gradient.factors)
    aggregate: Aggregate | str = "per_text"  # how much every token counts (rlseq.losses)
    kl: NonNegativeFloat = 0.04  # β, weight of the divergence from the reference policy, in the loss
    divergence: Divergence | str = "k3"  # of the two, in the loss (rlseq.policy_gradient.penalties)
    clip: PositiveFloat = 0.2  # how far ρ = π/π_old may fall below 1 and still gain
    clip_high: PositiveFloat = 0.2  # how far it may rise above

    def surrogate(self, seen: Evaluation, batch: Rollout) -> Tensor:
        """−min(ρA, clip(ρ, 1 − clip, 1 + clip_high) A)."""
        return clipped(seen.log_probs, batch.log_probs, batch.advantages, self.clip, self.clip_high)

    def watch(self, seen: Evaluation, batch: Rollout) -> Metrics:
        """Also the share of tokens from which the clip keeps the gradient."""
        out = out_of_clip(seen.log_probs, batch.log_probs, batch.advantages, self.clip, self.clip_high)
        return watch(seen, batch, clip_fraction=out.float())


@dataclass(eq=False)
class DrGRPO(GRPO):
    """GRPO without its two biases: A = R − mean, tokens summed, divided by a constant (Liu et al. 2025)."""

    scale: Scale | str = "none"  # of Q̂ − b (rlseq.policy_gradient.factors)
    aggregate: Aggregate | str = "per_step"  # how much every token counts (rlseq.losses)
    kl: NonNegativeFloat = 0.0  # β, weight of the divergence from the reference policy, in the loss


@dataclass(eq=False)
class DAPO(GRPO):
    """GRPO with clip-higher, a mean over tokens, and only groups that differ (Yu et al. 2025).

    Groups whose texts all earn the same teach nothing; here they are left out of the mean. The paper samples
    until the batch is full again, and softens the reward of texts that are too long (`rlseq.envs.wrappers`).
    """

    aggregate: Aggregate | str = "per_token"  # how much every token counts (rlseq.losses)
    kl: NonNegativeFloat = 0.0  # β, weight of the divergence from the reference policy, in the loss
    clip_high: PositiveFloat = 0.28  # how far it may rise above

    def with_token_weights(self, batch: Rollout) -> Rollout:
        """Only groups whose returns differ count."""
        returns = batch.returns.view(-1, batch.samples)
        differ = (returns != returns[:, :1]).any(1).repeat_interleave(batch.samples)
        with_token_weights = super().with_token_weights(replace(batch, mask=batch.mask & differ.unsqueeze(1)))
        return replace(with_token_weights, mask=batch.mask)
