"""The mode of modules, and the device of what holds tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound="Movable")


class Movable:
    """Something whose attributes are tensors, or hold some."""

    def to(self: M, device: torch.device) -> M:
        """Return a copy whose tensors are on a device."""
        moved = copy(self)
        vars(moved).update((k, value.to(device)) for k, value in vars(self).items() if hasattr(value, "to"))
        return moved


@contextmanager
def eval_mode(policy: Any) -> Iterator[None]:
    """Dropout off inside, and the mode of every module restored after."""
    modes = [(m, m.training) for m in policy.modules()] if isinstance(policy, nn.Module) else []
    for module, mode in modes:
        # cuDNN differentiates only RNNs that train; without dropout it is all the same.
        wanted = isinstance(module, nn.RNNBase) and not module.dropout
        if mode != wanted:
            _set_mode(module, wanted)
    try:
        yield
    finally:
        for module, mode in modes:
            if module.training != mode:
                _set_mode(module, mode)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Let no gradient reach the weights inside; it passes through the module to its inputs."""
    trained = [p for p in module.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def _set_mode(module: nn.Module, training: bool) -> None:
    """As `module.training = training`, without looking for parameters: this happens at every step."""
    object.__setattr__(module, "training", training)
