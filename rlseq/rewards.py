"""Small rewards: functions `(tokens, mask, context) -> [B]` of texts against their references."""

from __future__ import annotations

import torch
from torch import Tensor

from rlseq.types import Context


def accuracy(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    """Share of positions written right, out of the longer of text and reference; EOS is a position."""
    right, longest = _compare(tokens, mask, context)
    return right / longest


def exact(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    """1 where the text is its reference, EOS included, else 0."""
    right, longest = _compare(tokens, mask, context)
    return (right == longest).float()


def _compare(tokens: Tensor, mask: Tensor, context: Context) -> tuple[Tensor, Tensor]:
    reference, length = context["reference"], context["reference_length"]
    real = torch.arange(tokens.shape[1], device=tokens.device) < length.unsqueeze(1)
    right = ((tokens == reference) & mask & real).sum(1)
    return right, torch.maximum(mask.sum(1), length).clamp(min=1)
