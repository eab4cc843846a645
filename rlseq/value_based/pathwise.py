"""Actions along which a value has a slope: vectors, and words that are relaxed."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from rlseq.engine.categorical import FORBIDDEN
from rlseq.engine.decode import Decode, Sample
from rlseq.engine.relaxed import Relaxation, gumbel_noise
from rlseq.mdp.sequence_env import sequence_env, unwrap_task
from rlseq.types import Rollout, SteppedEnv
from rlseq.utils.modules import eval_mode
from rlseq.utils.ranks import largest_of_ranks, this_rank
from rlseq.value_based.action_values import ActionValues, following, plain
from rlseq.value_based.critic import VectorCritic


class Slopes(Protocol):
    """The actions of a policy as Q reads them, so that Q has a slope in them; all values are `[B, T]`."""

    critic: nn.Module

    def acting(self) -> Decode:
        """Return how actions are chosen while the agent learns."""

    def check(self, env: Any) -> None:
        """Refuse a task with other actions."""

    def taken(self, critic: Any, batch: Rollout) -> Tensor:
        """Return Q(s, a) of the actions of a batch."""

    def chosen(self, critic: Any, policy: Any, batch: Rollout, seed: int) -> tuple[Tensor, Tensor]:
        """Return Q(s, μ(s)), and how far μ(s) is beyond where Q has a slope; the gradient is the policy's.

        Args:
            critic: Q.
            policy: μ.
            batch: whose states.
            seed: of the noise in μ.
        """

    def after(self, critic: Any, policy: Any, batch: Rollout, seed: int) -> Tensor:
        """Return Q(s', μ(s')) of the states that the actions led to."""


class VectorSlopes:
    """Vectors between bounds: Q is a perceptron that reads them, μ(s) is the mean of the policy.

    Args:
        width: numbers in an observation.
        actions: numbers in an action.
        hidden: width of the layers of Q.
        noise: spread of actions, in units of the policy's σ.
    """

    def __init__(self, width: int, actions: int, hidden: int, noise: float) -> None:
        self.critic: nn.Module = VectorCritic(width, actions, hidden)
        self.noise = noise

    def acting(self) -> Decode:
        """Return the mean with noise."""
        return Sample(temperature=self.noise**2)

    def check(self, env: Any) -> None:
        """Refuse a task whose actions are no vectors between bounds."""
        env = unwrap_task(env)
        space = env.single_action_space
        bounded = isinstance(space, gym.spaces.Box) and np.isfinite([space.low, space.high]).all()
        if not (isinstance(env, SteppedEnv) and bounded):
            raise ValueError(
                f"DDPG looks for the best vector between bounds, got actions {space}; for words and choices "
                "take dqn, for vectors without bounds gymnasium.wrappers.RescaleAction, or ppo"
            )

    def taken(self, critic: Any, batch: Rollout) -> Tensor:
        """Return Q(s, a)."""
        actions = batch.actions.squeeze(1).clamp(-1, 1)
        q: Tensor = critic.of(batch.context["observation"].squeeze(1), actions)
        return q.unsqueeze(1)

    def chosen(self, critic: Any, policy: Any, batch: Rollout, seed: int) -> tuple[Tensor, Tensor]:
        """Return Q of the mean within the bounds, and how far the mean is beyond them."""
        return _of_mean(critic, policy, batch.context["observation"].squeeze(1))

    def after(self, critic: Any, policy: Any, batch: Rollout, seed: int) -> Tensor:
        """Return Q of the mean in what was reached."""
        assert batch.reached is not None
        return _of_mean(critic, policy, batch.reached.squeeze(1))[0]


def _of_mean(critic: Any, policy: Any, observed: Tensor) -> tuple[Tensor, Tensor]:
    mean = mean_action(policy, observed)
    inside = mean.clamp(-1, 1)
    return critic.of(observed, inside).unsqueeze(1), (mean - inside).square().sum(1, keepdim=True)


def mean_action(policy: Any, observed: Tensor) -> Tensor:
    """Return μ(s) `[n, A]` of observations `[n, …]`; −1 … 1 stands for the bounds of the actions."""
    with eval_mode(policy):
        said, _ = policy.step(observed, ())
    mean: Tensor = said.unbind(-2)[0]
    return mean


class WordSlopes:
    """Words: μ(s) is a relaxed word ỹ, a vector of weights, in which Q is linear: Q(s, ỹ) = Σ_w ỹ_w Q(s, w).

    The values of all words are the logits of another policy of the same class, so that Q reads whatever the
    policy reads. They begin at 0 where a `Head` makes them.

    Args:
        policy: the policy that learns.
        relaxation: how logits become words (rlseq.engine.relaxed).
        temperature: τ of the relaxation.
    """

    def __init__(self, policy: nn.Module, relaxation: Relaxation, temperature: float) -> None:
        self.critic: nn.Module = _without_opinions(policy)
        self.relaxation, self.temperature = relaxation, temperature

    def acting(self) -> Decode:
        """Return samples of the policy."""
        return Sample()

    def check(self, env: Any) -> None:
        """Refuse a task that writes no texts."""
        sequence_env(env)

    def taken(self, critic: Any, batch: Rollout) -> Tensor:
        """Return Q(s, a)."""
        return ActionValues(critic, batch, plain).of(batch.actions)

    def chosen(self, critic: Any, policy: Any, batch: Rollout, seed: int) -> tuple[Tensor, Tensor]:
        """Return Q of relaxed words."""
        with torch.no_grad():
            q = ActionValues(critic, batch, plain).reduce(lambda q: q.where(q > FORBIDDEN, 0.0))
        rows, steps, words = q.shape
        drawn = this_rank().all(rows), int(largest_of_ranks(torch.tensor(steps))), words
        noise = gumbel_noise(drawn, torch.Generator().manual_seed(seed)).to(q)
        noise = this_rank().own(noise)[:, :steps]

        def value(z: Tensor, q: Tensor, noise: Tensor) -> Tensor:
            return (self.relaxation(z, noise, self.temperature) * q).sum(-1)

        found = ActionValues(policy, batch, plain).reduce(value, q, noise)
        return found, torch.zeros_like(found)

    def after(self, critic: Any, policy: Any, batch: Rollout, seed: int) -> Tensor:
        """Return Q of relaxed words in the longer prefixes."""
        return following(self.chosen(critic, policy, batch, seed)[0])


def _without_opinions(policy: nn.Module) -> nn.Module:
    """Return a copy of a policy whose logits are 0, where they come from a head with a weight of its own."""
    critic = deepcopy(policy)
    weight = getattr(getattr(critic, "head", None), "weight", None)
    if isinstance(weight, nn.Parameter):
        nn.init.zeros_(weight)
    return critic
