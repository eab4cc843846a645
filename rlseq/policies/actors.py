"""Heads for a few actions: a choice of n, or a vector. All logits are kept, for there are few of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlseq.decode import acting_logits
from rlseq.policies.logits import divergence
from rlseq.types import RAW, Behaviour, Evaluation, Logits

View = TypeVar("View")
LOG_2PI = math.log(2 * math.pi)


class Categorical(nn.Module):
    """π(·|s) = softmax(W h + b), nearly uniform at first, so that nothing is settled before it is tried.

    Args:
        hidden: H, width of h.
        actions: n.
    """

    def __init__(self, hidden: int, actions: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(actions, hidden), gain=0.01))
        self.bias = nn.Parameter(torch.zeros(actions))

    def forward(self, h: Tensor) -> Tensor:
        """Logits `[…, n]` of h `[…, H]`."""
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
        """Mean and log σ, `[…, 2, A]`, of h `[…, H]`."""
        mean = F.linear(h, self.weight, self.bias)
        return torch.stack([mean, self.log_std.expand_as(mean)], -2)

    def evaluate(self, h: Tensor, actions: Tensor, behaviour: Behaviour = RAW) -> Evaluation:
        """Score actions `[B, T, A]` chosen from h `[B, T, H]`."""
        bell = tempered(self(h), behaviour)
        entropy = (bell[..., 1, :] + (LOG_2PI + 1) / 2).sum(-1)
        return Evaluation(log_density(bell, actions), entropy, logits=Bell(h, bell))


def tempered(bell: Tensor, behaviour: Behaviour) -> Tensor:
    """π^(1/τ), normalised: σ² becomes τσ², as logits become logits / τ."""
    if behaviour.temperature == 1.0:
        return bell
    mean, log_std = bell.unbind(-2)
    return torch.stack([mean, log_std + math.log(behaviour.temperature) / 2], -2)


def log_density(bell: Tensor, actions: Tensor) -> Tensor:
    """Log N(a; μ, diag σ²) = −Σ ((a − μ)²/2σ² + log σ + ½ log 2π), with μ and log σ `[…, 2, A]`."""
    mean, log_std = bell.unbind(-2)
    z = (actions - mean) * (-log_std).exp()
    return -(z.square() / 2 + log_std + LOG_2PI / 2).sum(-1)


@dataclass(frozen=True, eq=False)
class KeptLogits:
    """The logits of every state, `[B, T, n]`, as they were made."""

    features: Tensor  # h, [B, T, H]
    logits: Tensor

    def reduce(self, what: Callable[..., Tensor], *others: Logits | Tensor) -> Tensor:
        """See `rlseq.types.Logits`."""
        views = (other if isinstance(other, Tensor) else _like(self, other).logits for other in others)
        return what(self.logits, *views)

    def divergence(self, other: Logits) -> Tensor:
        """Over all actions."""
        return self.reduce(divergence, other)


@dataclass(frozen=True, eq=False)
class Bell:
    """The Gaussian of every state: no logits to look at, but a formula for what is asked of them."""

    features: Tensor  # h, [B, T, H]
    bell: Tensor  # μ and log σ, [B, T, 2, A]

    def reduce(self, what: Callable[..., Tensor], *others: Logits | Tensor) -> Tensor:
        """Refused: nothing can be said of every single action."""
        raise TypeError(
            "a Gaussian policy has no logits: l2, and whatever else looks at every action, is for discrete "
            "actions; entropy and kl have closed forms here"
        )

    def divergence(self, other: Logits) -> Tensor:
        """Σ ( log σ' − log σ + (σ² + (μ − μ')²) / 2σ'² − ½ ), σ' and μ' being the other's."""
        (mean, log_std), (mean_, log_std_) = self.bell.unbind(-2), _like(self, other).bell.unbind(-2)
        spread = (2 * log_std).exp() + (mean - mean_).square()
        return (log_std_ - log_std + spread / 2 * (-2 * log_std_).exp() - 0.5).sum(-1)


def _like(mine: View, other: object) -> View:
    if not isinstance(other, type(mine)):
        raise TypeError(
            f"policies of different kinds cannot be compared: {type(mine).__name__} here, "
            f"{type(other).__name__} there; the reference policy must act in the same space"
        )
    return other
