"""REINFORCE: the score-function policy gradient."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rlseq.agent import PolicyGradient
from rlseq.baselines import BASELINES, Baseline
from rlseq.errors import pick
from rlseq.returns import reward_to_go
from rlseq.types import Rollout


@dataclass(eq=False)
class REINFORCE(PolicyGradient):
    """∇J = E[ Σₜ (Gₜ − b) ∇log π(aₜ|sₜ) ],   Gₜ = Σ_{t'≥t} γ^(t'−t) r_{t'}.

    Williams 1992; reward-to-go and state-independent baselines keep it unbiased.
    """

    gamma: float = 1.0  # discount
    baseline: Baseline | str = "mean"  # none, mean, moving_average, or a function (returns, mask) -> b

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.baseline, str):
            self.baseline = pick(BASELINES, self.baseline, "baseline")()

    def advantages(self, batch: Rollout) -> Tensor:
        """Gₜ − b."""
        returns = reward_to_go(batch.rewards, batch.ends, self.gamma)
        return returns - self.baseline(returns, batch.mask)  # type: ignore[operator]
