"""Actions in the spaces of Gymnasium, made from what a policy's `step` returned (`said`).

Both draw the random numbers of T steps at once, choose an action of every row from them, score the actions
`[B, T, …]`, and return them as the environment takes them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from rlseq.engine.decode import Decode, EpsilonGreedy, Greedy, Sample, acting_logits
from rlseq.policies.control_heads import log_density, tempered
from rlseq.types import Behaviour


@dataclass(frozen=True)
class Choices:
    """Choices of one of n, by logits: argmax (z + Gumbel noise) is a sample of softmax(z)."""

    space: gym.spaces.Discrete
    decode: Sample | Greedy | EpsilonGreedy

    def random(self, steps: int, rows: int, generator: torch.Generator) -> Tensor:
        """Return Gumbel noise for every choice, −log E with E exponential; zeros for the likeliest choice.

        For an ε-greedy choice the noise of one choice, drawn uniformly, is infinite with probability ε.
        """
        shape = steps, rows, int(self.space.n)
        if isinstance(self.decode, Greedy):
            return torch.zeros(shape, device=generator.device)
        if isinstance(self.decode, EpsilonGreedy):
            drawn = torch.randint(shape[-1], shape[:2], generator=generator, device=generator.device)
            tried = torch.rand(shape[:2], generator=generator, device=generator.device) < self.decode.epsilon
            noise = torch.zeros(shape, device=generator.device)
            return noise.scatter_(2, drawn.unsqueeze(2), torch.where(tried, torch.inf, 0.0).unsqueeze(2))
        return -torch.empty(shape, device=generator.device).exponential_(generator=generator).log()

    def choose(self, said: Tensor, random: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the choice with the largest sum of logit and noise, and the allowed ones if not all were."""
        logits = acting_logits(said, Behaviour(self.decode.temperature))
        support = self.decode.support(logits)
        if support is not None:
            logits = acting_logits(logits, Behaviour(support=support))
        return (logits + random).argmax(-1), support

    def log_probs(self, said: Tensor, actions: Tensor, behaviour: Behaviour) -> Tensor:
        """Return the log-softmax of the actions."""
        log_p = acting_logits(said, behaviour).log_softmax(-1)
        return log_p.gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    def outward(self, actions: Tensor) -> Any:
        """Return choices counted from where the space starts."""
        return actions.cpu().numpy() + self.space.start


@dataclass(frozen=True)
class Vectors:
    """Vectors of numbers, drawn from N(μ, σ²); a policy returns μ and log σ.

    −1 … 1 stands for the bounds of the space, where it has any. What is stored and scored is what was drawn;
    only what is done is clipped to the bounds.
    """

    space: gym.spaces.Box
    spread: float  # how many σ a unit of noise is

    def random(self, steps: int, rows: int, generator: torch.Generator) -> Tensor:
        """Return normal noise."""
        shape = steps, rows, math.prod(self.space.shape)
        return torch.randn(shape, generator=generator, device=generator.device)

    def choose(self, said: Tensor, random: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return μ + σ · noise."""
        mean, log_std = said.unbind(-2)
        return torch.addcmul(mean, log_std.exp(), random, value=self.spread), None

    def log_probs(self, said: Tensor, actions: Tensor, behaviour: Behaviour) -> Tensor:
        """Return the log-density of the actions."""
        mean, log_std = said.unbind(-2)
        return log_density(mean, tempered(log_std, behaviour), actions)

    def outward(self, actions: Tensor) -> Any:
        """Return vectors scaled and clipped to the bounds."""
        centre, half = self._scale
        given = actions.cpu().numpy().reshape(-1, *self.space.shape)
        return (centre + half * given).clip(self.space.low, self.space.high).astype(self.space.dtype)

    @cached_property
    def _scale(self) -> tuple[Any, Any]:
        """The middle of the space and the distance of its bounds from it; 0 and 1 where there are none."""
        low, high = self.space.low, self.space.high
        bounded = np.isfinite(low) & np.isfinite(high)
        return np.where(bounded, low + high, 0.0) / 2, np.where(bounded, high - low, 2.0) / 2


Actions = Choices | Vectors


def chosen(space: gym.Space[Any], decode: Decode) -> Actions:
    """Return how actions of a space are chosen."""
    if not isinstance(decode, (Sample, Greedy, EpsilonGreedy)):
        raise TypeError(f"actions are chosen by Sample(…), Greedy() or EpsilonGreedy(…), got {decode!r:.60}")
    if isinstance(space, gym.spaces.Discrete):
        return Choices(space, decode)
    if not isinstance(space, gym.spaces.Box) or not np.issubdtype(space.dtype, np.floating):
        raise TypeError(
            f"actions must be Discrete, or a Box of floats, got {space}; a wrapper can make one of these of "
            "others: gymnasium.wrappers.TransformAction, say, of a MultiDiscrete the Discrete of all "
            "combinations"
        )
    if isinstance(decode, Greedy):
        return Vectors(space, 0.0)
    if isinstance(decode, Sample) and decode.top_k is None and decode.top_p in (None, 1):
        return Vectors(space, decode.temperature**0.5)
    raise TypeError(f"vectors are drawn, Sample(temperature), or taken at the mean, Greedy(); got {decode!r}")
