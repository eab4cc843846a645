"""MRT: minimum risk training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from rlseq.policy_gradient.baselines import Baseline, none
from rlseq.policy_gradient.losses import minimum_risk
from rlseq.policy_gradient.sample_reuse import SampleReuse
from rlseq.types import Evaluation, LearningBatch, Rollout
from rlseq.utils.arguments import Range, Sharpness
from rlseq.utils.masks import at_last


@dataclass(eq=False)
class MRT(SampleReuse):
    """Minimise E[ Σₖ Qₖ · (−Aₖ) ],   Q = softmaxₖ(α log π(yₖ|x)) over K sampled texts of a context.

    Shen et al. 2016. Q is made from the samples alone, so this follows a risk of its own, not the expected
    reward (Choshen et al. 2020): what is likely counts twice, once as it is sampled, once in Q. As α → 0,
    Q is 1/K and the gradient RLOO's times α(K−1)/K: small beside penalties, whose weights must be as small.
    """

    samples: Annotated[int, Range(2)] = 8  # K, number of texts for each source
    sharpness: Sharpness = 0.005  # α, sharpness of the weights
    baseline: Baseline = none  # none is needed: Q compares a text with its group

    def weight(self, evaluation: Evaluation, batch: Rollout) -> Tensor:
        """Return the scores of tokens whose sum Q is the softmax of."""
        return self.sharpness * evaluation.log_probs

    def surrogate(self, evaluation: Evaluation, batch: LearningBatch) -> Tensor:
        """Return −K Qₖ Aₖ on the last token; A of a text is that of its first token."""
        whole = (self.weight(evaluation, batch) * self.acted(batch).mask).sum(1)
        return at_last(minimum_risk(whole, batch.advantages[:, 0], batch.samples), batch.mask)


@dataclass(eq=False)
class MRTCorrected(MRT):
    """MRT whose Q = softmaxₖ(α (log π − log π_old)) allows for the texts being samples of π_old.

    On samples of π itself Q is 1/K, and with α = 1 the gradient is RLOO's times (K−1)/K.
    """

    sharpness: Sharpness = 1.0  # α, sharpness of the weights

    def weight(self, evaluation: Evaluation, batch: Rollout) -> Tensor:
        """Return the logarithm of the importance weight of a token, times α."""
        return self.sharpness * (evaluation.log_probs - batch.log_probs)
