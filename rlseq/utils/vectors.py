"""Several tensors as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def flat(tensors: Iterable[Tensor]) -> Tensor:
    """Return tensors as one vector."""
    return torch.cat([tensor.flatten() for tensor in tensors])


@torch.no_grad()
def assign(parameters: Sequence[Tensor], vector: Tensor) -> None:
    """Set parameters to the entries of a vector, in the order of `flat`."""
    parts = torch.split(vector, [p.numel() for p in parameters])
    for p, part in zip(parameters, parts, strict=True):
        p.copy_(part.view_as(p))
