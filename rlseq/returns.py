"""What an action is given credit for."""

from __future__ import annotations

import torch
from torch import Tensor


def reward_to_go(rewards: Tensor, ends: Tensor, gamma: float = 1.0) -> Tensor:
    """Gₜ = Σ_{t'≥t} γ^(t'−t) r_{t'}, within each episode, `[B, T]`.

    An action cannot change what was paid before it, so it is not credited with it.
    """
    going_on = gamma * (~ends).to(rewards.dtype)
    returns, later = torch.empty_like(rewards), torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        returns[:, t] = later = rewards[:, t] + going_on[:, t] * later
    return returns


def at_last(value: Tensor, mask: Tensor) -> Tensor:
    """A value `[B]` on the last real action of every row, 0 elsewhere, `[B, T]`."""
    last = torch.arange(mask.shape[1], device=mask.device) == mask.sum(1, keepdim=True) - 1
    return torch.where(last, value.unsqueeze(1), 0)
