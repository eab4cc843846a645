"""Tasks with an added reward: potentials, which keep the best policy the best, and costs, which do not.

What comes back shares episodes, contexts and random numbers with the task that was given; use one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from rlseq.engine.decode import Greedy
from rlseq.engine.rollout import rollout
from rlseq.mdp.sequence_env import SequenceEnv
from rlseq.metrics.algebra import HasIncrements
from rlseq.types import Context, Reward
from rlseq.utils.arguments import Share, checked_arguments
from rlseq.utils.errors import hint

E = TypeVar("E", bound=SequenceEnv)
Potential = Callable[[Tensor, Tensor, Context], Tensor]
"""`(tokens [B, T], mask [B, T], context) -> [B, T]`: Φ of the prefix that ends with each token."""


@checked_arguments
def with_reward(env: E, name: str, reward: Reward) -> E:
    """Return the task with one more part of the reward, reported by its name."""
    if name in env.parts:
        raise ValueError(f"the task has a reward {name!r} already{hint(name, env.parts)}")
    return env.replace(reward={**env.parts, name: reward})


@checked_arguments
def shaped(env: E, potential: Potential, gamma: Share = 1.0, name: str = "shaping") -> E:
    """Reward by a potential:  r'ₜ = rₜ + γ Φ(sₜ) − Φ(sₜ₋₁),  Φ(empty) = Φ(finished) = 0.

    Ng, Harada & Russell 1999: whatever Φ is, the best policy stays the best, because discounted over a text
    the additions sum to 0. A metric's potential is the running sum of its increments, which `potential_of`
    gives.

    Args:
        env: the task.
        potential: Φ of every prefix.
        gamma: the discount with which an agent sums rewards.
        name: of the part of the reward.
    """
    eos, longest = env.vocab.eos, env.max_len

    def shaping(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """γ Φ(sₜ) − Φ(sₜ₋₁), `[B, T]`."""
        goes_on = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens) < longest - 1
        if eos is not None:
            goes_on = goes_on & (tokens != eos)
        value = potential(tokens, mask, context).where(mask & goes_on, 0.0)
        before = torch.nn.functional.pad(value[:, :-1], (1, 0))
        return (gamma * value - before).where(mask, 0.0)

    return with_reward(env, name, shaping)


@checked_arguments
def charged(env: E, cost: float) -> E:
    """Return the task with a cost for every token written, EOS too; a negative one rewards length."""

    def per_token(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """−cost where something is written, `[B, T]`."""
        return -cost * mask.float()

    return with_reward(env, "cost", per_token)


@checked_arguments
def SelfCritical(env: E, policy: Any) -> E:  # noqa: N802  (a wrapper, as others name theirs)
    """Return the task with its reward less that of the policy's greedy text (Rennie et al. 2017).

    Whoever is trained on it, a stock stable-baselines3 agent too, has that baseline. The policy
    may be the one that learns (its greedy texts follow it), or one that stays; that of an SB3 agent is
    `rlseq.sb3.as_policy(model, env)`.

    Args:
        env: the task; its reward may be dense.
        policy: any policy that can write.
    """

    def greedy(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """−R(ŷ), `[B]`; one greedy text for every context that occurs."""
        index, place = torch.unique(context["index"], return_inverse=True)
        own = torch.Generator(env.device)  # greedy texts take none of the task's random numbers
        judge = env.replace(num_envs=len(index), generator=own)
        return -rollout(policy, judge, decode=Greedy(), index=index).returns[place]

    return with_reward(env, "greedy", greedy)


@checked_arguments
def potential_of(metric: Reward) -> Potential:
    """Return the function that gives a metric's score of every prefix."""
    if not isinstance(metric, HasIncrements):
        raise TypeError(f"{metric!r:.60} has no increments; give a metric, or a function of prefixes")
    increments = metric.increments
    return lambda tokens, mask, context: increments(tokens, mask, context).cumsum(1)
