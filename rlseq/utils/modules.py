"""The mode of a module: training or evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


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


def _set_mode(module: nn.Module, training: bool) -> None:
    """As `module.training = training`, without looking for parameters: this happens at every step."""
    object.__setattr__(module, "training", training)
