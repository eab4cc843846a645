"""Regression of log-ratios on rewards: DRO, and by its baseline Kimi's, A*PO's and REINVENT's loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from rlseq.policy_gradient.baselines import Baseline, OptimalValue, group_mean
from rlseq.policy_gradient.sample_reuse import SampleReuse
from rlseq.types import Evaluation, LearningBatch
from rlseq.utils.arguments import PositiveFloat, PositiveInt
from rlseq.utils.masks import at_last


@dataclass(eq=False)
class DRO(SampleReuse):
    """Minimise E[ (R − b − β log π/π_ref(y))² ] / 2β, a regression of the log-ratio of a text on its return.

    For the policy that maximises E[R] − β KL(π ‖ π_ref) the residual is 0, if b is β log E_ref[exp(R/β)]. On
    fresh samples, with a b that has not seen the text, the gradient is that of this objective. The baseline
    tells the members of the family apart: `value` is DRO (Richemond et al. 2024), `group_mean` Kimi's (2025),
    `optimal_value` A*PO (Brantley et al. 2025), `none` REINVENT (Olivecrona et al. 2017), whose σ is 1/β.
    """

    samples: PositiveInt = 4  # K, number of texts for each source
    baseline: Baseline = group_mean  # subtracted from the credit (rlseq.baselines)
    beta: PositiveFloat = 0.1  # β: the larger, the nearer the policy stays to the reference
    compares_with_reference: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.baseline, OptimalValue) and self.baseline.beta != self.beta:
            raise ValueError(
                f"the β of optimal_value must be the agent's, got {self.baseline.beta} and {self.beta}; "
                f"pass baseline=OptimalValue({self.beta})"
            )

    def surrogate(self, evaluation: Evaluation, batch: LearningBatch) -> Tensor:
        """Return (A − β log π/π_ref)² / 2β on the last token; A of a text is that of its first token."""
        assert batch.reference_log_probs is not None
        log_ratio = evaluation.log_probs - batch.reference_log_probs
        whole = (log_ratio * self.acted(batch).mask).sum(1)
        return at_last((batch.advantages[:, 0] - self.beta * whole).square() / (2 * self.beta), batch.mask)
