"""GRPO, and variants of it: Dr. GRPO, DAPO and REINFORCE++."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rlseq.policy_gradient.algorithm import PolicyGradient
from rlseq.policy_gradient.baselines import Baseline, group_mean, none
from rlseq.policy_gradient.factors import Scale, as_it_is, by_batch, by_group
from rlseq.policy_gradient.losses import Aggregate, clipped, out_of_clip, per_step, per_text, per_token
from rlseq.policy_gradient.penalties import Divergence, k3
from rlseq.types import Evaluation, LearningBatch, Metrics, Rollout
from rlseq.utils.arguments import ClipRange, NonNegativeFloat, PenaltyWeight, PositiveInt


@dataclass(eq=False)
class GRPO(PolicyGradient):
    """Maximise E[ mean over texts of mean over tokens of min(ρA, clip(ρ) A) ] − β KL,   A = (R − mean) / std.

    The K texts of a context are compared with each other (Shao et al. 2024). Without the standard deviation
    A is RLOO's times (K−1)/K; the mean over tokens makes tokens of short texts weigh more.
    """

    samples: PositiveInt = 8  # K, number of texts for each source
    baseline: Baseline = group_mean  # subtracted from the credit (rlseq.baselines)
    scale: Scale = by_group  # normalisation of the advantage (rlseq.policy_gradient.factors)
    aggregate: Aggregate = per_text  # weight of each token in the loss (rlseq.losses)
    kl: PenaltyWeight = 0.04  # β, weight of the divergence from the reference policy, in the loss
    divergence: Divergence = k3  # estimator of the divergence in the loss (rlseq.policy_gradient.penalties)
    clip: ClipRange = 0.2  # ε below: the ratio π/π_old is clipped at 1 − ε
    clip_high: ClipRange = 0.2  # ε above: the ratio is clipped at 1 + ε

    def surrogate(self, evaluation: Evaluation, batch: LearningBatch) -> Tensor:
        """Return −min(ρA, clip(ρ, 1 − clip, 1 + clip_high) A)."""
        return clipped(evaluation.log_probs, batch.log_probs, batch.advantages, self.clip, self.clip_high)

    def token_metrics(self, evaluation: Evaluation, batch: LearningBatch) -> Metrics:
        """Return from which tokens the clip keeps the gradient."""
        out = out_of_clip(evaluation.log_probs, batch.log_probs, batch.advantages, self.clip, self.clip_high)
        return {"clip_fraction": out.float()}


@dataclass(eq=False)
class DrGRPO(GRPO):
    """GRPO without its two biases: A = R − mean, tokens summed, divided by a constant (Liu et al. 2025)."""

    scale: Scale = as_it_is  # normalisation of the advantage (rlseq.policy_gradient.factors)
    aggregate: Aggregate = per_step  # weight of each token in the loss (rlseq.losses)
    kl: NonNegativeFloat = 0.0  # β, weight of the divergence from the reference policy, in the loss


@dataclass(eq=False)
class DAPO(GRPO):
    """GRPO with clip-higher, a mean over tokens, and only groups that differ (Yu et al. 2025).

    Groups whose returns are all equal have no gradient; here they are left out of the mean. The paper samples
    until the batch is full again, and softens the reward of texts that are too long (`rlseq.envs.wrappers`).
    """

    aggregate: Aggregate = per_token  # weight of each token in the loss (rlseq.losses)
    kl: NonNegativeFloat = 0.0  # β, weight of the divergence from the reference policy, in the loss
    clip_high: ClipRange = 0.28  # ε above: the ratio is clipped at 1 + ε

    def token_weights(self, batch: Rollout) -> Tensor:
        """Return the weights of tokens, 0 in groups whose returns are all equal."""
        returns = batch.returns.view(-1, batch.samples)
        differ = (returns != returns[:, :1]).any(1).repeat_interleave(batch.samples)
        return self.aggregate(self.acted(batch).mask & differ.unsqueeze(1))


@dataclass(eq=False)
class ReinforcePP(GRPO):
    """PPO without a critic: A = G whitened over the batch, with a divergence in the reward (Hu et al. 2025).

    `baseline="group_mean"` with `samples` ≥ 2 is REINFORCE++-baseline, whose paper has the divergence in the
    loss: `kl_reward=0`, `kl=0.01`, `divergence="k2"`.
    """

    samples: PositiveInt = 1  # K, number of texts for each source
    baseline: Baseline = none  # subtracted from the credit (rlseq.baselines)
    scale: Scale = by_batch  # normalisation of the advantage (rlseq.policy_gradient.factors)
    aggregate: Aggregate = per_token  # weight of each token in the loss (rlseq.losses)
    kl: NonNegativeFloat = 0.0  # β, weight of the divergence from the reference policy, in the loss
    kl_reward: NonNegativeFloat = (
        0.01  # weight of that divergence when it is subtracted from the reward of every token
    )
