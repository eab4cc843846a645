"""RLOO: REINFORCE, leave one out."""

from __future__ import annotations

from dataclasses import dataclass

from rlseq.policy_gradient.algorithm import PolicyGradient
from rlseq.policy_gradient.baselines import Baseline, leave_one_out
from rlseq.utils.arguments import PositiveInt


@dataclass(eq=False)
class RLOO(PolicyGradient):
    """∇J = E[ Σₖ (Rₖ − mean_{j≠k} Rⱼ) Σₜ ∇log π(aₖₜ|…) ] / K,   K texts of the same context.

    Kool, van Hoof & Welling 2019; Ahmadian et al. 2024; "new self-critical" in captioning.
    """

    samples: PositiveInt = 4  # K, number of texts for each source
    baseline: Baseline = leave_one_out  # subtracted from the credit (rlseq.baselines)
