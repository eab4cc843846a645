"""Learning from pairs of samples that a metric orders: DPO, and CPO without a reference policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from rlseq.policy_gradient.baselines import Baseline, none
from rlseq.policy_gradient.losses import preference
from rlseq.policy_gradient.sample_reuse import SampleReuse
from rlseq.types import Evaluation, LearningBatch, Metrics
from rlseq.utils.arguments import NonNegativeFloat, PositiveFloat, Range
from rlseq.utils.masks import at_last


@dataclass(eq=False)
class DPO(SampleReuse):
    """Minimise E[ −log σ(β log π/π_ref(y⁺) − β log π/π_ref(y⁻)) ], y⁺ the best and y⁻ the worst of K samples.

    Rafailov et al. 2023; the pairs are fresh, and ordered by the reward. With `credit="consensus"` they are
    ordered by expected utility: MBR-DPO (Yang et al. 2023). Where all K texts earn the same there is no pair,
    and the loss is 0; the share of such groups is logged as `ties`.
    """

    samples: Annotated[int, Range(2)] = 2  # K, number of texts for each source
    baseline: Baseline = none  # none is needed: only the order counts
    beta: PositiveFloat = 0.1  # β: the smaller, the further the policy may leave the reference
    compares_with_reference: ClassVar[bool] = True

    def scores(self, evaluation: Evaluation, batch: LearningBatch) -> Tensor:
        """Return β log π/π_ref of every token, `[B, T]`."""
        assert batch.reference_log_probs is not None
        return self.beta * (evaluation.log_probs - batch.reference_log_probs)

    def surrogate(self, evaluation: Evaluation, batch: LearningBatch) -> Tensor:
        """Return the loss of each group on the last tokens of its texts."""
        scores = (self.scores(evaluation, batch) * self.acted(batch).mask).sum(1)
        losses = preference(scores, batch.advantages[:, 0], batch.samples)
        return at_last(losses.repeat_interleave(batch.samples), batch.mask)

    def token_metrics(self, evaluation: Evaluation, batch: LearningBatch) -> Metrics:
        """Return where the texts of a source earn the same."""
        ranks = batch.advantages[:, 0].view(-1, batch.samples)
        ties = (ranks == ranks[:, :1]).all(1).repeat_interleave(batch.samples)
        return {"ties": ties.unsqueeze(1).expand_as(batch.rewards).float()}


@dataclass(eq=False)
class CPO(DPO):
    """Minimise E[ −log σ(β log π(y⁺) − β log π(y⁻)) − λ log π(y⁺) ], DPO with a uniform reference.

    Xu et al. 2024, for translation. The likelihood of y⁺ stands in for the reference policy.
    """

    likelihood: NonNegativeFloat = 1.0  # λ, weight of the likelihood of the better text
    compares_with_reference: ClassVar[bool] = False

    def scores(self, evaluation: Evaluation, batch: LearningBatch) -> Tensor:
        """Return β log π of every token, `[B, T]`."""
        return self.beta * evaluation.log_probs

    def surrogate(self, evaluation: Evaluation, batch: LearningBatch) -> Tensor:
        """Return the loss of each group, and the likelihood of its best text where there is a pair."""
        ranks = batch.advantages[:, 0].view(-1, batch.samples)
        first = ranks.new_zeros(ranks.shape).scatter(1, ranks.argmax(1, keepdim=True), batch.samples)
        better = first * (ranks != ranks[:, :1]).any(1, keepdim=True)
        nll = -evaluation.log_probs * better.view(-1, 1)
        return super().surrogate(evaluation, batch) + self.likelihood * nll
