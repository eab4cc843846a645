"""Sets as actions: the credit of each member, and the policy gradient of members that are chosen apart.

With p(a) = ∏_{b∈a} p_b ∏_{b∉a} (1 − p_b), a distribution over all sets, and R(a) the reward of a set,

    ∇ E[R] = Σ_a p(a) R(a) ∇log p(a) = Σ_b r(b) ∇log p_b + r̄(b) ∇log(1 − p_b),
    r(b) = Σ_{a∋b} p(a) R(a),   r̄(b) = Σ_{a∌b} p(a) R(a).

Without the second product, as it is sometimes written, the p(a) do not sum to 1, and the sum is no gradient
of an expected reward.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def set_log_probs(logits: Tensor, members: Tensor) -> Tensor:
    """Return log p(a) of sets `[S]`.

    Args:
        logits: of each possible member, `[N]`: p_b = σ(logit).
        members: True on the members of each set, `[S, N]`.
    """
    return F.logsigmoid(torch.where(members, logits, -logits)).sum(1)


def member_credits(chances: Tensor, rewards: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    """Return r(b) and r̄(b), `[N]` each.

    Args:
        chances: of the sets, `[S]`: p(a), or 1/S of samples.
        rewards: of the sets, `[S]`.
        members: True on the members of each set, `[S, N]`.
    """
    weights = (chances * rewards).unsqueeze(1)
    return (weights * members).sum(0), (weights * ~members).sum(0)


def factorised_loss(logits: Tensor, credits: tuple[Tensor, Tensor]) -> Tensor:
    """Return −Σ_b r(b) log p_b + r̄(b) log(1 − p_b), whose gradient is −∇ E[R] where credits are exact."""
    within, without = credits
    return -(within * F.logsigmoid(logits) + without * F.logsigmoid(-logits)).sum()
