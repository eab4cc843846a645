"""Parts of an agent whose tensors a checkpoint keeps."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Stateful:
    """A part of an agent that learns beside the policy: its tensors are what a checkpoint must keep."""

    def state_dict(self) -> dict[str, Tensor]:
        """Its tensors by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from there, on the device where its tensors are."""
        for name, value in state.items():
            there = getattr(self, name, None)
            setattr(self, name, value.clone() if there is None else value.to(there.device, copy=True))


class UpdateCounter(Stateful):
    """How many updates are done, for what changes as they go on."""

    def __init__(self) -> None:
        self.updates = torch.zeros((), dtype=torch.int64)
