"""ES: evolution strategies, a gradient from the returns of policies whose parameters are perturbed."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from rlseq.agents.black_box import BlackBox, Directions, Shaping, centred_ranks, every_entry, seed_of
from rlseq.types import Metrics, Rollout
from rlseq.utils.arguments import Range
from rlseq.utils.ranks import this_rank
from rlseq.utils.vectors import flat


@dataclass(eq=False)
class Antithetic(BlackBox):
    """Pairs of policies θ ± σε along some directions ε, whose returns are compared."""

    population: Annotated[int, Range(2)] = 8  # N, perturbed policies, an even number that divides the rows
    fitness_shaping: Shaping = centred_ranks  # scores behind a step: centred_ranks of the returns, or none

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.population % 2:
            raise ValueError(
                f"perturbed policies come in pairs, θ + σε and θ − σε, got population={self.population}; "
                f"take {self.population - 1 or 2} or {self.population + 1}"
            )

    @abstractmethod
    def pairs(self, seed: int) -> Tensor:
        """Return ε of every pair, `[N/2, P]`."""

    def perturbations(self, seed: int) -> Tensor:
        """Return σε of the first half of the policies, −σε of the second."""
        steps = self.sigma * self.pairs(seed)
        return torch.cat([steps, -steps])

    def slope(self, scores: Tensor, directions: Tensor) -> Tensor:
        """Return the estimate of the gradient, `[P]`, from scores `[N]`."""
        up, down = scores.to(directions).view(2, -1)
        slope: Tensor = (up - down) / (2 * self.sigma) @ directions / len(directions)
        return slope

    def loss(self, batch: Rollout) -> tuple[Tensor, Metrics]:
        """Return a loss whose value is minus the mean return, and whose gradient is minus the estimate."""
        scores = self.scores(batch)
        slope = self.slope(self.fitness_shaping(scores), self.pairs(seed_of(batch)))
        theta = flat(self.parameters)
        loss = -(slope * (theta - theta.detach())).sum() - scores.mean()
        return loss / this_rank().of, {"score_std": scores.std(correction=0), "score_best": scores.max()}


@dataclass(eq=False)
class ES(Antithetic):
    """∇J ≈ E[ (J(θ + σε) − J(θ − σε)) / 2σ · ε ],   ε ~ N(0, I).

    Salimans et al. 2017; the pairs θ ± σε are "antithetic". For J as it is (`fitness_shaping="none"`) this is
    the gradient of J's mean under a normal distribution around θ, which is ∇J up to terms of σ².
    """

    directions: Directions = every_entry  # which ε are drawn: every_entry on its own, or low_rank matrices

    def pairs(self, seed: int) -> Tensor:
        """Return ε of every pair, `[N/2, P]`."""
        return self.drawn(self.directions, seed, self.population // 2)
