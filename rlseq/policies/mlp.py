"""Multi-layer perceptron: a policy without memory, for observations of fixed size (`rlseq.adapters`).

π(·|s) and V(s) of a standardised observation s; both on one trunk, or on two that are computed side by side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import gymnasium as gym
import torch
from torch import Tensor, nn

from rlseq.policies.control_heads import Categorical, Gaussian
from rlseq.policies.normalize import RunningNorm
from rlseq.types import RAW, BasePolicy, Behaviour, Context, Evaluation, Rollout
from rlseq.utils.arguments import PositiveInt, checked_arguments


@dataclass(frozen=True)
class ControlSpec:
    """The sizes of what a policy observes, and the kind of its actions."""

    width: int  # numbers in an observation
    actions: int  # choices, or the width of a vector
    continuous: bool  # a vector?

    @classmethod
    def of(cls, env: Any) -> ControlSpec:
        """Return those of a `rlseq.adapters.GymEnv`."""
        space = getattr(env, "single_action_space", None)
        observed = getattr(env, "single_observation_space", None)
        if not isinstance(observed, gym.spaces.Box):
            raise TypeError(
                f"an mlp reads observations of fixed size, as those of rlseq.adapters.GymEnv, not those of "
                f'{type(env).__name__}; texts are written by "lstm", "gru", "seq2seq" or "transformer"'
            )
        if isinstance(space, gym.spaces.Discrete):
            return cls(math.prod(observed.shape), int(space.n), False)
        assert isinstance(space, gym.spaces.Box)  # a GymEnv refuses other spaces
        return cls(math.prod(observed.shape), math.prod(space.shape), True)


class MLP(BasePolicy):
    """A perceptron of tanh layers, and a head for choices or for vectors.

    Args:
        signals: what is observed, and how to act.
        hidden: H, width of the layers.
        layers: their number.
        value: add V(s).
        shared: one trunk for π and V; else one each.
        standardise: scale observations to mean 0 and standard deviation 1, as estimated from earlier batches.
        log_std: log σ of vectors at first.
    """

    @checked_arguments
    def __init__(
        self,
        signals: ControlSpec,
        *,
        hidden: PositiveInt = 64,
        layers: PositiveInt = 2,
        value: bool = False,
        shared: bool = False,
        standardise: bool = False,
        log_std: float = 0.0,
    ) -> None:
        super().__init__()
        self.signals = signals
        self.scale = RunningNorm(signals.width) if standardise else None
        self.trunks = Trunks(1 if shared or not value else 2, signals.width, hidden, layers)
        self.actor: Gaussian | Categorical = (
            Gaussian(hidden, signals.actions, log_std)
            if signals.continuous
            else Categorical(hidden, signals.actions)
        )
        self.critic = nn.Linear(hidden, 1) if value else None
        if self.critic is not None:
            nn.init.orthogonal_(self.critic.weight)
            nn.init.zeros_(self.critic.bias)

    def start(self, context: Context) -> tuple[()]:
        """Return an empty state."""
        return ()

    def step(self, observation: Tensor, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
        """Read an observation `[B, …]`; return logits `[B, n]`, or mean and log σ `[B, 2, A]`."""
        return self.actor(self.trunks.alone(0, self._scaled(observation.flatten(1)))), state

    def values_of_states(self, observed: Tensor) -> Tensor | None:
        """Return V of states `[n, …]`, without the scores of `evaluate`."""
        if self.critic is None:
            return None
        v: Tensor = self.critic(self.trunks.alone(-1, self._scaled(observed.flatten(1))))
        return v.squeeze(1)

    def evaluate(self, actions: Tensor, context: Context, behaviour: Behaviour = RAW) -> Evaluation:
        """Score actions in the states in which they were chosen: `context["observation"]`, `[B, T, …]`."""
        observed = context["observation"]
        rows, steps = observed.shape[:2]
        x = self._scaled(observed.reshape(rows * steps, -1))
        features = self.trunks(x).unbind()  # the first for π, the last for V: one gradient, not a sum of two
        evaluation = self.actor.evaluate(features[0].view(rows, steps, -1), actions, behaviour)
        if self.critic is None:
            return evaluation
        return evaluation._replace(values=self.critic(features[-1]).view(rows, steps))

    def update_statistics(self, batch: Rollout) -> None:
        """Update the mean and the standard deviation of observations."""
        if self.scale is not None:
            self.scale.update_statistics(batch.context["observation"][batch.mask].flatten(1))

    def _scaled(self, observed: Tensor) -> Tensor:
        return observed if self.scale is None else self.scale(observed)


class Trunks(nn.Sequential):
    """k perceptrons of one shape, computed with one product a layer."""

    def __init__(self, k: int, width: int, hidden: int, layers: int) -> None:
        widths = [width] + [hidden] * layers
        super().__init__(*(StackedLayer(k, a, b) for a, b in pairwise(widths)))
        self.k = k

    def forward(self, x: Tensor) -> Tensor:
        """Map `[n, width]` to `[k, n, H]`."""
        x = x.expand(self.k, *x.shape)
        for layer in self:
            x = layer(x)
        return x

    def alone(self, which: int, x: Tensor) -> Tensor:
        """Map `[n, width]` to `[n, H]`, by one of them."""
        for layer in self:
            weight, bias = cast(StackedLayer, layer).weight, cast(StackedLayer, layer).bias
            x = torch.addmm(bias[which], x, weight[which]).tanh()
        return x


class StackedLayer(nn.Module):
    """The maps tanh(x W + b) of k perceptrons."""

    def __init__(self, k: int, width: int, hidden: int) -> None:
        super().__init__()
        weights = [nn.init.orthogonal_(torch.empty(width, hidden), gain=math.sqrt(2)) for _ in range(k)]
        self.weight, self.bias = nn.Parameter(torch.stack(weights)), nn.Parameter(torch.zeros(k, 1, hidden))

    def forward(self, x: Tensor) -> Tensor:
        """Map `[k, n, width]` to `[k, n, H]`."""
        return torch.baddbmm(self.bias, x, self.weight).tanh()
