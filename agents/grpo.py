"""GRPO, and variants of it: Dr. GRPO, DAPO and REINFORCE++."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rlseq.mdp.sequence_env import unwrap_task
from rlseq.metrics.algebra import Overlong
from rlseq.policy_gradient.baselines import Baseline, group_mean, none
from rlseq.policy_gradient.factors import Scale, as_it_is, by_batch, by_group
from rlseq.policy_gradient.losses import Aggregate, clipped, out_of_clip, per_step, per_text, per_token
from rlseq.policy_gradient.penalties import Divergence, k3
from rlseq.policy_gradient.sample_reuse import SampleReuse
from rlseq.types import Evaluation, LearningBatch, Metrics, Rollout, SteppedEnv
from rlseq.utils.arguments import ClipRange, NonNegativeFloat, NonNegativeInt, PenaltyWeight, PositiveInt


@dataclass(eq=False)
class GroupRelative(SampleReuse):
    """The base of GRPO and its variants: K texts of a context are compared with each other."""

    samples: PositiveInt = 8  # K, number of texts for each source
    baseline: Baseline = group_mean  # subtracted from the credit (rlseq.baselines)
    scale: Scale = by_group  # normalisation of the advantage (rlseq.policy_gradient.factors)
    aggregate: Aggregate = per_text  # weight of each token in the loss (rlseq.losses)
    kl: PenaltyWeight = 0.04  # β, weight of the divergence from the reference policy, in the loss
    divergence: Divergence = k3  # estimator of the divergence in the loss (rlseq.policy_gradient.penalties)


@dataclass(eq=False)
class GRPO(GroupRelative):
    """Maximise E[ mean over texts of mean over tokens of min(ρA, clip(ρ) A) ] − β KL,   A = (R − mean) / std.

    The K texts of a context are compared with each other (Shao et al. 2024). Without the standard deviation
    A is RLOO's times (K−1)/K; the mean over tokens makes tokens of short texts weigh more.
    """

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

    Groups whose returns are all equal have no gradient. They are drawn again, with other sources, up to
    `draws` times in all, as the paper does; those that are equal still are left out of the mean. All texts
    count. `overlong` is the paper's penalty for texts that come near the longest length.
    """

    aggregate: Aggregate = per_token  # weight of each token in the loss (rlseq.losses)
    kl: NonNegativeFloat = 0.0  # β, weight of the divergence from the reference policy, in the loss
    clip_high: ClipRange = 0.28  # ε above: the ratio is clipped at 1 + ε
    draws: PositiveInt = 1  # how often a group is drawn at most, until the returns of its texts differ
    overlong: NonNegativeInt = 0  # last tokens before the longest length, over which the reward falls by 1

    def check(self, env: Any) -> None:
        """Refuse what the two options cannot be used with."""
        super().check(env)
        env = unwrap_task(env)
        if isinstance(env, SteppedEnv):
            if self.draws > 1 or self.overlong:
                raise ValueError(
                    f"draws={self.draws} and overlong={self.overlong} are for texts, and "
                    f"{type(env).__name__} has other actions; leave them at 1 and 0"
                )
        elif self.overlong > env.max_len:
            raise ValueError(
                f"overlong={self.overlong} is longer than the task's longest text of {env.max_len} tokens; "
                f"pass at most {env.max_len}"
            )
        elif self.draws > 1 and env.rank.of > 1:
            raise ValueError(
                f"draws={self.draws} writes as many texts again as one process lacks, and there are "
                f"{env.rank.of}; leave draws at 1, or start it without torchrun"
            )

    def paid_on(self, env: Any) -> Any:
        """Return the task, with a reward that falls from 0 to −1 over the last `overlong` tokens."""
        if not self.overlong:
            return env
        return env.replace(reward={**env.parts, "overlong": Overlong(env.max_len, self.overlong)})

    def write(self, env: Any) -> Rollout:
        """Return texts; groups without a gradient are drawn again (the paper's dynamic sampling)."""
        batch = super().write(env)
        for _ in range(self.draws - 1):
            equal = (~returns_differ(batch)).nonzero().squeeze(1)
            if not len(equal):
                break
            batch = batch.put(equal, super().write(env.replace(num_envs=len(equal))))
        return batch

    @property
    def writes_otherwise(self) -> str:
        """The reason why texts of a batch depend on each other: groups are drawn again."""
        return f"draws={self.draws}" if self.draws > 1 else ""

    def token_weights(self, batch: Rollout) -> Tensor:
        """Return the weights of tokens, 0 in groups whose returns are all equal."""
        return self.aggregate(self.acted(batch).mask & returns_differ(batch).unsqueeze(1))


def returns_differ(batch: Rollout) -> Tensor:
    """Return of every row whether the returns of its group differ, `[B]`."""
    returns = batch.returns.view(-1, batch.samples)
    return (returns != returns[:, :1]).any(1).repeat_interleave(batch.samples)


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
