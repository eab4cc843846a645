"""What a return is compared with. A baseline is any function of `(returns, mask)`, both `[B, T]`.

To leave the gradient unbiased, it may not depend on the action that it judges: these look only at other
rows of the batch, or at earlier batches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

Baseline = Callable[[Tensor, Tensor], Tensor]


def none(returns: Tensor, mask: Tensor) -> Tensor:
    """B = 0."""
    return torch.zeros_like(returns)


def mean(returns: Tensor, mask: Tensor) -> Tensor:
    """bₜ of row i = mean over the other rows j ≠ i of G_{j,t}.

    With its own row in the mean, the estimate would shrink by (B−1)/B; leaving it out costs nothing.
    """
    others = mask.sum(0) - mask.int()
    return ((returns * mask).sum(0) - returns * mask) / others.clamp(min=1)


@dataclass(eq=False)
class MovingAverage:
    """b = average of all returns of earlier batches, forgetting at rate `decay` (Williams 1992, §4)."""

    decay: float = 0.9
    average: Tensor = field(default_factory=lambda: torch.zeros(()))
    weight: Tensor = field(default_factory=lambda: torch.zeros(()))

    def __call__(self, returns: Tensor, mask: Tensor) -> Tensor:
        """The average before this batch; 0 before the first."""
        baseline = (self.average / self.weight.clamp(min=1e-8)).to(returns.device)
        now = (returns * mask).sum() / mask.sum().clamp(min=1)
        self.average = self.decay * self.average.to(now.device) + (1 - self.decay) * now
        self.weight = self.decay * self.weight.to(now.device) + (1 - self.decay)
        return baseline.expand_as(returns)


BASELINES: dict[str, Callable[[], Baseline]] = {
    "none": lambda: none,
    "mean": lambda: mean,
    "moving_average": MovingAverage,
}
