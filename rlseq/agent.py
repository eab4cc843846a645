"""`Agent`: collect a batch, say what its loss is, take one step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rlseq.checks import check_samples
from rlseq.decode import Decode, Sample
from rlseq.engine import rescore, rollout
from rlseq.losses import per_sequence, per_token, score_function
from rlseq.state import evaluating
from rlseq.types import Metrics, Rollout

Aggregate = Callable[[Tensor, Tensor], Tensor]
RATIO_TOLERANCE = 1e-4  # how far the first on-policy ratio may be from 1, in float32


@dataclass(eq=False)
class Agent(ABC):
    """Improves a policy, batch by batch; an algorithm says how a batch is gathered and what its loss is."""

    policy: Any  # a `Policy` that is an `nn.Module`
    lr: float = 1e-3  # step size of Adam
    clip_norm: float = 1.0  # largest norm of the gradient

    def __post_init__(self) -> None:
        if not self.lr > 0 or not self.clip_norm > 0:
            raise ValueError(f"lr and clip_norm must be > 0, got lr={self.lr}, clip_norm={self.clip_norm}")
        self.optimizer = torch.optim.Adam(self.policy.parameters(), self.lr)

    @abstractmethod
    def collect(self, env: Any) -> Rollout:
        """Gather a batch."""

    @abstractmethod
    def loss(self, batch: Rollout) -> tuple[Tensor, Metrics]:
        """What to minimise, and what to log."""

    def update(self, batch: Rollout) -> Metrics:
        """One gradient step on the loss of a batch."""
        loss, metrics = self.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(
            self.policy.parameters(), self.clip_norm, error_if_nonfinite=True
        )
        self.optimizer.step()
        return {"loss": loss.detach(), **metrics, "grad_norm": norm}


@dataclass(eq=False)
class PolicyGradient(Agent):
    """∇J = E[ Σₜ Aₜ ∇log π(aₜ|sₜ) ]; a subclass says what the advantage Aₜ is.

    The texts are sampled without gradients and scored again in one pass. As they were written by this very
    policy, the second look must agree with the first; the first update checks it.
    """

    entropy: float = 0.0  # weight of the policy's entropy in the objective
    decode: Decode = field(default_factory=Sample)  # how tokens are chosen
    aggregate: Aggregate = per_sequence  # how the loss of tokens is summed up

    def __post_init__(self) -> None:
        super().__post_init__()
        check_samples(self.decode)

    @abstractmethod
    def advantages(self, batch: Rollout) -> Tensor:
        """Aₜ, broadcastable to `[B, T]`."""

    def collect(self, env: Any) -> Rollout:
        """On-policy samples, used once."""
        return rollout(self.policy, env, decode=self.decode)

    def loss(self, batch: Rollout) -> tuple[Tensor, Metrics]:
        """Score-function loss, less what entropy is worth."""
        with evaluating(self.policy):  # dropout would score another policy than the one that wrote
            seen = rescore(self.policy, batch)
        self._check_ratio(seen.log_probs, batch)
        loss = self.aggregate(score_function(seen.log_probs, self.advantages(batch)), batch.mask)
        entropy = per_token(seen.entropy, batch.mask)
        if self.entropy:
            loss = loss - self.entropy * self.aggregate(seen.entropy, batch.mask)
        return loss, {
            "reward": batch.returns.mean(),
            "entropy": entropy.detach(),
            "length": batch.lengths.float().mean(),
        }

    def _check_ratio(self, log_probs: Tensor, batch: Rollout) -> None:
        if getattr(self, "_ratio_checked", False):
            return
        ratio = ((log_probs.detach() - batch.log_probs) * batch.mask).exp()
        worst = float((ratio - 1).abs().max())
        if not worst <= RATIO_TOLERANCE:
            raise RuntimeError(
                f"on the first update π_new/π_old must be 1 within {RATIO_TOLERANCE}, but is off by "
                f"{worst:.2g}: the policy's `evaluate` disagrees with its `step`; "
                "rlseq.testing.check_policy finds where"
            )
        self._ratio_checked = True
