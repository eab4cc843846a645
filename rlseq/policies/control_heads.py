"""Heads of control policies: a choice of n, or a vector. Logits are kept, because they are few."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlseq.engine.decode import acting_logits
from rlseq.policies.head import divergence
from rlseq.types import RAW, Behaviour, Evaluation, Logits

SameKind = TypeVar("SameKind")
LOG_2PI = math.log(2 * math.pi)


class Categorical(nn.Module):
    """π(·|s) = softmax(W h + b), nearly uniform at first, so that every action is tried.

    Args:
        hidden: H, width of h.
        actions: n.
    """

    def __init__(self, hidden: int, actions: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(actions, hidden), gain=0.01))
        self.bias = nn.Parameter(torch.zeros(actions))

    def forward(self, h: Tensor) -> Tensor:
        """Return logits `[…, n]` of h `[…, H]`."""
        return F.linear(h, self.weight, self.bias)

    def evaluate(self, h: Tensor, actions: Tensor, behaviour: Behaviour = RAW) -> Evaluation:
        """Score actions `[B, T]` chosen from h `[B, T, H]`."""
        logits = acting_logits(self(h), behaviour)
        log_p = logits.log_softmax(-1)
        log_probs = log_p.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
        entropy = -(log_p.exp() * log_p).sum(-1)
        return Evaluation(log_probs, entropy, None, log_p.detach().amax(-1).exp(), KeptLogits(h, logits))


class Gaussian(nn.Module):
    """π(·|s) = N(W h + b, diag σ²), with one σ for all states (Schulman et al. 2015).

    Args:
        hidden: H, width of h.
        actions: A, width of an action.
        log_std: log σ at first.
    """

    def __init__(self, hidden: int, actions: int, log_std: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(actions, hidden), gain=0.01))
        self.bias = nn.Parameter(torch.zeros(actions))
        self.log_std = nn.Parameter(torch.full((actions,), log_std))

    def forward(self, h: Tensor) -> Tensor:
        """Return mean and log σ, `[…, 2, A]`, of h `[…, H]`."""
        mean = F.linear(h, self.weight, self.bias)
        return torch.stack([mean, self.log_std.expand_as(mean)], -2)

    def evaluate(self, h: Tensor, actions: Tensor, behaviour: Behaviour = RAW) -> Evaluation:
        """Score actions `[B, T, A]` chosen from h `[B, T, H]`."""
        mean, log_std = F.linear(h, self.weight, self.bias), tempered(self.log_std, behaviour)
        entropy = (log_std + (LOG_2PI + 1) / 2).sum(-1).expand(mean.shape[:-1])
        log_probs = log_density(mean, log_std, actions)
        return Evaluation(log_probs, entropy, logits=GaussianDensity(h, mean, log_std))


def tempered(log_std: Tensor, behaviour: Behaviour) -> Tensor:
    """Return log σ of π^(1/τ), normalised: σ² becomes τσ², as logits become logits / τ."""
    return log_std if behaviour.temperature == 1.0 else log_std + math.log(behaviour.temperature) / 2


def log_density(mean: Tensor, log_std: Tensor, actions: Tensor) -> Tensor:
    """Return log N(a; μ, diag σ²) = −½ Σ (a − μ)²/σ² − Σ (log σ + ½ log 2π), over the last dimension."""
    z = (actions - mean) / log_std.exp()
    return -z.square().sum(-1) / 2 - (log_std + LOG_2PI / 2).sum(-1)


@dataclass(frozen=True, eq=False)
class KeptLogits:
    """The logits of every state, `[B, T, n]`."""

    features: Tensor  # h, [B, T, H]
    logits: Tensor

    def reduce(self, what: Callable[..., Tensor], *others: Logits | Tensor) -> Tensor:
        """See `rlseq.types.Logits`."""
        views = (other if isinstance(other, Tensor) else _like(self, other).logits for other in others)
        return what(self.logits, *views)

    def divergence(self, other: Logits) -> Tensor:
        """Return the divergence over all actions."""
        return self.reduce(divergence, other)


@dataclass(frozen=True, eq=False)
class GaussianDensity:
    """The Gaussian of every state, which has no logits, but a formula for divergences."""

    features: Tensor  # h, [B, T, H]
    mean: Tensor  # [B, T, A]
    log_std: Tensor  # broadcastable to it

    def reduce(self, what: Callable[..., Tensor], *others: Logits | Tensor) -> Tensor:
        """Refuse: a density has no list of actions."""
        raise TypeError(
            "a Gaussian policy has no logits: l2, and whatever else looks at every action, is for discrete "
            "actions; entropy and kl have closed forms here"
        )

    def divergence(self, other: Logits) -> Tensor:
        """Return Σ ( log σ' − log σ + (σ² + (μ − μ')²) / 2σ'² − ½ ), σ' and μ' being the other's."""
        other = _like(self, other)
        spread = (2 * self.log_std).exp() + (self.mean - other.mean).square()
        ratio = other.log_std - self.log_std
        return (ratio + spread / 2 * (-2 * other.log_std).exp() - 0.5).sum(-1)


def _like(mine: SameKind, other: object) -> SameKind:
    if not isinstance(other, type(mine)):
        raise TypeError(
            f"policies of different kinds cannot be compared: {type(mine).__name__} here, "
            f"{type(other).__name__} there; the reference policy must act in the same space"
        )
    return other
