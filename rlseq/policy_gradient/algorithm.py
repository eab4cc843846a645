"""`PolicyGradient`: every policy-gradient algorithm as a product of factors.

    ∇J = E[ Σₜ Aₜ ∇log π(aₜ|sₜ) ],     Aₜ = scale(Q̂ₜ − bₜ)

An algorithm is a choice of factors: what an action is credited with (`credit`, Q̂), what that is compared with
(`baseline`, b), its `scale`, the `surrogate` whose gradient is followed, how tokens are summed up
(`aggregate`), and what keeps the policy in place (`rlseq.policy_gradient.penalties`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
from rlseq.policy_gradient.baselines import Baseline, Factor, mean
from rlseq.policy_gradient.credit import Credit, own_credit, reward_to_go
from rlseq.policy_gradient.diagnostics import merge_metrics, rollout_metrics, step_metrics
from rlseq.policy_gradient.factors import Scale, Shuffle, as_it_is, check_factors, check_task
from rlseq.policy_gradient.losses import Aggregate, per_sequence, per_token, score_function
from rlseq.policy_gradient.penalties import Divergence, full_kl, penalties
from rlseq.types import BasePolicy, Evaluation, LearningBatch, Metrics, Rollout
from rlseq.utils.arguments import NonNegativeFloat, PenaltyWeight, PositiveInt, Share, StepSize
from rlseq.utils.stateful import Stateful

RATIO_TOLERANCE = 1e-4  # how far the first on-policy ratio may be from 1, in float32
COARSE_TOLERANCE = 0.25  # the same where networks compute in 16 bits: differences of 0.11 were measured


def ratio_tolerance(policy: Any, batch: Rollout) -> float:
    """Return how far the first on-policy ratio of a policy may be from 1."""
    types = {p.dtype for p in policy.parameters()} | {batch.behaviour.autocast}
    return COARSE_TOLERANCE if types & {torch.bfloat16, torch.float16} else RATIO_TOLERANCE


def check_first_ratio(log_probs: Tensor, batch: Rollout, tolerance: float = RATIO_TOLERANCE) -> None:
    """Refuse a policy that gives its first batch other probabilities than those with which it was sampled."""
    ratio = ((log_probs - batch.log_probs) * batch.mask).exp()
    worst = float((ratio - 1).abs().max())
    if not worst <= tolerance:
        raise RuntimeError(
            f"on the first update π_new/π_old must be 1 within {tolerance}, but is off by {worst:.2g}: "
            "the policy's `evaluate` disagrees with its `step`; rlseq.testing.check_policy finds where"
        )


def frozen_copy(policy: Any) -> Any:
    """Return a policy as it is now: a copy whose weights do not change."""
    return policy.frozen_copy() if isinstance(policy, BasePolicy) else deepcopy(policy).requires_grad_(False)


@dataclass(eq=False)
class PolicyGradient(Agent):
    """The base of all policy gradients: texts are sampled without gradients, and scored again in one pass."""

    lr: StepSize = 1e-4  # step size of Adam; after likelihood, a tenth of its rate
    samples: PositiveInt = 1  # K, number of texts for each source
    gamma: Share = 1.0  # discount factor γ
    credit: Credit = reward_to_go  # estimate of the value of an action (rlseq.policy_gradient.credit)
    baseline: Baseline = mean  # subtracted from the credit (rlseq.baselines)
    scale: Scale = as_it_is  # normalisation of the advantage (rlseq.policy_gradient.factors)
    aggregate: Aggregate = per_sequence  # weight of each token in the loss (rlseq.losses)
    decode: Decode = field(default_factory=Sample)  # how tokens are chosen
    minibatches: PositiveInt = 1  # gradient steps in a pass over a batch
    micro_batches: PositiveInt = 1  # parts in which the gradient of a step is computed, to save memory
    value_weight: NonNegativeFloat = 0.5  # weight of the value loss, where a value head is used
    entropy: PenaltyWeight = 0.0  # weight of the entropy bonus
    l2: NonNegativeFloat = 0.0  # weight of the penalty on the mean square of the logits
    mle: NonNegativeFloat = 0.0  # weight of the likelihood of references of the same sources
    kl: NonNegativeFloat = 0.0  # weight of the divergence from the reference policy, in the loss
    kl_reward: NonNegativeFloat = (
        0.0  # weight of that divergence when it is subtracted from the reward of every token
    )
    divergence: Divergence = (
        full_kl  # estimator of the divergence in the loss (rlseq.policy_gradient.penalties)
    )
    reference: Any = None  # the reference policy; a copy of the policy as it is now when not given
    uses_task_reward: ClassVar[bool] = True  # False where the agent brings a reward of its own
    compares_with_reference: ClassVar[bool] = False  # True where the surrogate does, whatever the weights

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.credit is own_credit:
            self.credit = self.make_credit()
        check_factors(self)
        self.shuffle, self._ratio_checked = Shuffle(), False
        if self.reference is not None and not self.needs_reference:
            raise ValueError(
                "reference is looked at only where its divergence has a weight; pass kl=0.1 or "
                "kl_reward=0.1, or leave reference out"
            )
        if self.needs_reference and self.reference is None:
            self.reference = frozen_copy(self.policy)

    @property
    def needs_reference(self) -> bool:
        """Whether the policy is compared with a reference policy."""
        return bool(self.kl or self.kl_reward or self.compares_with_reference)

    def make_credit(self) -> Credit:
        """Make the credit from the agent's hyper-parameters; called where none is given (`own_credit`)."""
        return reward_to_go

    def stateful_parts(self) -> dict[str, Stateful]:
        """Return the optimizer, the order of minibatches, and the factors and reference that have a state."""
        given = {name: getattr(self, name) for name in ("reference", "credit", "baseline", "decode")}
        factors = {name: part for name, part in given.items() if isinstance(part, Stateful)}
        return {**super().stateful_parts(), "shuffle": self.shuffle, **factors}

    # ── sampling ─────────────────────────────────────────────────────────────────────────────────────

    def collect(self, env: Any) -> Rollout:
        """Return samples of the policy, with what the factors need."""
        env = unwrap_task(env)
        self.check(env)
        self.catch_up(env)
        return self.gather(self.paid_on(env))

    def check(self, env: Any) -> None:
        """Refuse a task that does not fit the factors."""
        check_task(self, unwrap_task(env))

    def catch_up(self, env: Any) -> None:
        """Learn what must be learned before a batch is gathered: a discriminator, for instance."""

    def paid_on(self, env: Any) -> Any:
        """Return the task with the reward that this agent learns from; by default the task's own."""
        return env

    def gather(self, env: Any) -> Rollout:
        """Return samples as `collect` does, without any change of the agent."""
        return self.prepare(self.write(env), env)

    def write(self, env: Any) -> Rollout:
        """Return texts of the policy, K of each source."""
        decode = self.baseline.decoder(self.decode, env) if isinstance(self.baseline, Factor) else self.decode
        batch = rollout(self.policy, env, decode=decode, repeat=self.samples)
        return replace(batch, samples=self.samples)

    @property
    def writes_otherwise(self) -> str:
        """The reason why a batch is not independent texts of the policy, K of each source; empty if it is."""
        own = [n for n in ("gather", "write") if getattr(type(self), n) is not getattr(PolicyGradient, n)]
        return f"a {own[0]}() of its own" if own else ""

    def prepare(self, batch: Rollout, env: Any) -> Rollout:
        """Return a batch of samples with what the factors need."""
        for factor in (self.credit, self.baseline):
            if isinstance(factor, Factor):
                batch = factor.prepare(batch, self.policy, env)
        if self.compares_with_reference:
            batch = replace(batch, reference_log_probs=evaluate_frozen(self.reference, batch).log_probs)
        if self.kl_reward:
            log_ratio = (batch.log_probs - evaluate_frozen(self.reference, batch).log_probs) * batch.mask
            kl_penalty = self.kl_reward * log_ratio
            batch = replace(batch, rewards=batch.rewards - kl_penalty, kl_penalty=kl_penalty)
        if self.mle:
            batch = replace(batch, demonstrations=sample_references(env, batch.context))
        return batch

    # ── learning ─────────────────────────────────────────────────────────────────────────────────────

    def advantages(self, returns: Tensor, batch: Rollout) -> Tensor:
        """Return Aₜ = scale(Q̂ₜ − bₜ), broadcastable to `[B, T]`."""
        return self.scale(returns - self.baseline(returns, batch), batch)

    def surrogate(self, evaluation: Evaluation, batch: LearningBatch) -> Tensor:
        """Return the loss per token `[B, T]` whose gradient is followed."""
        return score_function(evaluation.log_probs, batch.advantages)

    def token_weights(self, batch: Rollout) -> Tensor:
        """Return how much every token of a step counts, `[B, T]`."""
        return self.aggregate(self.acted(batch).mask)

    def update(self, batch: Rollout) -> Metrics:
        """Learn from a batch, in a gradient step for each minibatch."""
        learned = self.with_advantages(batch)
        rows = self.rows(learned)
        width = rows.width if rows.mask.is_cuda else None  # the host looks once, not in every step
        logs = [self.step(self._parts(part, width)) for part in self.minibatches_of(rows)]
        if isinstance(self.baseline, Factor):
            self.baseline.learn(learned.targets, self.acted(learned))
        if isinstance(self.policy, BasePolicy):  # after a batch, never during it: the first ratio is 1
            self.policy.update_statistics(learned)
        return {**rollout_metrics(learned), **merge_metrics(logs)}

    def rows(self, batch: LearningBatch) -> LearningBatch:
        """Return the rows that steps are made of: texts, or the actions of segments."""
        if batch.last_episodes is None:
            return batch
        return self.with_token_weights(batch.as_transitions())

    def acted(self, batch: Rollout) -> Rollout:
        """Return the batch with a mask of what the policy chose itself: what baselines learn from."""
        return batch if batch.given is None else replace(batch, mask=batch.mask & ~batch.given)

    @torch.no_grad()
    def with_advantages(self, batch: Rollout) -> LearningBatch:
        """Return the batch with advantages, targets and weights, before anything is learned from it."""
        targets = self.credit(batch, self.gamma)
        advantages = self.advantages(targets, self.acted(batch)).expand_as(targets)
        return self.with_token_weights(batch, advantages=advantages, targets=targets)

    def with_token_weights(self, batch: Rollout, **learned: Tensor) -> LearningBatch:
        """Return the batch with the weights of one step, and its demonstrations with theirs."""
        fields = {**vars(batch), **learned, "weights": self.token_weights(batch)}
        if batch.demonstrations is not None:
            fields["demonstrations"] = _imitated(batch.demonstrations)
        return LearningBatch(**fields)

    def loss(self, batch: Rollout) -> tuple[Tensor, Metrics]:
        """Return the weighted sum of the surrogate and the penalties over tokens, and metrics of the step."""
        learned = batch if isinstance(batch, LearningBatch) else self.with_advantages(batch)
        evaluation = evaluate_actions(self.policy, learned)
        if not self._ratio_checked:
            tolerance = ratio_tolerance(self.policy, learned)
            check_first_ratio(evaluation.log_probs.detach(), learned, tolerance)
            self._ratio_checked = True
        penalty, metrics = penalties(self, evaluation, learned)
        loss = (self.surrogate(evaluation, learned) * learned.weights).sum() + penalty
        beside = self.token_metrics(evaluation, learned)
        return loss, {**step_metrics(evaluation, learned, **beside), **metrics}

    def token_metrics(self, evaluation: Evaluation, batch: LearningBatch) -> Metrics:
        """Return further values of tokens `[B, T]`, whose means a step logs."""
        return {}

    def minibatches_of(self, batch: LearningBatch) -> Iterator[LearningBatch]:
        """Return shuffled minibatches of whole groups, each with the weights of a step."""
        if self.minibatches == 1:
            return iter([batch])
        parts = list(self.shuffle(batch, self.minibatches))
        whole = batch.take(torch.cat(parts))  # once; what is taken of it in turn are views
        ends = accumulate(len(part) for part in parts)
        return (
            self.with_token_weights(whole.take(slice(end - len(part), end)))
            for part, end in zip(parts, ends, strict=True)
        )

    def _parts(self, batch: LearningBatch, width: int | None) -> Iterator[LearningBatch]:
        """Yield a step's rows in parts, whose gradients add up to that of all.

        Args:
            batch: the rows.
            width: the number of steps that are kept; None for that of the longest of these rows.
        """
        batch = batch.trimmed(width)
        rows = torch.arange(len(batch.actions), device=batch.actions.device)
        groups = rows.view(-1, batch.samples).tensor_split(self.micro_batches)
        return (batch.take(group.flatten()) for group in groups) if self.micro_batches > 1 else iter([batch])


def _imitated(batch: Rollout) -> LearningBatch:
    """Return demonstrations to learn from by likelihood: a mean over tokens, with advantage 1."""
    ones = torch.ones_like(batch.rewards)
    fields: Mapping[str, Any] = {**vars(batch), "advantages": ones, "targets": ones}
    return LearningBatch(**{**fields, "weights": per_token(batch.mask)})
