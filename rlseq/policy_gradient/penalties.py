"""What is added to a surrogate: the error of V, and what keeps a policy in place.

Pure functions of a policy's second look, `[B, T]` each. Kullback–Leibler divergences compare the policy
(`seen`) with another one (`anchor`) at the same prefixes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from rlseq.engine.categorical import FORBIDDEN
from rlseq.engine.rollout import evaluate_actions, evaluate_frozen
from rlseq.types import Evaluation, Logits, Metrics, Rollout

Divergence = Callable[[Evaluation, Evaluation], Tensor]


def penalties(agent: Any, seen: Evaluation, batch: Rollout) -> tuple[Tensor, Metrics]:
    """Every penalty that an agent asks for: their weighted sum over a batch, and each alone, per token."""
    total, metrics = seen.log_probs.new_zeros(()), {}

    def add(name: str, weight: float, values: Tensor, counts: Tensor) -> None:
        nonlocal total
        amount = (values * counts).sum()
        total = total + weight * amount
        metrics[name] = amount.detach() / counts.sum().clamp(min=1e-12)

    if agent.value_weight and batch.values is not None and seen.values is not None:
        add("value_loss", agent.value_weight, (seen.values - batch.targets).square() / 2, batch.weights)
    if agent.entropy:
        total = total - agent.entropy * (seen.entropy * batch.weights).sum()
    if agent.l2:
        add("l2_logits", agent.l2, l2_logits(seen), batch.weights)
    if agent.kl:
        anchor = evaluate_frozen(agent.reference, batch)
        add("kl_reference", agent.kl, agent.divergence(seen, anchor), batch.weights)
    if agent.mle and batch.demonstrations is not None:
        demonstrations = batch.demonstrations
        add(
            "nll",
            agent.mle,
            -evaluate_actions(agent.policy, demonstrations).log_probs,
            demonstrations.weights,
        )
    return total, metrics


def l2_logits(seen: Evaluation) -> Tensor:
    """Mean over the vocabulary of z², which keeps softmax from saturating."""
    return _logits(seen).reduce(lambda z: z.where(z > FORBIDDEN / 2, 0.0).square().mean(-1))


def smoothed(seen: Evaluation, share: float) -> Tensor:
    """−log π of a target: the written token, but for a `share` spread over all (Szegedy et al. 2016)."""
    if not share:
        return -seen.log_probs
    others = _logits(seen).reduce(lambda z: -z.log_softmax(-1).mean(-1))
    return share * others - (1 - share) * seen.log_probs


def exact(seen: Evaluation, anchor: Evaluation) -> Tensor:
    """KL(π ‖ π_anchor) = Σₐ π(a) (log π(a) − log π_anchor(a)), over the whole vocabulary."""
    return _logits(seen).divergence(_logits(anchor))


def k1(seen: Evaluation, anchor: Evaluation) -> Tensor:
    """Log π(a) − log π_anchor(a) of what was written: unbiased as a number, of zero mean as a gradient."""
    return seen.log_probs - anchor.log_probs


def k2(seen: Evaluation, anchor: Evaluation) -> Tensor:
    """½ (log π(a) − log π_anchor(a))²: biased as a number, its mean gradient is that of `exact`."""
    return (seen.log_probs - anchor.log_probs).square() / 2


def k3(seen: Evaluation, anchor: Evaluation) -> Tensor:
    """ρ − 1 − log ρ, ρ = π_anchor(a) / π(a): an unbiased, never negative number (Schulman 2020; GRPO).

    As a gradient it is another divergence's: E[(1 − ρ) ∇log π] = ∇KL(π_anchor ‖ π).
    """
    log_ratio = anchor.log_probs - seen.log_probs
    return log_ratio.exp() - 1 - log_ratio


DIVERGENCES: dict[str, Divergence] = {"exact": exact, "k1": k1, "k2": k2, "k3": k3}


def _logits(seen: Evaluation) -> Logits:
    if seen.logits is None:
        raise ValueError(
            "this needs the probability of every token: let the policy's `evaluate` return `logits` "
            '(rlseq.types.Evaluation), or use an estimate from what was written, such as divergence="k3"'
        )
    return seen.logits
