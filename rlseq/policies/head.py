"""The linear softmax head: log-probability and entropy of tokens, without ever holding `[B, T, V]`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rlseq.decode import acting_logits
from rlseq.types import RAW, Behaviour, Evaluation

CHUNK = 1 << 22  # logits held at a time, 16 MiB: large enough for full speed, small enough to stay cached


class Head(nn.Linear):
    """π(·|s) = softmax(W h + b); with `value` also V(s) = w·h + c, on the same trunk h.

    Args:
        hidden: H, width of h.
        words: V.
        value: whether there is a V(s).
    """

    def __init__(self, hidden: int, words: int, value: bool = False) -> None:
        super().__init__(hidden, words)
        self.value = nn.Linear(hidden, 1) if value else None

    def evaluate(self, features: Tensor, actions: Tensor, behaviour: Behaviour = RAW) -> Evaluation:
        """Score actions `[B, T]` chosen from h `[B, T, H]`."""
        scores = token_scores(features, self.weight, self.bias, actions, behaviour)
        return Evaluation(*scores, None if self.value is None else self.value(features).squeeze(2))


def token_scores(
    features: Tensor, weight: Tensor, bias: Tensor, actions: Tensor, behaviour: Behaviour
) -> tuple[Tensor, Tensor]:
    """Log π(a) and H(π), each `[B, T]`, for π = softmax((features·weightᵀ + bias) / temperature).

    Args:
        features: `[B, T, H]`.
        weight: `[V, H]`.
        bias: `[V]`.
        actions: `[B, T]`.
        behaviour: temperature, and the tokens that were allowed.
    """
    shape, words = actions.shape, weight.shape[0]
    support = behaviour.support
    if support is not None:
        support = support.expand(*shape, words).reshape(-1, words)
    flat = features.reshape(-1, features.shape[-1])
    # Autocast is off in the backward pass, which must compute the same logits again: so it is applied here.
    flat, weight, bias = (x.to(working_dtype(x)) for x in (flat, weight, bias))
    arguments = flat, weight, bias, actions.reshape(-1), behaviour.temperature, support
    scores = _TokenScores.apply(*arguments)  # type: ignore[no-untyped-call]
    return scores[0].view(shape), scores[1].view(shape)


class _TokenScores(torch.autograd.Function):
    """Chunk by chunk; the backward pass computes the logits again rather than keep them.

    With p = softmax(z):  ∂log p_a/∂z = 1_a − p   and   ∂H/∂z = −p·(log p + H).
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        actions: Tensor,
        temperature: float,
        support: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        precise = torch.promote_types(features.dtype, torch.float32)
        log_prob, entropy, log_norm = features.new_empty((3, len(features)), dtype=precise)
        for rows in _chunks(len(features), len(weight)):
            z = _logits(features, weight, bias, temperature, support, rows)
            log_norm[rows] = norm = z.logsumexp(-1)
            log_prob[rows] = z.gather(1, actions[rows].unsqueeze(1)).squeeze(1) - norm
            entropy[rows] = norm - (z * (z - norm.unsqueeze(1)).exp_()).sum(-1)
        ctx.save_for_backward(features, weight, bias, actions, support, entropy, log_norm)
        ctx.temperature = temperature
        ctx.set_materialize_grads(False)  # an output that nobody differentiates costs nothing
        return log_prob, entropy

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, by_log_prob: Tensor | None, by_entropy: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        features, weight, bias, actions, support, entropy, log_norm = ctx.saved_tensors
        by_features, by_weight = torch.empty_like(features), torch.zeros_like(weight, dtype=entropy.dtype)
        by_bias = torch.zeros_like(bias, dtype=entropy.dtype)  # sums over chunks, precise under autocast, too
        for rows in _chunks(len(features), len(weight)):
            z = _logits(features, weight, bias, ctx.temperature, support, rows)
            log_p = z.sub_(log_norm[rows].unsqueeze(1))
            slope = torch.zeros_like(log_norm[rows])
            if by_log_prob is not None:
                slope = slope - by_log_prob[rows]
            p = log_p.exp()
            by_z = p * slope.unsqueeze(1)
            if by_entropy is not None:  # p first: what is forbidden has log p near the last float, and p = 0
                by_z -= log_p.add_(entropy[rows].unsqueeze(1)).mul_(p).mul_(by_entropy[rows].unsqueeze(1))
            by_z.scatter_add_(1, actions[rows].unsqueeze(1), -slope.unsqueeze(1))
            by_z = by_z.div_(ctx.temperature).to(features.dtype)
            by_features[rows] = by_z @ weight
            by_weight += by_z.t() @ features[rows]
            by_bias += by_z.sum(0)
        return by_features, by_weight, by_bias, None, None, None


def working_dtype(x: Tensor) -> torch.dtype:
    """In which matrix products with x are done here: autocast's type, or else its own."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _chunks(rows: int, words: int) -> list[slice]:
    step = max(1, CHUNK // words)
    return [slice(start, start + step) for start in range(0, rows, step)]


def _logits(
    features: Tensor, weight: Tensor, bias: Tensor, temperature: float, support: Tensor | None, rows: slice
) -> Tensor:
    allowed = None if support is None else support[rows]
    logits = torch.addmm(bias, features[rows], weight.t())
    return acting_logits(logits, Behaviour(temperature, allowed))
