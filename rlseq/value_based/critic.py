"""Q(s, a) of actions that are vectors, which no policy's head can list."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class VectorCritic(nn.Sequential):
    """A perceptron of two layers that reads an observation and an action.

    Args:
        width: numbers in an observation.
        actions: A, numbers in an action.
        hidden: width of the layers.
    """

    def __init__(self, width: int, actions: int, hidden: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the same weights in every run
            super().__init__(
                nn.Linear(width + actions, hidden),
                nn.ReLU(),
                nn.Linear(hidden, hidden),
                nn.ReLU(),
                nn.Linear(hidden, 1),
            )

    def of(self, observed: Tensor, actions: Tensor) -> Tensor:
        """Return Q `[n]` of observations `[n, …]` and actions `[n, A]`."""
        q: Tensor = self(torch.cat([observed.flatten(1), actions], 1))
        return q.squeeze(1)
