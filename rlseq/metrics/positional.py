"""Rewards that are functions `(tokens, mask, context) -> [B]`, by the references of the context."""

from __future__ import annotations

import torch
from torch import Tensor

from rlseq.types import Context


def accuracy(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    """Return the share of positions that are right, of the longer of text and reference; EOS is a position.

    The best over an item's references.
    """
    right, longest = _compare(tokens, mask, context)
    return (right / longest).amax(1)


def exact(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    """Return 1 where the text is one of its references, EOS included, else 0."""
    right, longest = _compare(tokens, mask, context)
    return (right == longest).any(1).float()


def _compare(tokens: Tensor, mask: Tensor, context: Context) -> tuple[Tensor, Tensor]:
    """Count the positions that are right, and all positions, for each reference, `[B, R]`."""
    references, lengths = context["references"], context["reference_lengths"]
    width = min(tokens.shape[1], references.shape[2])
    real = torch.arange(width, device=tokens.device) < lengths.unsqueeze(2)
    same = tokens[:, None, :width] == references[:, :, :width]
    right = (same & real & mask[:, None, :width]).sum(2)
    return right, torch.maximum(mask.sum(1, keepdim=True), lengths).clamp(min=1)
