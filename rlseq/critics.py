"""Baselines that look further than the samples: at the greedy text, at V, at the hidden state.

Each has `prepare(batch, policy, env)`, which adds what it will look at to a batch of samples.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rlseq.arguments import Range, check_fields
from rlseq.baselines import Baseline, none, paid
from rlseq.decode import Greedy
from rlseq.engine import rescore, rollout, sequence_env
from rlseq.state import Remembers, evaluating
from rlseq.types import Evaluation, Rollout


def prepared(factor: Any, batch: Rollout, policy: Any, env: Any) -> Rollout:
    """A batch with what a credit or a baseline needs beside samples."""
    return factor.prepare(batch, policy, env) if hasattr(factor, "prepare") else batch


@torch.no_grad()
def seen_by(policy: Any, batch: Rollout) -> Evaluation:
    """The texts as the policy that wrote them sees them, for good."""
    with evaluating(policy):
        return rescore(policy, batch)


def with_values(policy: Any, batch: Rollout) -> Rollout:
    """A batch with V of the policy that wrote it."""
    return batch if batch.values is not None else replace(batch, values=seen_by(policy, batch).values)


@dataclass(frozen=True)
class Value:
    """V(sₜ), by the policy's value head."""

    def prepare(self, batch: Rollout, policy: Any, env: Any) -> Rollout:
        """Add V."""
        return with_values(policy, batch)

    def __call__(self, returns: Tensor, batch: Rollout) -> Tensor:
        """V."""
        return values_of(batch)


def values_of(batch: Rollout) -> Tensor:
    """V `[B, T]`, or an error that says how to have it."""
    if batch.values is None:
        raise ValueError(
            "the batch has no values: make the policy with value=True, or let its `evaluate` return values; "
            "and collect the batch with the agent that learns from it"
        )
    return batch.values


@dataclass(frozen=True)
class GreedyReturn:
    """R of the greedy text of the same context, less what is paid already (Rennie et al. 2017; "ReMax")."""

    def prepare(self, batch: Rollout, policy: Any, env: Any) -> Rollout:
        """Write that text, once for all samples of a context."""
        index = batch.context["index"][:: batch.samples]
        best = rollout(policy, sequence_env(env).variant(num_envs=len(index)), decode=Greedy(), index=index)
        return replace(batch, greedy=best.returns.repeat_interleave(batch.samples))

    def __call__(self, returns: Tensor, batch: Rollout) -> Tensor:
        """The greedy return."""
        if batch.greedy is None:
            raise ValueError("the greedy baseline needs greedy texts; collect the batch with the agent")
        return batch.greedy.unsqueeze(1) - paid(batch)


@dataclass(eq=False)
class Regression(Remembers):
    """bₜ = wₜ·hₜ + cₜ, a linear regression of its own for every step, on the policy's hidden state (MIXER).

    Nothing flows back into h (Ranzato et al. 2016). It learns by normalised least mean squares:
    w ← w − rate · mean (b − G) h / (1 + |h|²), which is stable whatever the width of h.

    Args:
        rate: of learning; below 2.
        beside: what is known already, without learning; the regression predicts what is missing from it.
    """

    rate: Annotated[float, Range(0, 2, open_low=True, open_high=True)] = 0.1
    beside: Baseline = none
    weight: Tensor | None = None  # [T, H + 1], the last column is c

    def __post_init__(self) -> None:
        check_fields(self)
        if hasattr(self.beside, "learn"):
            raise ValueError(
                f"what stands beside a regression must not learn itself, got {self.beside!r:.60}"
            )

    def prepare(self, batch: Rollout, policy: Any, env: Any) -> Rollout:
        """Add h, and what the baseline beside it needs."""
        logits = seen_by(policy, batch).logits
        if logits is None:
            raise ValueError(
                f"a regression needs the hidden state of {type(policy).__name__}; let its `evaluate` return "
                "`logits`, which have `features` (rlseq.types.Evaluation)"
            )
        return replace(prepared(self.beside, batch, policy, env), features=logits.features)

    def __call__(self, returns: Tensor, batch: Rollout) -> Tensor:
        """The prediction from earlier batches; 0 before the first."""
        known = self.beside(returns, batch)
        if self.weight is None:
            return known
        return known + (self._inputs(batch) * self.weight.to(returns.device)).sum(2)

    def learn(self, returns: Tensor, batch: Rollout) -> None:
        """One step towards the returns of this batch."""
        h = self._inputs(batch)
        error = (self(returns, batch) - returns) * batch.mask / h.square().sum(2)
        slope = (error.unsqueeze(2) * h).sum(0) / batch.mask.sum(0).clamp(min=1).unsqueeze(1)
        before = 0.0 if self.weight is None else self.weight.to(slope.device)
        self.weight = before - self.rate * slope

    def forget(self) -> None:
        """Start anew: the reward is another one."""
        self.weight = None

    def _inputs(self, batch: Rollout) -> Tensor:
        if batch.features is None:
            raise ValueError("a regression needs the policy's features; collect the batch with the agent")
        return F.pad(batch.features, (0, 1), value=1.0)
