"""Running means and standard deviations, of observations and of returns."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlseq.utils.ranks import gathered


class RunningNorm(nn.Module):
    """(x − mean) / std, within ±10; the statistics change in `update_statistics` alone."""

    mean: Tensor
    square: Tensor
    count: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width, dtype=torch.float64))
        self.register_buffer("square", torch.ones(width, dtype=torch.float64))  # mean square deviation
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Return the scaled columns."""
        return ((x - self.mean.float()) * (self.square.float() + 1e-8).rsqrt()).clamp(-10, 10)

    @torch.no_grad()
    def update_statistics(self, x: Tensor) -> None:
        """Add rows `[n, width]`, and those of other ranks, to the statistics (Chan et al. 1979)."""
        x = x.double()
        numbers = gathered(torch.tensor([len(x)])).tolist()
        moments = torch.cat([x.mean(0), x.var(0, correction=0)]) if len(x) else x.new_zeros(2 * x.shape[1])
        for n, part in zip(numbers, gathered(moments.unsqueeze(0)), strict=True):
            if not n:
                continue
            mean, square = part.chunk(2)
            share, off = n / (self.count + n), mean - self.mean
            self.square += share * (square - self.square) + share * (1 - share) * off.square()
            self.mean += share * off
            self.count += n


class ReturnScale(nn.Module):
    """Rewards over the standard deviation of discounted returns so far (Engstrom et al. 2020).

    They keep their sign, and V of any task is of the order of 1.

    Args:
        gamma: the agent's discount.
    """

    def __init__(self, gamma: float = 0.99) -> None:
        super().__init__()
        self.gamma, self.seen = gamma, RunningNorm(1)
        self.running: Tensor | None = None  # of every row; not in checkpoints, as episodes end with a run

    def forward(self, rewards: Tensor, ends: Tensor) -> Tensor:
        """Return scaled rewards `[B, T]`; `ends` is True where an episode ended."""
        running = torch.zeros_like(rewards[:, 0]) if self.running is None else self.running
        sums = torch.empty_like(rewards)
        for t in range(rewards.shape[1]):
            sums[:, t] = running = self.gamma * running + rewards[:, t]
            running = running.where(~ends[:, t], 0.0)
        self.running = running
        self.seen.to(rewards.device).update_statistics(sums.reshape(-1, 1))
        return rewards * (self.seen.square.float() + 1e-8).rsqrt()
