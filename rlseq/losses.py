"""Policy losses: pure functions of masked `[B, T]` tensors, and how they are summed up."""

from __future__ import annotations

from torch import Tensor


def per_sequence(values: Tensor, mask: Tensor) -> Tensor:
    """Σ over the tokens of a text, mean over texts: the gradient is that of the expected reward."""
    return (values * mask).sum() / len(values)


def per_token(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over all real tokens: long texts weigh more, and so does each batch's average length."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def score_function(log_probs: Tensor, advantages: Tensor) -> Tensor:
    """−A · log π(a): its gradient is the score-function estimator (Williams 1992), `[B, T]`."""
    return -advantages.detach() * log_probs
