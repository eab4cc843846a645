"""Penalties that are added to a surrogate: the error of V, and what keeps a policy in place.

Pure functions of a policy's evaluation of a batch, `[B, T]` each. Kullback–Leibler divergences compare the
policy's `evaluation` with that of a `reference` policy at the same prefixes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from rlseq.engine.categorical import FORBIDDEN
from rlseq.engine.rollout import evaluate_actions, evaluate_frozen
from rlseq.policy_gradient.losses import kl_estimate
from rlseq.types import Evaluation, LearningBatch, Logits, Metrics
from rlseq.utils import ranks

Divergence = Callable[[Evaluation, Evaluation], Tensor]


def penalties(agent: Any, evaluation: Evaluation, batch: LearningBatch) -> tuple[Tensor, Metrics]:
    """Return the weighted sum of an agent's penalties over a batch, and each of them per token."""
    total, metrics = evaluation.log_probs.new_zeros(()), {}

    def add(name: str, weight: float, values: Tensor, counts: Tensor) -> None:
        nonlocal total
        amount = (values * counts).sum()
        total = total + weight * amount
        metrics[name] = ranks.total(amount.detach()) / ranks.total(counts.sum()).clamp(min=1e-12)

    if agent.value_weight and batch.values is not None and evaluation.values is not None:
        errors = (evaluation.values - batch.targets).square() / 2
        add("value_loss", agent.value_weight, errors, batch.weights)
    if agent.entropy:
        total = total - agent.entropy * (evaluation.entropy * batch.weights).sum()
    if agent.l2:
        add("l2_logits", agent.l2, l2_logits(evaluation), batch.weights)
    if agent.kl:
        reference = evaluate_frozen(agent.reference, batch)
        add("kl_reference", agent.kl, agent.divergence(evaluation, reference), batch.weights)
    if agent.mle and batch.demonstrations is not None:
        nll = -evaluate_actions(agent.policy, batch.demonstrations).log_probs
        add("nll", agent.mle, nll, batch.demonstrations.weights)
    return total, metrics


def l2_logits(evaluation: Evaluation) -> Tensor:
    """Return the mean over the vocabulary of z², which keeps softmax from saturating."""
    return _logits(evaluation).reduce(lambda z: z.where(z > FORBIDDEN / 2, 0.0).square().mean(-1))


def smoothed(evaluation: Evaluation, share: float) -> Tensor:
    """Return −log π of the target: the token, but for a `share` spread over all (Szegedy et al. 2016)."""
    if not share:
        return -evaluation.log_probs
    others = _logits(evaluation).reduce(lambda z: -z.log_softmax(-1).mean(-1))
    return share * others - (1 - share) * evaluation.log_probs


def full_kl(evaluation: Evaluation, reference: Evaluation) -> Tensor:
    """Return KL(π ‖ π_ref) = Σₐ π(a) (log π(a) − log π_ref(a)), summed over the whole vocabulary."""
    return _logits(evaluation).divergence(_logits(reference))


def k1(evaluation: Evaluation, reference: Evaluation) -> Tensor:
    """Return log π(a) − log π_ref(a) of the sampled tokens: unbiased, but its mean gradient is 0."""
    return evaluation.log_probs - reference.log_probs


def k2(evaluation: Evaluation, reference: Evaluation) -> Tensor:
    """Return ½ (log π(a) − log π_ref(a))²: a biased number whose mean gradient is that of `full_kl`."""
    return (evaluation.log_probs - reference.log_probs).square() / 2


def k3(evaluation: Evaluation, reference: Evaluation) -> Tensor:
    """Return ρ − 1 − log ρ with ρ = π_ref(a) / π(a): unbiased, never negative (Schulman 2020; GRPO).

    Its gradient is that of another divergence: E[(1 − ρ) ∇log π] = ∇KL(π_ref ‖ π).
    """
    return kl_estimate(reference.log_probs - evaluation.log_probs)


DIVERGENCES: dict[str, Divergence] = {"full_kl": full_kl, "k1": k1, "k2": k2, "k3": k3}


def _logits(evaluation: Evaluation) -> Logits:
    if evaluation.logits is None:
        raise ValueError(
            "this needs the probability of every token: let the policy's `evaluate` return `logits` "
            '(rlseq.types.Evaluation), or use an estimate from sampled tokens, such as divergence="k3"'
        )
    return evaluation.logits
