"""Finite differences: a gradient parameter by parameter, the slow reference of all others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlseq.agents.black_box import Shaping, as_they_are
from rlseq.agents.es import Antithetic
from rlseq.utils.arguments import PositiveFloat


@dataclass(eq=False)
class FiniteDifferences(Antithetic):
    """∂J/∂θᵢ ≈ (J(θ + σeᵢ) − J(θ − σeᵢ)) / 2σ, of N/2 parameters i that are drawn anew for every batch.

    The derivatives by the others are estimated as 0, and these are multiplied by P/(N/2), so that the mean is
    right; N = 2P differentiates by all. Where J is sampled, a difference of two samples is divided by a small
    number, so that the estimate is very noisy.
    """

    sigma: PositiveFloat = 0.1  # step to either side of a parameter
    fitness_shaping: Shaping = as_they_are  # scores behind a step: the returns, or their centred_ranks

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.population > 2 * self.size:
            raise ValueError(
                f"{self.size} parameters have two neighbours each, got population={self.population}; take at "
                f"most {2 * self.size}, and more rows for each"
            )

    def pairs(self, seed: int) -> Tensor:
        """Return eᵢ of every pair, `[N/2, P]`."""
        order = torch.randperm(self.size, generator=torch.Generator().manual_seed(seed))
        chosen = order[: self.population // 2].to(self.parameters[0].device, non_blocking=True)
        return torch.nn.functional.one_hot(chosen, self.size).to(self.parameters[0].dtype)

    def slope(self, scores: Tensor, directions: Tensor) -> Tensor:
        """Return the derivatives by the chosen parameters, times the share that they stand for."""
        return super().slope(scores, directions) * self.size
