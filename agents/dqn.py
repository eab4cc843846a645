"""DQN: the policy's logits are values of actions, regressed on the reward and the best value that follows."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import torch
import torch.nn.functional as F
from torch import Tensor

from rlseq.engine.decode import Decode
from rlseq.mdp.sequence_env import unwrap_task
from rlseq.policy_gradient.factors import lacks_values
from rlseq.policy_gradient.losses import per_token
from rlseq.types import Metrics, Rollout, SteppedEnv
from rlseq.utils.arguments import PositiveFloat, Share
from rlseq.utils.ranks import total
from rlseq.value_based.action_values import (
    WITHOUT_V,
    ActionValues,
    Backup,
    Form,
    following,
    maximum,
    plain,
)
from rlseq.value_based.agent import OffPolicyAgent
from rlseq.value_based.exploration import Explore, epsilon_greedy, fallen


@dataclass(eq=False)
class QLearning(OffPolicyAgent):
    """Minimise E[ ℓ(Q(sₜ, aₜ) − rₜ − γ V̂(sₜ₊₁)) ],   V̂ of the target copy, 0 after the end; ℓ is Huber's.

    A text is read once for the values of all its prefixes.
    """

    form: Form = plain  # how values are made from logits and V (rlseq.value_based.action_values)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form not in WITHOUT_V and lacks_values(self.policy):
            raise ValueError(
                f"{type(self).__name__} with {self.form.__name__} values needs V(s), but the policy has no "
                "value head; make it with rlseq.make_policy(…, value=True), or take form='plain'"
            )

    @abstractmethod
    def values_of_states(self, online: ActionValues, target: ActionValues) -> Tensor:
        """Return V̂ of every state, `[B, T]`."""

    def rewards(self, batch: Rollout) -> Tensor:
        """Return what an action is paid, `[B, T]`."""
        return batch.rewards

    def check(self, env: Any) -> None:
        """Refuse a task whose actions cannot be listed."""
        super().check(env)
        env = unwrap_task(env)
        if isinstance(env, SteppedEnv) and not isinstance(env.single_action_space, gym.spaces.Discrete):
            raise ValueError(
                f"{type(self).__name__} compares the values of all actions, which must be Discrete, got "
                f"{env.single_action_space}; for vectors take ddpg, or a policy gradient such as ppo"
            )

    def loss(self, batch: Rollout) -> tuple[Tensor, Metrics]:
        """Return Huber's loss of the error of Q, mean over actions."""
        online, weights = ActionValues(self.policy, batch, self.form), per_token(batch.mask)
        values = online.of(batch.actions)
        targets = self.targets(batch, online)
        error = (values.detach() - targets).abs()
        metrics = {
            "q": total((values.detach() * weights).sum()),
            "td_error": total((error * weights).sum()),
        }
        return (F.smooth_l1_loss(values, targets, reduction="none") * weights).sum(), metrics

    @torch.no_grad()
    def targets(self, batch: Rollout, online: ActionValues) -> Tensor:
        """Return rₜ + γ V̂(sₜ₊₁), `[B, T]`, and rₜ where an episode is over.

        Args:
            batch: texts, whose next states are their longer prefixes; or steps with what they reached.
            online: the values of the batch under the policy that learns.
        """
        if batch.reached is None:
            target = ActionValues(self.target.network, batch, self.form)
            after = following(self.values_of_states(online, target))
        else:
            there = replace(batch, context={**batch.context, "observation": batch.reached})
            policies = self.policy, self.target.network
            after = self.values_of_states(*(ActionValues(p, there, self.form) for p in policies))
        return self.one_step_returns(batch, self.rewards(batch), after)


@dataclass(eq=False)
class DQN(QLearning):
    """Minimise E[ ℓ(Q(sₜ, aₜ) − rₜ − γ maxₐ Q̂(sₜ₊₁, a)) ],   Q the policy's logits, Q̂ those of its copy.

    Mnih et al. 2015. After training, greedy decoding takes the actions with the largest values.
    """

    backup: Backup = maximum  # value of a state from those of its actions (rlseq.value_based.action_values)
    explore: Explore = epsilon_greedy  # exploration while the agent learns (rlseq.value_based.exploration)
    epsilon: Share = 0.05  # ε at last; it is 1 at first
    exploration: Share = 0.5  # share of training in which ε falls
    temperature: PositiveFloat = 1.0  # τ of Boltzmann exploration, in units of the reward

    def acting(self) -> Decode:
        """Return how actions are chosen now."""
        return self.explore(fallen(self.epsilon, self.exploration, self.done), self.temperature)

    def values_of_states(self, online: ActionValues, target: ActionValues) -> Tensor:
        """Return V̂ as `backup` makes it."""
        return self.backup(online, target)
