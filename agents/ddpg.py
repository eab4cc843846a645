"""DDPG: the policy follows the gradient of a learned value in its action (pathwise derivative)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rlseq.engine.decode import Decode
from rlseq.engine.relaxed import Relaxation
from rlseq.policies.mlp import ControlSpec
from rlseq.policy_gradient.agent import adam, clip
from rlseq.policy_gradient.losses import per_token
from rlseq.types import Metrics, Rollout
from rlseq.utils.arguments import PositiveFloat, PositiveInt, Share
from rlseq.utils.ranks import total, total_gradients
from rlseq.utils.stateful import Stateful
from rlseq.value_based.agent import OffPolicyAgent
from rlseq.value_based.pathwise import Slopes, VectorSlopes, WordSlopes
from rlseq.value_based.target import TargetCopy


def not_relaxed(logits: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """Refuse: a word that is not relaxed has no slope."""
    raise TypeError("words that are not relaxed have no slope; pass a relaxation (rlseq.engine.relaxed)")


@dataclass(eq=False)
class DDPG(OffPolicyAgent):
    """Maximise E[ Q(s, μ(s)) ] by ∇Q(s, μ(s)) = ∇ₐQ(s, a) ∇μ(s),   Q regressed on r + γ Q̂(s', μ̂(s')).

    μ is the mean of the policy, which acts with noise; Q̂ and μ̂ are copies that follow slowly (Silver et al.
    2014; Lillicrap et al. 2016). Where the policy writes, μ(s) is a relaxed word.
    """

    writes_texts: ClassVar[bool] = False

    gamma: Share = 0.99  # discount factor γ
    target_every: PositiveInt = 1  # C, gradient steps between two changes of the target copies
    target_share: Share = 0.005  # how far the target copies then move; 1 replaces them
    noise: PositiveFloat = 0.1  # spread of vectors, in units of the policy's σ (1 at first)
    critic_hidden: PositiveInt = 128  # width of the two layers of Q(s, a) of vectors
    critic_lr: PositiveFloat = 1e-3  # step size of Q
    relaxation: Relaxation = not_relaxed  # relaxation of words (rlseq.engine.relaxed); vectors need none
    temperature: PositiveFloat = 1.0  # τ of the relaxation

    def __post_init__(self) -> None:
        super().__post_init__()
        self.actions = self.pathwise()
        self.critic = self.actions.critic.to(next(self.policy.parameters()).device)
        self.critic_optimizer = adam(self.critic.parameters(), self.critic_lr, 0.0)
        self.critic_target = TargetCopy(self.critic, self.target_every, self.target_share)

    def pathwise(self) -> Slopes:
        """Return how Q has a slope in what the policy does."""
        signals, does = getattr(self.policy, "signals", None), type(self.policy).__name__
        if not isinstance(signals, ControlSpec):
            if self.relaxation is not_relaxed:
                raise ValueError(
                    f"DDPG follows the slope of Q in an action, and words of this {does} have none unless "
                    'they are relaxed; pass relaxation="straight_through_gumbel", or take dqn or a policy '
                    "gradient"
                )
            return WordSlopes(self.policy, self.relaxation, self.temperature)
        if not signals.continuous:
            raise TypeError(
                "DDPG follows the slope of Q in an action that is a vector or a relaxed word, neither of "
                f"which this {does} chooses; for choices take dqn or a policy gradient"
            )
        if self.relaxation is not not_relaxed:
            raise ValueError(f"relaxation is for words, and this {does} chooses vectors; leave it out")
        return VectorSlopes(signals.width, signals.actions, self.critic_hidden, self.noise)

    def acting(self) -> Decode:
        """Return how actions are chosen while the agent learns."""
        return self.actions.acting()

    def check(self, env: Any) -> None:
        """Refuse a task with other actions than those of the policy."""
        super().check(env)
        self.actions.check(env)

    def stateful_parts(self) -> dict[str, Stateful]:
        """Return the parts that have a state, Q, its optimizer and its copy among them."""
        return {
            **super().stateful_parts(),
            "critic": self.critic,
            "critic_target": self.critic_target,
            "critic_optimizer": self.critic_optimizer,
        }

    def learn(self, batch: Rollout) -> Metrics:
        """Take a step of Q and one of the policy; their copies follow."""
        error = self.critic_loss(batch)
        self.critic_optimizer.zero_grad()
        error.backward()  # type: ignore[no-untyped-call]
        total_gradients(list(self.critic.parameters()))
        clip(self.critic.parameters(), self.clip_norm)
        self.critic_optimizer.step()
        metrics = super().learn(batch)
        self.critic_target.follow(self.critic)
        return {**metrics, "critic_loss": total(error.detach())}

    def critic_loss(self, batch: Rollout) -> Tensor:
        """Return ½ (Q(s, a) − r − γ Q̂(s', μ̂(s')))², mean over actions."""
        error = self.actions.taken(self.critic, batch) - self.targets(batch)
        return (error.square() * per_token(batch.mask)).sum() / 2

    @torch.no_grad()
    def targets(self, batch: Rollout) -> Tensor:
        """Return r + γ Q̂(s', μ̂(s')), `[B, T]`, and r where an episode is over."""
        copies = self.critic_target.network, self.target.network
        after = self.actions.after(*copies, batch, seed=self.seed + 1)
        return self.one_step_returns(batch, batch.rewards, after)

    @property
    def seed(self) -> int:
        """The seed of the noise of this gradient step; another number is drawn from the next one."""
        return 2 * self.critic_target.steps

    def loss(self, batch: Rollout) -> tuple[Tensor, Metrics]:
        """Return −Q(s, μ(s)), and how far μ is beyond the bounds, where Q has no slope."""
        q, beyond = self.actions.chosen(self.critic, self.policy, batch, seed=self.seed)
        weights = per_token(batch.mask)
        return ((beyond - q) * weights).sum(), {"q": total((q.detach() * weights).sum())}
