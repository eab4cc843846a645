"""SCST: self-critical sequence training."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlseq.policy_gradient.algorithm import PolicyGradient
from rlseq.policy_gradient.baselines import Baseline, GreedyReturn


@dataclass(eq=False)
class SCST(PolicyGradient):
    """∇J = E[ (R(y) − R(ŷ)) Σₜ ∇log π(yₜ|…) ],   ŷ the greedy text of the same context.

    What the model writes when it is used is the baseline (Rennie et al. 2017). "ReMax" (Li et al. 2024) is
    the same estimator.
    """

    baseline: Baseline = field(default_factory=GreedyReturn)  # subtracted from the credit (rlseq.baselines)
