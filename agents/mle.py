"""Maximum likelihood (cross-entropy, teacher forcing, behaviour cloning)."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rlseq.engine.references import check_has_references, length_bucket, sample_references, trimmed
from rlseq.engine.rollout import evaluate_actions
from rlseq.mdp.sequence_env import sequence_env
from rlseq.policy_gradient.agent import Agent
from rlseq.policy_gradient.losses import per_token
from rlseq.policy_gradient.penalties import smoothed
from rlseq.types import Metrics, Rollout
from rlseq.utils.arguments import Smoothing
from rlseq.utils.ranks import total


@dataclass(eq=False)
class MLE(Agent):
    """Minimise −log π(y*ₜ | y*₍₁…ₜ₋₁₎, source) of the references, mean over tokens."""

    smoothing: Smoothing = 0.0  # label smoothing: share of the target that is spread over the vocabulary

    def check(self, env: Any) -> None:
        """Refuse a task without references."""
        check_has_references(sequence_env(env))

    def collect(self, env: Any) -> Rollout:
        """Return references of random items, of similar length where the task can draw them so."""
        return trimmed(sample_references(env, length_bucket(env)), env)

    def loss(self, batch: Rollout) -> tuple[Tensor, Metrics]:
        """Return the negative log-likelihood, nats per token."""
        weights = per_token(batch.mask)
        evaluation = evaluate_actions(self.policy, batch, mode=nullcontext)
        nll = total(-(evaluation.log_probs.detach() * weights).sum())
        return (smoothed(evaluation, self.smoothing) * weights).sum(), {"nll": nll}
