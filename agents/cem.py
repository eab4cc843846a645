"""CEM: the cross-entropy method, a normal distribution of policies that moves to the best of its samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from rlseq.agents.black_box import BlackBox, every_entry, seed_of
from rlseq.types import Metrics, Rollout
from rlseq.utils.arguments import NonNegativeFloat, OpenShare, PositiveFloat, Range
from rlseq.utils.ranks import this_rank
from rlseq.utils.stateful import Stateful, TensorState
from rlseq.utils.vectors import flat


class Deviation(TensorState):
    """The standard deviation of every parameter."""

    tensors: ClassVar = ("value",)

    def __init__(self, value: Tensor) -> None:
        self.value = value


@dataclass(eq=False)
class CEM(BlackBox):
    """Draw policies from N(θ, diag s²); move θ and s to the mean and the deviation of the best of them.

    Rubinstein 1999; Szita & Lőrincz 2006 add `noise` to s², so that it does not vanish too early. The policy
    that is trained is the mean, θ.
    """

    lr: Annotated[float, Range(0, 1, open_low=True)] = (
        0.5  # share of the way to the best policies in an update
    )
    clip_norm: PositiveFloat = 1e6  # moves of θ with a larger norm are scaled down to it
    sigma: PositiveFloat = 0.1  # deviation s of every parameter at first
    elites: OpenShare = 0.25  # share of the policies that are the best; at least two are
    noise: NonNegativeFloat = 0.01  # smallest deviation of a parameter

    def __post_init__(self) -> None:
        super().__post_init__()
        on_gpu = self.parameters[0].is_cuda  # where the fused step skips gradients that are no numbers
        self.optimizer = torch.optim.SGD(
            self.parameters, self.lr, weight_decay=self.weight_decay, fused=on_gpu or None
        )
        self.deviation = Deviation(torch.full_like(flat(self.parameters), self.sigma).detach())

    def stateful_parts(self) -> dict[str, Stateful]:
        """Return the parts that have a state, the deviations among them."""
        return {**super().stateful_parts(), "deviation": self.deviation}

    def perturbations(self, seed: int) -> Tensor:
        """Return s ε of every policy."""
        return self.deviation.value * self.drawn(every_entry, seed, self.population)

    def best(self, batch: Rollout) -> Tensor:
        """Return the perturbations of the best policies, `[elites, P]`."""
        number = max(2, math.ceil(self.elites * self.population))
        order = self.scores(batch).argsort(descending=True, stable=True)
        return self.perturbations(seed_of(batch))[order[:number]]

    def loss(self, batch: Rollout) -> tuple[Tensor, Metrics]:
        """Return ½ ‖θ − mean of the best‖², to which a step of plain descent goes the share `lr`."""
        scores, theta = self.scores(batch), flat(self.parameters)
        loss = (theta - theta.detach() - self.best(batch).mean(0)).square().sum() / 2
        return loss / this_rank().of, {"score_std": scores.std(correction=0), "score_best": scores.max()}

    def update(self, batch: Rollout) -> Metrics:
        """Move θ and s towards the best policies."""
        best, share = self.best(batch), self.optimizer.param_groups[0]["lr"]
        metrics = super().update(batch)
        self.deviation.value = torch.lerp(self.deviation.value, best.std(0), share).clamp(min=self.noise)
        return {**metrics, "deviation": self.deviation.value.mean()}
