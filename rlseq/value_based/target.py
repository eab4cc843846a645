"""`TargetCopy`: an earlier state of a network, on whose values a network is regressed."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn


class TargetCopy:
    """A frozen copy of a network, which follows it: θ̂ ← θ̂ + share · (θ − θ̂), every so many steps.

    With share = 1 the copy is replaced (Mnih et al. 2015); with a small share at every step it follows
    slowly (Lillicrap et al. 2016).

    Args:
        network: the network that learns.
        every: C, number of steps between two changes of the copy.
        share: how much of the difference is made up.
    """

    def __init__(self, network: nn.Module, every: int, share: float) -> None:
        self.network = deepcopy(network).requires_grad_(False)
        self.every, self.share = every, share
        self.steps = 0

    @torch.no_grad()
    def follow(self, network: nn.Module) -> None:
        """Count a step of the network that learns, and change the copy if it is due."""
        self.steps += 1
        if self.steps % self.every:
            return
        mine: list[Tensor] = [*self.network.parameters()]
        others: list[Tensor] = [*network.parameters()]
        if self.share == 1:
            torch._foreach_copy_(mine, others)
        else:
            torch._foreach_lerp_(mine, others, self.share)
        for copied, buffer in zip(self.network.buffers(), network.buffers(), strict=True):
            copied.copy_(buffer)

    def state_dict(self) -> dict[str, Any]:
        """Return the weights of the copy and the number of steps."""
        return {"network": self.network.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        self.network.load_state_dict(state["network"])
        self.steps = state["steps"]
