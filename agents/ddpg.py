"""DDPG: the policy follows the gradient of a learned value in its action (pathwise derivative)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from rlseq.engine.decode import Decode, Sample
from rlseq.mdp.sequence_env import unwrap_task
from rlseq.policies.mlp import ControlSpec
from rlseq.policy_gradient.agent import adam, clip
from rlseq.types import Metrics, Rollout, SteppedEnv
from rlseq.utils.arguments import PositiveFloat, PositiveInt, Share
from rlseq.utils.modules import eval_mode
from rlseq.utils.stateful import Stateful
from rlseq.value_based.agent import OffPolicyAgent
from rlseq.value_based.critic import VectorCritic
from rlseq.value_based.target import TargetCopy


@dataclass(eq=False)
class DDPG(OffPolicyAgent):
    """Maximise E[ Q(s, μ(s)) ] by ∇Q(s, μ(s)) = ∇ₐQ(s, a) ∇μ(s),   Q regressed on r + γ Q̂(s', μ̂(s')).

    μ is the mean of the policy, which acts with noise; Q̂ and μ̂ are copies that follow slowly (Silver et al.
    2014; Lillicrap et al. 2016).
    """

    writes_texts: ClassVar[bool] = False
    for_ranks: ClassVar[bool] = False

    gamma: Share = 0.99  # discount factor γ
    target_every: PositiveInt = 1  # C, gradient steps between two changes of the target copies
    target_share: Share = 0.005  # how far the target copies then move; 1 replaces them
    noise: PositiveFloat = 0.1  # spread of actions, in units of the policy's σ (1 at first)
    critic_hidden: PositiveInt = 128  # width of the two layers of Q
    critic_lr: PositiveFloat = 1e-3  # step size of Q

    def __post_init__(self) -> None:
        super().__post_init__()
        signals = getattr(self.policy, "signals", None)
        if not isinstance(signals, ControlSpec) or not signals.continuous:
            raise TypeError(
                "DDPG follows the slope of Q in an action that is a vector, which this "
                f"{type(self.policy).__name__} does not choose; for words and choices take dqn or a policy "
                'gradient, for vectors the policy make_policy("mlp", rlseq.adapters.GymEnv(…))'
            )
        device = next(self.policy.parameters()).device
        sizes = signals.width, signals.actions, self.critic_hidden
        self.critic = VectorCritic(*sizes).to(device)
        self.critic_optimizer = adam(self.critic.parameters(), self.critic_lr, 0.0)
        self.critic_target = TargetCopy(self.critic, self.target_every, self.target_share)

    def acting(self) -> Decode:
        """Return the mean with noise."""
        return Sample(temperature=self.noise**2)

    def check(self, env: Any) -> None:
        """Refuse a task whose actions are no vectors between bounds."""
        super().check(env)
        env = unwrap_task(env)
        space = env.single_action_space
        bounded = isinstance(space, gym.spaces.Box) and np.isfinite([space.low, space.high]).all()
        if not (isinstance(env, SteppedEnv) and bounded):
            raise ValueError(
                f"DDPG looks for the best vector between bounds, got actions {space}; for words and choices "
                "take dqn, for vectors without bounds gymnasium.wrappers.RescaleAction, or ppo"
            )

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
        clip(self.critic.parameters(), self.clip_norm)
        self.critic_optimizer.step()
        metrics = super().learn(batch)
        self.critic_target.follow(self.critic)
        return {**metrics, "critic_loss": error.detach()}

    def critic_loss(self, batch: Rollout) -> Tensor:
        """Return ½ (Q(s, a) − r − γ Q̂(s', μ̂(s')))², mean over the batch."""
        observed, actions = batch.context["observation"].squeeze(1), batch.actions.squeeze(1)
        error = self.critic.of(observed, actions.clamp(-1, 1)) - self.targets(batch)
        return error.square().mean() / 2

    @torch.no_grad()
    def targets(self, batch: Rollout) -> Tensor:
        """Return r + γ Q̂(s', μ̂(s')) of single steps, `[n]`, and r where an episode is over."""
        assert batch.reached is not None
        reached = batch.reached.squeeze(1)
        best = mean_action(self.target.network, reached).clamp(-1, 1)
        after: Any = self.critic_target.network
        return self.one_step_returns(batch, batch.rewards, after.of(reached, best).unsqueeze(1)).squeeze(1)

    def loss(self, batch: Rollout) -> tuple[Tensor, Metrics]:
        """Return −Q(s, μ(s)), and how far μ is beyond the bounds, where Q has no slope."""
        observed = batch.context["observation"].squeeze(1)
        mean = mean_action(self.policy, observed)
        inside = mean.clamp(-1, 1)
        beyond, q = (mean - inside).square().sum(1), self.critic.of(observed, inside).mean()
        return beyond.mean() - q, {"q": q.detach()}


def mean_action(policy: Any, observed: Tensor) -> Tensor:
    """Return μ(s) `[n, A]` of observations `[n, …]`; −1 … 1 stands for the bounds of the actions."""
    with eval_mode(policy):
        said, _ = policy.step(observed, ())
    mean: Tensor = said.unbind(-2)[0]
    return mean
