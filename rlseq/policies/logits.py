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

    def divergence(self, other: Logits) -> Tensor:
        """Over the whole vocabulary."""
        return self.reduce(divergence, other)


def divergence(z: Tensor, other: Tensor) -> Tensor:
    """Σₐ π(a) (log π(a) − log π_other(a)) of logits `[…, V]`."""
    log_p, log_q = z.log_softmax(-1), other.log_softmax(-1)
    if log_p.shape != log_q.shape:
        raise ValueError(
            f"policies of {log_p.shape[-1]} and {log_q.shape[-1]} words cannot be compared; "
            "the reference policy must write the same vocabulary"
        )
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def _logits(view: Logits | Tensor, rows: Tensor) -> Tensor:
    """Logits of the distribution that acts in some of the states, `[n, V]`."""
    if isinstance(view, Tensor):
        return view.flatten(0, 1)[rows]
    if not isinstance(view, LinearLogits):
        raise TypeError(f"logits of a linear head can be compared with their like, got {type(view).__name__}")
    features, behaviour = view.features.flatten(0, 1)[rows].to(view.weight.dtype), view.behaviour
    support = behaviour.support
    if support is not None and support.ndim > 1:  # a view: nothing is copied to all rows
        steps = view.features.shape[1]
        support = support.expand(*view.features.shape[:2], len(view.weight))[rows // steps, rows % steps]
    z = F.pad(features, (0, 1), value=1.0) @ view.weight.t()
    return acting_logits(z, behaviour._replace(support=support))
