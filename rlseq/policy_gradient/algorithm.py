"""`PolicyGradient`: the zoo as a product.

    ∇J = E[ Σₜ Aₜ ∇log π(aₜ|sₜ) ],     Aₜ = scale(Q̂ₜ − bₜ)

An algorithm is a choice of factors: what an action is credited with (`credit`, Q̂), what that is compared with
(`baseline`, b), its `scale`, the `surrogate` whose gradient is followed, how tokens are summed up
(`aggregate`), and what keeps the policy in place (`rlseq.policy_gradient.penalties`).
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, ClassVar

import torch
from torch import Tensor

from rlseq.engine.decode import Decode, Sample
from rlseq.engine.references import sample_references
from rlseq.engine.rollout import evaluate_actions, evaluate_frozen, rollout
from rlseq.mdp.sequence_env import unwrap_task
from rlseq.policy_gradient.agent import Agent
from rlseq.policy_gradient.baselines import Baseline, prepared
from rlseq.policy_gradient.credit import Credit
from rlseq.policy_gradient.diagnostics import describe, joined, watch
from rlseq.policy_gradient.factors import Scale, Shuffle, check_factors, check_task, name_factors
from rlseq.policy_gradient.losses import Aggregate, per_token, score_function
from rlseq.policy_gradient.penalties import Divergence, penalties
from rlseq.types import Evaluation, Metrics, Rollout
from rlseq.utils.arguments import NonNegativeFloat, PositiveFloat, PositiveInt, Share
from rlseq.utils.modules import eval_mode

RATIO_TOLERANCE = 1e-4  # how far the first on-policy ratio may be from 1, in float32


def check_first_ratio(log_probs: Tensor, batch: Rollout) -> None:
    """Before anything is learned, the policy must give a batch the probabilities with which it wrote it."""
    ratio = ((log_probs - batch.log_probs) * batch.mask).exp()
    worst = float((ratio - 1).abs().max())
    if not worst <= RATIO_TOLERANCE:
        raise RuntimeError(
            f"on the first update π_new/π_old must be 1 within {RATIO_TOLERANCE}, but is off by {worst:.2g}: "
            "the policy's `evaluate` disagrees with its `step`; rlseq.testing.check_policy finds where"
        )


@dataclass(eq=False)
class PolicyGradient(Agent):
    """What all policy gradients share: texts are sampled without gradients, and scored again in one pass."""

    lr: PositiveFloat = 1e-4  # step size of Adam; after likelihood, a tenth of its rate
    samples: PositiveInt = 1  # K, texts of each context
    gamma: Share = 1.0  # discount
    credit: Credit | str = "reward_to_go"  # Q̂ (rlseq.policy_gradient.credit)
    baseline: Baseline | str = "mean"  # b (rlseq.baselines, rlseq.policy_gradient.baselines)
    scale: Scale | str = "none"  # of Q̂ − b (rlseq.policy_gradient.factors)
    aggregate: Aggregate | str = "per_sequence"  # how much every token counts (rlseq.losses)
    decode: Decode = field(default_factory=Sample)  # how tokens are chosen
    epochs: PositiveInt = 1  # times that a batch is learned from
    minibatches: PositiveInt = 1  # steps each time
    micro_batches: PositiveInt = 1  # parts in which the gradient of a step is summed up, to save memory
    value_weight: NonNegativeFloat = 0.5  # of the value loss, where V is used
    entropy: NonNegativeFloat = 0.0  # weight of the policy's entropy in the objective
    l2: NonNegativeFloat = 0.0  # weight of the mean square of the logits
    mle: NonNegativeFloat = 0.0  # weight of the likelihood of references of the same contexts
    kl: NonNegativeFloat = 0.0  # weight of the divergence from the reference policy, in the loss
    kl_reward: NonNegativeFloat = 0.0  # the same as a price on every token, taken from its reward
    divergence: Divergence | str = "exact"  # of the two, in the loss (rlseq.policy_gradient.penalties)
    reference: Any = None  # the reference policy; a copy of the policy as it is now when not given
    uses_task_reward: ClassVar[bool] = True  # False where the agent brings a reward of its own

    def __post_init__(self) -> None:
        super().__post_init__()
        name_factors(self)
        check_factors(self)
        if self.epochs > 1 and type(self).surrogate is PolicyGradient.surrogate:
            raise ValueError(
                f"{type(self).__name__} learns from fresh samples only, got epochs={self.epochs}; leave "
                "epochs at 1, or take an agent whose ratio allows for older ones, such as ppo or grpo"
            )
        self.shuffle = Shuffle()
        if self.reference is not None and not (self.kl or self.kl_reward):
            raise ValueError(
                "reference is looked at only where its divergence has a weight; pass kl=0.1 or "
                "kl_reward=0.1, or leave reference out"
            )
        if (self.kl or self.kl_reward) and self.reference is None:
            self.reference = deepcopy(self.policy).requires_grad_(False)

    # ── sampling ─────────────────────────────────────────────────────────────────────────────────────

    def collect(self, env: Any) -> Rollout:
        """On-policy samples, and what the factors want to know beside."""
        env = unwrap_task(env)
        self.check(env)
        self.catch_up(env)
        return self.gather(self.paid_on(env))

    def check(self, env: Any) -> None:
        """Refuse a task with which the factors do not go."""
        check_task(self, unwrap_task(env))

    def catch_up(self, env: Any) -> None:
        """Whatever must be learned before a batch is gathered, by a discriminator for instance."""

    def paid_on(self, env: Any) -> Any:
        """The task with the reward that this agent learns from: the task's own, if it brings none."""
        return env

    def gather(self, env: Any) -> Rollout:
        """Samples, as `collect` returns them, without any change of the agent."""
        batch = rollout(self.policy, env, decode=self.decode, repeat=self.samples)
        return self.prepared(replace(batch, samples=self.samples), env)

    def prepared(self, batch: Rollout, env: Any) -> Rollout:
        """A batch of samples with what the factors need beside."""
        for factor in (self.credit, self.baseline):
            batch = prepared(factor, batch, self.policy, env)
        if self.kl_reward:
            log_ratio = (batch.log_probs - evaluate_frozen(self.reference, batch).log_probs) * batch.mask
            kl_penalty = self.kl_reward * log_ratio
            batch = replace(batch, rewards=batch.rewards - kl_penalty, kl_penalty=kl_penalty)
        if self.mle:
            batch = replace(batch, demonstrations=sample_references(env, batch.context))
        return batch

    # ── learning ─────────────────────────────────────────────────────────────────────────────────────

    def advantages(self, returns: Tensor, batch: Rollout) -> Tensor:
        """Aₜ = scale(Q̂ₜ − bₜ), broadcastable to `[B, T]`."""
        return self.scale(returns - self.baseline(returns, batch), batch)  # type: ignore[operator]

    def surrogate(self, seen: Evaluation, batch: Rollout) -> Tensor:
        """A loss per token `[B, T]` whose gradient is followed."""
        return score_function(seen.log_probs, batch.advantages)

    def with_token_weights(self, batch: Rollout) -> Rollout:
        """A batch with how much every token counts in a step."""
        demonstrations = batch.demonstrations and replace(
            batch.demonstrations, weights=per_token(batch.demonstrations.mask)
        )
        return replace(batch, weights=self.aggregate(batch.mask), demonstrations=demonstrations)  # type: ignore[operator]

    def update(self, batch: Rollout) -> Metrics:
        """Learn from a batch, as often and in as many steps as asked."""
        batch = self.judged(batch)
        units = self.with_token_weights(batch.as_transitions())
        with eval_mode(self.policy):
            logs = [self.step(self._parts(part)) for _ in range(self.epochs) for part in self._steps(units)]
        if hasattr(self.baseline, "learn"):
            self.baseline.learn(batch.targets, self.acted(batch))
        if hasattr(self.policy, "update_statistics"):  # after the batch, never during it: ρ starts at 1
            self.policy.update_statistics(batch)
        return {**describe(batch), **joined(logs)}

    def acted(self, batch: Rollout) -> Rollout:
        """A batch whose mask is True on what the policy chose itself: what baselines learn from."""
        return batch

    @torch.no_grad()
    def judged(self, batch: Rollout) -> Rollout:
        """A batch with advantages: what its actions are worth is settled before anything is learned."""
        returns = self.credit(batch, self.gamma)  # type: ignore[operator]
        advantages = self.advantages(returns, batch).expand_as(returns)
        return self.with_token_weights(replace(batch, advantages=advantages, targets=returns))

    def loss(self, batch: Rollout) -> tuple[Tensor, Metrics]:
        """Surrogate and penalties, summed over tokens by weight."""
        batch = self.judged(batch) if batch.weights is None else batch
        with eval_mode(self.policy):  # dropout would score another policy than the one that wrote
            seen = evaluate_actions(self.policy, batch)
            self._check_ratio(seen.log_probs, batch)
            penalty, metrics = penalties(self, seen, batch)
        loss = (self.surrogate(seen, batch) * batch.weights).sum() + penalty
        return loss, {**self.watch(seen, batch), **metrics}

    def watch(self, seen: Evaluation, batch: Rollout) -> Metrics:
        """What to log of a step."""
        return watch(seen, batch)

    def _steps(self, batch: Rollout) -> Iterator[Rollout]:
        """A batch in shuffled minibatches of whole groups."""
        if self.minibatches == 1:
            return iter([batch])
        parts = list(self.shuffle(batch, self.minibatches))
        whole = batch.take(torch.cat(parts))  # once; what is taken of it in turn are views
        ends = accumulate(len(part) for part in parts)
        return (
            self.with_token_weights(whole.take(slice(end - len(part), end)))
            for part, end in zip(parts, ends, strict=True)
        )

    def _parts(self, batch: Rollout) -> Iterator[Rollout]:
        """A step's rows in parts, whose gradients add up to that of all."""
        batch = batch.trimmed()
        rows = torch.arange(len(batch.actions), device=batch.actions.device)
        groups = rows.view(-1, batch.samples).tensor_split(self.micro_batches)
        return (batch.take(group.flatten()) for group in groups) if self.micro_batches > 1 else iter([batch])

    def _check_ratio(self, log_probs: Tensor, batch: Rollout) -> None:
        """Once, before anything is learned."""
        if not getattr(self, "_ratio_checked", False):
            check_first_ratio(log_probs.detach(), batch)
            self._ratio_checked = True
