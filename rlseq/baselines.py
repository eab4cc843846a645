"""What a return is compared with: any function `(returns [B, T], batch) -> b`, broadcastable to `[B, T]`.

To leave the gradient unbiased, b may not depend on the action that it judges: these look at other texts,
at what was written before the action, or at earlier batches. `group_mean` is the one exception, and says so.

One that learns has `learn(returns, batch)`, called when the batch has been judged, and `forget()`, called
when the reward has become another one, as a discriminator's does. Baselines that look further than the
batch, at greedy texts or values, are in `rlseq.critics`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlseq.arguments import Checked, Share
from rlseq.state import Remembers
from rlseq.types import Rollout

Baseline = Callable[[Tensor, Rollout], Tensor]


def none(returns: Tensor, batch: Rollout) -> Tensor:
    """B = 0."""
    return torch.zeros_like(returns)


@dataclass(frozen=True)
class Constant(Checked):
    """B = a threshold, which gives an always positive reward both signs."""

    threshold: float

    def __call__(self, returns: Tensor, batch: Rollout) -> Tensor:
        """The threshold everywhere."""
        return torch.full_like(returns, self.threshold)


def mean(returns: Tensor, batch: Rollout) -> Tensor:
    """bₜ of row i = mean over the other rows j ≠ i of G_{j,t}.

    With its own row in the mean, the estimate would shrink by (B−1)/B; leaving it out costs nothing.
    """
    others = batch.mask.sum(0) - batch.mask.int()
    return ((returns * batch.mask).sum(0) - returns * batch.mask) / others.clamp(min=1)


def leave_one_out(returns: Tensor, batch: Rollout) -> Tensor:
    """Mean R of the other K−1 texts of the same context, less what is paid already (Kool et al. 2019)."""
    total = returns[:, 0].view(-1, batch.samples)
    others = (total.sum(1, keepdim=True) - total) / (batch.samples - 1)
    return others.flatten().unsqueeze(1) - paid(batch)


def group_mean(returns: Tensor, batch: Rollout) -> Tensor:
    """Mean R of all K texts of the context: A is that of `leave_one_out` times (K−1)/K (GRPO)."""
    total = returns[:, 0].view(-1, batch.samples).mean(1)
    return total.repeat_interleave(batch.samples).unsqueeze(1) - paid(batch)


@dataclass(eq=False)
class MovingAverage(Remembers, Checked):
    """b = average of all returns of earlier batches, forgetting at rate `decay` (Williams 1992, §4)."""

    decay: Share = 0.9
    average: Tensor = field(default_factory=lambda: torch.zeros(()))
    weight: Tensor = field(default_factory=lambda: torch.zeros(()))

    def __call__(self, returns: Tensor, batch: Rollout) -> Tensor:
        """The average before this batch; 0 before the first."""
        return (self.average / self.weight.clamp(min=1e-8)).to(returns.device).expand_as(returns)

    def learn(self, returns: Tensor, batch: Rollout) -> None:
        """Take this batch in."""
        now = (returns * batch.mask).sum() / batch.mask.sum().clamp(min=1)
        self.average = self.decay * self.average.to(now.device) + (1 - self.decay) * now
        self.weight = self.decay * self.weight.to(now.device) + (1 - self.decay)

    def forget(self) -> None:
        """Start anew: the reward is another one."""
        self.average, self.weight = torch.zeros_like(self.average), torch.zeros_like(self.weight)


def paid(batch: Rollout) -> Tensor:
    """What was paid before each action: nobody chooses that any more, so it may be subtracted."""
    return batch.rewards.cumsum(1) - batch.rewards
