"""A2C: advantage actor–critic."""

from __future__ import annotations

from dataclasses import dataclass

from rlseq.policy_gradient.algorithm import PolicyGradient
from rlseq.policy_gradient.baselines import Baseline
from rlseq.policy_gradient.credit import Credit, Lambda
from rlseq.utils.arguments import Share, check_fields


@dataclass(eq=False)
class A2C(PolicyGradient):
    """∇J = E[ Σₜ (Gₜ^λ − V(sₜ)) ∇log π(aₜ|sₜ) ],   V regressed on Gₜ^λ by a head on the policy's trunk.

    λ = 0 is rₜ + γV(sₜ₊₁) − V(sₜ), λ = 1 the sampled return less V (Mnih et al. 2016; Schulman et al. 2016).
    """

    lam: Share = 0.95  # λ of the credit, where none is given
    credit: Credit | str = ""  # Q̂ (rlseq.policy_gradient.credit); the λ-return when not given
    baseline: Baseline | str = "value"  # b (rlseq.baselines, rlseq.policy_gradient.baselines)

    def __post_init__(self) -> None:
        check_fields(self)
        self.credit = self.credit or Lambda(self.lam)
        super().__post_init__()
