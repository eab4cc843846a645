"""Q(s, a) of every action, made from a policy's logits and V, and the values of states that follow from it.

A policy whose logits are values is a policy as any other: greedy decoding takes the action with the largest
value, and sampling at temperature τ is Boltzmann exploration.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from rlseq.engine.categorical import FORBIDDEN
from rlseq.engine.rollout import evaluate_actions
from rlseq.types import Evaluation, Logits, Rollout

# (logits […, V], V(s) […, 1] or None) -> Q […, V]
Form = Callable[[Tensor, Tensor | None], Tensor]


def plain(logits: Tensor, value: Tensor | None) -> Tensor:
    """Return Q = z, the logits."""
    return logits


def dueling(logits: Tensor, value: Tensor | None) -> Tensor:
    """Return Q = V + z − mean z over the allowed actions (Wang et al. 2016)."""
    allowed = logits > FORBIDDEN
    mean = logits.where(allowed, 0.0).sum(-1, keepdim=True) / allowed.sum(-1, keepdim=True)
    return (_given(value) + logits - mean).where(allowed, FORBIDDEN)


def soft_dueling(logits: Tensor, value: Tensor | None) -> Tensor:
    """Return Q = V + z − log Σ exp z, so that V = log Σ exp Q (Nachum et al. 2017)."""
    return (_given(value) + logits.log_softmax(-1)).where(logits > FORBIDDEN, FORBIDDEN)


FORMS: dict[str, Form] = {form.__name__: form for form in (plain, dueling, soft_dueling)}
WITHOUT_V = (plain,)  # forms that need no value head


def _given(value: Tensor | None) -> Tensor:
    if value is None:
        raise ValueError("the policy has no value head, V(s); make it with rlseq.make_policy(…, value=True)")
    return value


@dataclass(frozen=True, eq=False)
class ActionValues:
    """Q of every action in the states of a batch; nothing is computed before it is asked for.

    Args:
        policy: whose logits are looked at.
        batch: whose states.
        form: how Q is made from logits and V.
    """

    policy: Any
    batch: Rollout
    form: Form

    @cached_property
    def evaluation(self) -> Evaluation:
        """The policy's evaluation of the batch."""
        return evaluate_actions(self.policy, self.batch)

    @cached_property
    def _logits(self) -> Logits:
        if self.evaluation.logits is None:
            raise ValueError(
                "values of actions are the policy's logits: let its `evaluate` return `logits` "
                "(rlseq.types.Evaluation)"
            )
        return self.evaluation.logits

    def reduce(self, what: Callable[..., Tensor], *numbers: Tensor) -> Tensor:
        """Return `what(Q, number, …)` of every state, `[B, T]`, where numbers are `[B, T]`, too."""
        values = self.evaluation.values
        if values is None:
            return self._logits.reduce(lambda z, *n: what(self.form(z, None), *n), *numbers)
        return self._logits.reduce(lambda z, v, *n: what(self.form(z, v.unsqueeze(-1)), *n), values, *numbers)

    def of(self, actions: Tensor) -> Tensor:
        """Return Q(s, a) of one action in every state."""
        return self.reduce(lambda q, a: q.gather(-1, a.unsqueeze(-1)).squeeze(-1), actions)

    def best(self) -> Tensor:
        """Return the action with the largest value."""
        return self.reduce(lambda q: q.argmax(-1))

    def largest(self) -> Tensor:
        """Return maxₐ Q(s, a)."""
        return self.reduce(lambda q: q.amax(-1))

    def log_sum_exp(self) -> Tensor:
        """Return log Σₐ exp Q(s, a)."""
        return self.reduce(lambda q: q.logsumexp(-1))


# (values under the policy that learns, values under its earlier copy) -> V of every state, [B, T]
Backup = Callable[[ActionValues, ActionValues], Tensor]


def maximum(online: ActionValues, target: ActionValues) -> Tensor:
    """Return maxₐ Q̂(s, a): the copy chooses the action and judges it (Mnih et al. 2015)."""
    return target.largest()


def double(online: ActionValues, target: ActionValues) -> Tensor:
    """Return Q̂(s, argmaxₐ Q(s, a)): the policy chooses, the copy judges (van Hasselt et al. 2016)."""
    return target.of(online.best())


BACKUPS: dict[str, Backup] = {backup.__name__: backup for backup in (maximum, double)}


def following(values: Tensor) -> Tensor:
    """Return the values of the next states of texts, 0 after the last: `[B, T]` shifted by one."""
    return torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], 1)
