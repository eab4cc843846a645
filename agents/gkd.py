"""On-policy distillation: on texts of its own, a policy learns the probabilities of a teacher."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rlseq.engine.rollout import evaluate_frozen
from rlseq.policy_gradient.algorithm import frozen_copy
from rlseq.policy_gradient.baselines import Baseline, none
from rlseq.policy_gradient.factors import check_vocabulary
from rlseq.policy_gradient.losses import Aggregate, per_token
from rlseq.policy_gradient.sample_reuse import SampleReuse
from rlseq.types import Evaluation, LearningBatch, Logits

Distance = Callable[[Tensor, Tensor], Tensor]  # log π, log π_T, [n, V] each -> [n]


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return Σₐ p(a) (log p(a) − log q(a))."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def reverse_kl(ours: Tensor, teacher: Tensor) -> Tensor:
    """Return KL(π ‖ π_T), which is small where π writes nothing that the teacher would not."""
    return kl(ours, teacher)


def forward_kl(ours: Tensor, teacher: Tensor) -> Tensor:
    """Return KL(π_T ‖ π), which is small where π may write all that the teacher would."""
    return kl(teacher, ours)


def jensen_shannon(ours: Tensor, teacher: Tensor) -> Tensor:
    """Return ½ KL(π_T ‖ M) + ½ KL(π ‖ M),   M = ½ (π + π_T)."""
    middle = torch.logaddexp(ours, teacher) - math.log(2)
    return (kl(teacher, middle) + kl(ours, middle)) / 2


DISTANCES: dict[str, Distance] = {
    distance.__name__: distance for distance in (reverse_kl, forward_kl, jensen_shannon)
}


@dataclass(eq=False)
class GKD(SampleReuse):
    """Minimise E[ mean over tokens of D(π(·|s), π_T(·|s)) ], D over all words, in the states s of texts of π.

    Agarwal et al. 2024 with λ = 1: no gradient flows into how s was reached, and no reward is looked at.
    Several teachers are one, whose probabilities are the mean of theirs.
    """

    teacher: Sequence[Any] = ()  # folders of runs, or policies; the policy as it is now when not given
    distance: Distance = reverse_kl  # D: reverse_kl, forward_kl or jensen_shannon
    baseline: Baseline = none  # none is needed: no reward is looked at
    aggregate: Aggregate = per_token  # weight of each token in the loss (rlseq.losses)
    uses_task_reward: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        named = [each for each in self.teacher if not hasattr(each, "evaluate")]
        if named:
            raise TypeError(
                f"teacher must be policies here, got {named[0]!r:.80}; pass rlseq.load(…).policy, or name "
                "folders of runs to `rlseq train gkd --teacher`"
            )
        self.teachers = [*self.teacher] or [frozen_copy(self.policy)]

    def check(self, env: Any) -> None:
        """Refuse a task whose words are not those of every teacher."""
        super().check(env)
        for teacher in self.teachers:
            check_vocabulary(teacher, env, "teacher")

    def surrogate(self, evaluation: Evaluation, batch: LearningBatch) -> Tensor:
        """Return D from the mean of the teachers in every state."""
        theirs = [_logits(evaluate_frozen(teacher, batch)) for teacher in self.teachers]
        return _logits(evaluation).reduce(
            lambda z, *taught: self.distance(z.log_softmax(-1), mean_of(taught)), *theirs
        )


def mean_of(logits: Sequence[Tensor]) -> Tensor:
    """Return the logarithm of the mean of distributions that are given by logits, `[n, V]`."""
    log_probs = torch.stack([z.log_softmax(-1) for z in logits])
    return log_probs.logsumexp(0) - math.log(len(logits))


def _logits(evaluation: Evaluation) -> Logits:
    if evaluation.logits is None:
        raise ValueError(
            "distillation needs the probability of every word: let `evaluate` of policy and teacher return "
            "`logits` (rlseq.types.Evaluation)"
        )
    return evaluation.logits
