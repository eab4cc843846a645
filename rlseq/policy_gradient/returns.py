"""Returns with which actions are credited: pure functions of `[B, T]` tensors with any ends inside a row.

A row is cut after an action where an episode `ends`, and after the last one. What comes then is worth
`bootstrap`: 0 where the episode is over, V of the state reached where it merely was not followed further.
"""

from __future__ import annotations

import torch
from torch import Tensor


def reward_to_go(
    rewards: Tensor, ends: Tensor, gamma: float = 1.0, bootstrap: Tensor | None = None
) -> Tensor:
    """Gₜ = Σ_{t'≥t} γ^(t'−t) r_{t'}, within each episode.

    An action cannot change what was paid before it, so it is not credited with it.
    """
    return _discounted(rewards + gamma * _or_zero(bootstrap, rewards), ends, gamma)


def lambda_return(
    rewards: Tensor,
    values: Tensor,
    ends: Tensor,
    gamma: float = 1.0,
    lam: float = 0.95,
    bootstrap: Tensor | None = None,
) -> Tensor:
    """Gₜ^λ = Vₜ + Σ_l (γλ)^l δₜ₊ₗ,   δₜ = rₜ + γVₜ₊₁ − Vₜ   (Schulman et al. 2016: G^λ − V is "GAE").

    λ = 1 is the sampled return, λ = 0 the temporal difference's target rₜ + γVₜ₊₁.
    """
    return values + _discounted(_errors(rewards, values, ends, gamma, bootstrap), ends, gamma * lam)


def n_step(
    rewards: Tensor,
    values: Tensor,
    ends: Tensor,
    gamma: float = 1.0,
    n: int = 5,
    bootstrap: Tensor | None = None,
) -> Tensor:
    """Σ_{k<n} γᵏ rₜ₊ₖ + γⁿ Vₜ₊ₙ, or less of it where the row is cut: Vₜ + the next n errors, discounted."""
    errors = _errors(rewards, values, ends, gamma, bootstrap)
    going_on = _going_on(ends)
    total = torch.zeros_like(errors)
    for _ in range(n):  # Sₜ ← δₜ + γ Sₜ₊₁, n times
        following = torch.cat([total[:, 1:], torch.zeros_like(total[:, :1])], 1)
        total = errors + gamma * going_on * following
    return values + total


def _errors(rewards: Tensor, values: Tensor, ends: Tensor, gamma: float, bootstrap: Tensor | None) -> Tensor:
    """δₜ = rₜ + γVₜ₊₁ − Vₜ."""
    following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], 1)
    return rewards + gamma * (_or_zero(bootstrap, rewards) + _going_on(ends) * following) - values


def _discounted(amounts: Tensor, ends: Tensor, rate: float) -> Tensor:
    """Sₜ = xₜ + rate · Sₜ₊₁ within each episode."""
    carry = rate * _going_on(ends).to(amounts.dtype)
    sums, later = torch.empty_like(amounts), torch.zeros_like(amounts[:, 0])
    for t in reversed(range(amounts.shape[1])):
        sums[:, t] = later = amounts[:, t] + carry[:, t] * later
    return sums


def _going_on(ends: Tensor) -> Tensor:
    return (~ends).int()


def _or_zero(bootstrap: Tensor | None, rewards: Tensor) -> Tensor:
    return torch.zeros_like(rewards) if bootstrap is None else bootstrap
