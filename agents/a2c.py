"""A2C: advantage actor–critic."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlseq.policy_gradient.algorithm import PolicyGradient
from rlseq.policy_gradient.baselines import Baseline, Value
from rlseq.policy_gradient.credit import Credit, Lambda, own_credit
from rlseq.utils.arguments import TraceDecay


@dataclass(eq=False)
class A2C(PolicyGradient):
    """∇J = E[ Σₜ (Gₜ^λ − V(sₜ)) ∇log π(aₜ|sₜ) ],   V regressed on Gₜ^λ by a head on the policy's trunk.

    λ = 0 is rₜ + γV(sₜ₊₁) − V(sₜ), λ = 1 the sampled return less V (Mnih et al. 2016; Schulman et al. 2016).
    """

    lam: TraceDecay = 0.95  # λ of the λ-return, where no credit is given
    credit: Credit = own_credit  # value of an action; the λ-return when not given
    baseline: Baseline = field(default_factory=Value)  # subtracted from the credit (rlseq.baselines)

    def make_credit(self) -> Credit:
        """Make the λ-return."""
        return Lambda(self.lam)
