"""The all-action policy gradient: an expectation over the vocabulary in every state, not one sampled word."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from gymnasium.spaces import Discrete
from torch import Tensor

from rlseq.mdp.sequence_env import unwrap_task
from rlseq.policy_gradient.baselines import Baseline, Factor, none
from rlseq.policy_gradient.factors import as_it_is
from rlseq.policy_gradient.q_estimates import ActionCritic, CompletedActions, QEstimate
from rlseq.policy_gradient.sample_reuse import SampleReuse
from rlseq.types import Evaluation, LearningBatch, Metrics, Rollout, SteppedEnv
from rlseq.utils.stateful import Stateful


@dataclass(eq=False)
class AllAction(SampleReuse):
    """∇J = E[ Σₜ Σₐ Q(sₜ, a) ∇π(a|sₜ) ],   the sum over all actions, sampled states.

    The expectation over actions of the policy gradient theorem (Sutton et al. 2000), as it stands; "expected"
    (Ciosek & Whiteson 2018) and "mean" (Allen et al. 2017) policy gradients are other names. Which action was
    sampled adds no noise, and a baseline changes nothing.
    """

    baseline: Baseline = none  # none is needed: every action is compared with all others
    action_values: QEstimate = field(
        default_factory=CompletedActions
    )  # Q: completions, exact, or critic (a linear regression)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, usual in (("baseline", none), ("scale", as_it_is)):
            if getattr(self, name) is not usual:
                raise ValueError(
                    f"all_action compares every action with all others, so that {name} has nothing to do; "
                    f"leave {name} out, or take an agent that uses sampled actions, such as reinforce"
                )
        if not isinstance(self.action_values, ActionCritic) and (self.gamma < 1 or self.kl_reward):
            raise ValueError(
                "values of actions are those of undiscounted rewards of the task; leave gamma at 1 and use "
                f'kl, or take action_values="critic", got gamma={self.gamma}, kl_reward={self.kl_reward}'
            )

    def stateful_parts(self) -> dict[str, Stateful]:
        """Return the parts that have a state, a critic among them."""
        parts = super().stateful_parts()
        if isinstance(self.action_values, Stateful):
            parts["action_values"] = self.action_values
        return parts

    def check(self, env: Any) -> None:
        """Refuse a task whose actions have no values, or too many."""
        super().check(env)
        env = unwrap_task(env)
        actions: Any = getattr(env, "single_action_space", None)
        known = isinstance(self.action_values, ActionCritic) and isinstance(actions, Discrete)
        if isinstance(env, SteppedEnv) and not known:
            raise ValueError(
                "values of all actions are known for texts, or by a critic for a choice of actions, got "
                f'{actions}; pass action_values="critic" where they are Discrete, or take an agent as a2c'
            )
        if isinstance(self.action_values, CompletedActions):
            self.action_values.check(env)

    def prepare(self, batch: Rollout, env: Any) -> Rollout:
        """Return a batch of samples with the values of all actions."""
        batch = super().prepare(batch, env)
        if isinstance(self.action_values, Factor):
            batch = self.action_values.prepare(batch, self.policy, env)
        values = self.action_values(batch, self.policy, env, self.decode)
        return replace(batch, action_values=values)

    def surrogate(self, evaluation: Evaluation, batch: LearningBatch) -> Tensor:
        """Return −Σₐ π(a) Q(a) of every state."""
        if evaluation.logits is None or batch.action_values is None:
            raise ValueError(
                "all_action needs the probability and the value of every action: let the policy's `evaluate` "
                "return `logits` (rlseq.types.Evaluation), and collect the batch with the agent"
            )
        return -evaluation.logits.reduce(lambda z, q: (z.softmax(-1) * q).sum(-1), batch.action_values)

    def update(self, batch: Rollout) -> Metrics:
        """Learn from a batch; then a critic learns from it, too."""
        metrics = super().update(batch)
        if isinstance(self.action_values, Factor):
            self.action_values.learn(self.credit(batch, self.gamma), batch)
        return metrics
