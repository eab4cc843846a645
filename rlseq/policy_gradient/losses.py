"""Policy losses, pure functions of `[B, T]` tensors, and the weights of tokens in their sum.

A loss is Σ weights · loss over all tokens. The weights are made from the mask of the whole batch, so that a
batch learned from in several parts, or by several ranks, gives the gradient of the whole.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rlseq.utils.ranks import this_rank, total

Aggregate = Callable[[Tensor], Tensor]  # the mask [B, T] -> how much every token counts, [B, T]


def _of_all(mask: Tensor, number: int) -> int | Tensor:
    """Return the sum of a number over ranks; of rows of single steps, each may have another number."""
    if this_rank().of == 1 or mask.shape[1] > 1:
        return this_rank().all(number)
    return total(torch.tensor(number))


def per_sequence(mask: Tensor) -> Tensor:
    """Sum over the tokens of a text, mean over texts: the gradient is that of the expected reward."""
    return mask / _of_all(mask, len(mask))


def per_token(mask: Tensor) -> Tensor:
    """Mean over all real tokens: long texts weigh more, and so does each batch's average length."""
    return mask / total(mask.sum()).clamp(min=1)


def per_text(mask: Tensor) -> Tensor:
    """Mean over the tokens of a text, mean over texts: tokens of short texts weigh more (GRPO)."""
    return mask / mask.sum(1, keepdim=True).clamp(min=1) / _of_all(mask, len(mask))


def per_step(mask: Tensor) -> Tensor:
    """Sum over tokens, divided by B·T whatever the lengths: `per_sequence` up to a constant (Dr. GRPO)."""
    return mask / _of_all(mask, mask.numel())


AGGREGATES: dict[str, Aggregate] = {
    "per_sequence": per_sequence,
    "per_token": per_token,
    "per_text": per_text,
    "per_step": per_step,
}


def score_function(log_probs: Tensor, advantages: Tensor) -> Tensor:
    """Return −A · log π(a), whose gradient is the score-function estimator (Williams 1992)."""
    return -advantages.detach() * log_probs


def clipped(log_probs: Tensor, old: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """Return −min(ρA, clip(ρ, 1−low, 1+high) A),   ρ = π(a) / π_old(a)   (Schulman et al. 2017).

    Beyond the clip nothing is gained by moving ρ; the min keeps the gradient where ρ is on the wrong side.
    `high > low` lets unlikely tokens grow ("clip-higher", Yu et al. 2025).
    """
    ratio, advantages = (log_probs - old).exp(), advantages.detach()
    return -torch.min(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)


def out_of_clip(log_probs: Tensor, old: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """Return True where `clipped` has no gradient: ρ is beyond the clip on the side to which A pushes."""
    ratio = (log_probs - old).exp()
    return ratio * advantages > ratio.clamp(1 - low, 1 + high) * advantages


def log_ratio_of_text(log_probs: Tensor, old: Tensor, mask: Tensor) -> Tensor:
    """Return log s = meanₜ log π/π_old of the whole text at each of its tokens, `[B, T]`.

    Its gradient at a token is ∇log π of that token, so that advantages may differ within a text
    ("GSPO-token", Zheng et al. 2025); summed up by `per_text` it is the gradient of log s itself.
    """
    return mean_of_text(log_probs - old, mask).detach() + log_probs - log_probs.detach()


def mean_of_text(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over the tokens of each text, `[B, 1]`."""
    return (values * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)


def clipped_weight(log_probs: Tensor, old: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """Return −clip(ρ, 1−low, 1+high) A log π, with no gradient through the weight (CISPO, MiniMax 2025).

    Where `clipped` drops a token, this keeps its gradient and only bounds its weight.
    """
    weight = (log_probs - old).exp().clamp(1 - low, 1 + high)
    return -(weight * advantages).detach() * log_probs


def soft_clipped(log_probs: Tensor, old: Tensor, advantages: Tensor, rise: float, fall: float) -> Tensor:
    """Return −A σ(τ(ρ − 1)) 4/τ, τ = rise where A > 0, else fall (SAPO, Gao et al. 2025).

    The derivative of the gate is 1 at ρ = 1, and falls smoothly on both sides, the faster the larger τ.
    """
    ratio, advantages = (log_probs - old).exp(), advantages.detach()
    temperature = torch.full_like(ratio, fall).masked_fill(advantages > 0, rise)
    return -advantages * torch.sigmoid(temperature * (ratio - 1)) * 4 / temperature


def geometric_mean(
    log_probs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, low: float, high: float
) -> Tensor:
    """Return −A exp(meanₜ min(log ρ, clip(log ρ, −low, high))) at every token (GMPO, Zhao et al. 2025).

    The min is that of `clipped`: where A < 0 it is a max. A of a text is the mean over its tokens.
    """
    log_ratio, sign = log_probs - old, advantages.sign()
    least = sign * torch.min(sign * log_ratio, sign * log_ratio.clamp(-low, high))
    return -mean_of_text(advantages, mask).detach() * mean_of_text(least, mask).exp().expand_as(log_probs)


def beyond_divergence(log_probs: Tensor, old: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """Return True where π has moved by more than `high` above π_old and A > 0, or `low` below and A < 0.

    |π(a) − π_old(a)| is the total variation between "this token" and "any other" (DPPO, Qi et al. 2026).
    """
    moved = log_probs.exp() - old.exp()
    return torch.where(advantages > 0, moved > high, -moved > low)


def within_divergence(
    log_probs: Tensor, old: Tensor, advantages: Tensor, low: float, high: float, most: float
) -> Tensor:
    """Return −min(ρ, most) A log π, with no gradient through the weight, 0 where `beyond_divergence`."""
    weight = (log_probs - old).exp().clamp(max=most) * advantages
    return (
        -weight.masked_fill(beyond_divergence(log_probs, old, advantages, low, high), 0).detach() * log_probs
    )


def ratio_weighted(log_probs: Tensor, old: Tensor, advantages: Tensor) -> Tensor:
    """Return −ρA, the off-policy surrogate; something else must keep it near the old policy."""
    return -(log_probs - old).exp() * advantages.detach()


def minimum_risk(scores: Tensor, returns: Tensor, samples: int) -> Tensor:
    """Return −K Qₖ Rₖ of every text, `[B]`; Q = softmax of the scores of K texts (Shen et al. 2016)."""
    q = scores.view(-1, samples).softmax(1).flatten()
    return -samples * q * returns


def preference(scores: Tensor, ranks: Tensor, samples: int) -> Tensor:
    """Return −log σ(score⁺ − score⁻) of every group, `[B / K]`, 0 where all of its texts rank alike.

    Args:
        scores: of texts, `[B]`.
        ranks: the largest of K is y⁺, the smallest y⁻, `[B]`; the first of those that are equal.
        samples: K.
    """
    score, rank = scores.view(-1, samples), ranks.view(-1, samples)
    best, worst = rank.argmax(1, keepdim=True), rank.argmin(1, keepdim=True)
    lead = (score.gather(1, best) - score.gather(1, worst)).squeeze(1)
    return -logsigmoid(lead).where(rank.amax(1) > rank.amin(1), 0.0)


def kl_estimate(log_ratio: Tensor) -> Tensor:
    """Return ρ − 1 − log ρ of log ρ = log p(a) − log q(a): an estimate of KL(q ‖ p) from samples of q.

    It is unbiased and never negative (Schulman 2020).
    """
    return torch.expm1(log_ratio) - log_ratio
