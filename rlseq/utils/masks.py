"""Masks over the steps of a batch `[B, T]`."""

from __future__ import annotations

import torch
from torch import Tensor


def token_rewards(value: Tensor, mask: Tensor) -> Tensor:
    """A reward as it is paid, `[B, T]`: one `[B]` at the last token."""
    return value if value.dim() == 2 else at_last(value, mask)


def steps_of(totals: Tensor) -> Tensor:
    """Return what each step adds to a running total `[B, T]`, which is 0 before the first."""
    return torch.diff(totals, dim=1, prepend=torch.zeros_like(totals[:, :1]))


def at_last(value: Tensor, mask: Tensor) -> Tensor:
    """A value `[B]` on the last real action of every row, 0 elsewhere, `[B, T]`."""
    last = torch.arange(mask.shape[1], device=mask.device) == mask.sum(1, keepdim=True) - 1
    return torch.where(last, value.unsqueeze(1), 0)


def last_of(mask: Tensor) -> Tensor:
    """True on the last real action of every row, `[B, T]`."""
    following = torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], 1)
    return mask & ~following


def lengths_of(mask: Tensor) -> Tensor:
    """The number of steps up to the last real action of every row, at least 1, `[B]`."""
    return (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax(1).clamp(min=1)


def until(lengths: Tensor, steps: int) -> Tensor:
    """True on the first steps of every row, as many as its length `[B]`, `[B, T]`."""
    return torch.arange(steps, device=lengths.device) < lengths.unsqueeze(1)
