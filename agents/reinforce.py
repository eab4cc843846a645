"""REINFORCE: the score-function policy gradient."""

from __future__ import annotations

from dataclasses import dataclass

from rlseq.policy_gradient.algorithm import PolicyGradient


@dataclass(eq=False)
class REINFORCE(PolicyGradient):
    """∇J = E[ Σₜ (Gₜ − b) ∇log π(aₜ|sₜ) ],   Gₜ = Σ_{t'≥t} γ^(t'−t) r_{t'}.

    Williams 1992, with any baseline; reward-to-go and b that have not seen aₜ keep it unbiased.
    """
