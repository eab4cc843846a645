"""Objectives whose exact gradient an estimator may follow, as losses: sums over every text."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rlseq.auditing.texts import Enumeration

ExactLoss = Callable[[Enumeration], Tensor]  # every text, and the logits of the policies -> loss
OfNextWords = Callable[[Tensor, Tensor], Tensor]  # log-probabilities of two policies […, V] -> […]


def expected_reward(every: Enumeration) -> Tensor:
    """Return −E[R]."""
    return -_expected(every, every.tables.policy, _by_context(every, every.every.rewards))


def reward_per_word(every: Enumeration) -> Tensor:
    """Return −E[R / length]."""
    return -_expected(
        every, every.tables.policy, _by_context(every, every.every.rewards / every.every.mask.sum(1))
    )


def advantage_per_word(every: Enumeration) -> Tensor:
    """Return −E[(R − b) / length], where b, the mean reward of the context, is held fixed."""
    return -_expected(
        every, every.tables.policy, _by_context(every, every.every.advantages / every.every.mask.sum(1))
    )


def best_of(k: int) -> ExactLoss:
    """Return the objective −E[the largest of k rewards], which is pass@k where rewards are 0 and 1."""

    def loss(every: Enumeration) -> Tensor:
        rewards, chance = _by_context(every, every.every.rewards), every.log_p(every.tables.policy).exp()
        at_most = (rewards.unsqueeze(1) <= rewards.unsqueeze(2)).to(chance.dtype) @ chance.unsqueeze(2)
        below = (rewards.unsqueeze(1) < rewards.unsqueeze(2)).to(chance.dtype) @ chance.unsqueeze(2)
        gain = (at_most**k - below**k).squeeze(2)  # chance that the best is worth as much, in all its texts
        alike = (rewards.unsqueeze(1) == rewards.unsqueeze(2)).sum(2)  # texts that share this gain
        return -(gain * rewards / alike).sum(1).mean()

    return loss


def negative_entropy(every: Enumeration) -> Tensor:
    """Return −H(π), of whole texts."""
    return _expected(every, every.tables.policy, every.log_p(every.tables.policy))


def reverse_kl_of_texts(every: Enumeration) -> Tensor:
    """Return KL(π ‖ π_ref), of whole texts."""
    return _expected(
        every, every.tables.policy, every.log_p(every.tables.policy) - every.log_p(every.tables.reference)
    )


def forward_kl_of_texts(every: Enumeration) -> Tensor:
    """Return KL(π_ref ‖ π), of whole texts."""
    theirs = every.log_p(every.tables.reference)
    return _expected(every, every.tables.reference, theirs - every.log_p(every.tables.policy))


def at_prefixes(divergence: OfNextWords, writer: str, per_word: bool) -> ExactLoss:
    """Return a divergence of next words, summed over the places of texts that are held fixed.

    Args:
        divergence: of two distributions over words.
        writer: of the texts: "policy" or "reference".
        per_word: the mean over the places of a text, in place of the sum.
    """

    def loss(every: Enumeration) -> Tensor:
        all_texts, ours, theirs = every.every, every.tables.policy, every.tables.reference
        amount = divergence(ours.log_softmax(1), theirs.log_softmax(1))[all_texts.states] * all_texts.mask
        total = amount.sum(1) / (all_texts.mask.sum(1) if per_word else 1)
        return _expected(every, getattr(every.tables, writer).detach(), _by_context(every, total))

    return loss


def _reverse(ours: Tensor, theirs: Tensor) -> Tensor:
    return (ours.exp() * (ours - theirs)).sum(-1)


def _forward(ours: Tensor, theirs: Tensor) -> Tensor:
    return _reverse(theirs, ours)


def _jensen_shannon(ours: Tensor, theirs: Tensor) -> Tensor:
    middle = ((ours.exp() + theirs.exp()) / 2).log()
    return (_reverse(ours, middle) + _reverse(theirs, middle)) / 2


DIRECTIONS: dict[str, OfNextWords] = {
    "reverse KL": _reverse,
    "forward KL": _forward,
    "Jensen–Shannon": _jensen_shannon,
}
WRITERS = {"policy": "own texts", "reference": "texts of the reference"}


def objectives(samples: int) -> dict[str, ExactLoss]:
    """Return the known objectives by name.

    Args:
        samples: K; the best of up to K texts are objectives, too.
    """
    fixed = {
        f"{name} of next words, {'mean over' if per_word else 'at'} the places of {whose}": at_prefixes(
            divergence, writer, per_word
        )
        for name, divergence in DIRECTIONS.items()
        for writer, whose in WRITERS.items()
        for per_word in (False, True)
    }
    return {
        "expected reward": expected_reward,
        "expected reward / length": reward_per_word,
        "expected advantage / length": advantage_per_word,
        **{f"pass@{k}": best_of(k) for k in range(2, samples + 1)},
        "negative entropy": negative_entropy,
        "reverse KL": reverse_kl_of_texts,
        "forward KL": forward_kl_of_texts,
        **fixed,
    }


def gradient_of(every: Enumeration, objective: ExactLoss) -> Tensor:
    """Return the exact gradient of an objective, by every logit, as one vector."""
    (found,) = torch.autograd.grad(objective(every), every.tables.policy)
    return found.flatten()


def _by_context(every: Enumeration, values: Tensor) -> Tensor:
    return values.view(every.config.contexts, every.count)


def _expected(every: Enumeration, table: Tensor, values: Tensor) -> Tensor:
    """Return the mean of values `[contexts, N]` over contexts, and over the texts of a policy."""
    return (every.log_p(table).exp() * values).sum(1).mean()
