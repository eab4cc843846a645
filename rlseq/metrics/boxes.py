"""Figures of a set of boxes, written as the numbers of candidates: F1, and average precision.

The context holds `overlap`, of candidates with objects `[B, N, M]`, and the number of `objects`, `[B]`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlseq.types import Context

HIT = 0.5  # overlap from which a box has found an object
STRICTER = tuple(0.5 + 0.05 * n for n in range(10))  # overlaps over which average precision is averaged


def hits(tokens: Tensor, mask: Tensor, overlap: Tensor, least: float) -> Tensor:
    """Return where a box is the first to find an object, that of those left which it overlaps most, `[B, T]`.

    Args:
        tokens: numbers of candidates from 1, `[B, T]`; 0 is none.
        mask: True on real tokens, `[B, T]`.
        overlap: of candidates with objects, `[B, N, M]`.
        least: overlap from which an object is found.
    """
    rows, found = torch.arange(len(tokens), device=tokens.device), []
    left = torch.ones(len(tokens), overlap.shape[2], dtype=torch.bool, device=tokens.device)
    for number, real in zip(tokens.unbind(1), (mask & (tokens > 0)).unbind(1), strict=True):
        most, which = (overlap[rows, (number - 1).clamp(min=0)] * left).max(1)
        hit = real & (most >= least)
        left[rows, which] &= ~hit
        found.append(hit)
    return torch.stack(found, 1)


def f1_so_far(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    """Return F1 = 2 · hits / (boxes + objects) of the first t boxes, `[B, T]`."""
    found = hits(tokens, mask, context["overlap"], HIT).cumsum(1)
    boxes = (mask & (tokens > 0)).cumsum(1)
    return 2 * found / (boxes + context["objects"].unsqueeze(1)).clamp(min=1)


def f1(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    """Return F1 of the set, `[B]`."""
    return f1_so_far(tokens, mask, context)[:, -1]


def f1_steps(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    """Return what each box adds to F1, `[B, T]`."""
    so_far = f1_so_far(tokens, mask, context)
    return so_far.diff(dim=1, prepend=torch.zeros_like(so_far[:, :1]))


def average_precision(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    """Return Σ precision at each hit / objects, the mean over overlaps from 0.5 to 0.95, `[B]`."""
    boxes, total = (mask & (tokens > 0)).cumsum(1).clamp(min=1), torch.zeros(len(tokens), device=mask.device)
    for least in STRICTER:
        found = hits(tokens, mask, context["overlap"], least)
        total += (found * found.cumsum(1) / boxes).sum(1) / context["objects"].clamp(min=1)
    return total / len(STRICTER)
