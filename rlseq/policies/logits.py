"""The logits of a linear head, for losses and penalties that look at every token of the vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rlseq.decode import acting_logits
from rlseq.types import Behaviour, Logits

CHUNK = 1 << 20  # logits held at a time; see rlseq.policies.head


@dataclass(frozen=True, eq=False)
class LinearLogits:
    """W [h; 1] of every state, made chunk by chunk, forward and again backward, and never kept."""

    features: Tensor  # h, [B, T, H]
    weight: Tensor  # W, [V, H + 1]
    behaviour: Behaviour

    def reduce(self, what: Callable[..., Tensor], *others: Logits | Tensor) -> Tensor:
        """See `rlseq.types.Logits`."""
        views: list[Logits | Tensor] = [self, *others]
        shape = self.features.shape[:2]
        step = max(1, CHUNK // len(self.weight))
        rows = torch.arange(shape[0] * shape[1], device=self.features.device)

        def chunk(rows: Tensor) -> Tensor:
            return what(*(_logits(view, rows) for view in views))

        parts = [checkpoint(chunk, some, use_reentrant=False) for some in torch.split(rows, step)]
        whole = torch.cat(parts)
        return whole.view(*shape, *whole.shape[1:])


def _logits(view: Logits | Tensor, rows: Tensor) -> Tensor:
    """Logits of the distribution that acts in some of the states, `[n, V]`."""
    if isinstance(view, Tensor):
        return view.flatten(0, 1)[rows]
    if not isinstance(view, LinearLogits):
        raise TypeError(f"logits of a linear head can be compared with their like, got {type(view).__name__}")
    features, (temperature, support) = view.features.flatten(0, 1)[rows], view.behaviour
    if support is not None and support.ndim > 1:
        shape = *view.features.shape[:2], len(view.weight)
        support = support.expand(shape).flatten(0, 1)[rows]
    z = F.pad(features, (0, 1), value=1.0) @ view.weight.t()
    return acting_logits(z, Behaviour(temperature, support))
