"""The types that every part of rlseq speaks: batch-major tensors, one mask, one layout `[B, T]`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from torch import Tensor, dtype

Context = Mapping[str, Tensor]
"""What an episode is about ("index", "source", "reference", …); every tensor has B rows."""

State = Any
"""A policy's memory of a prefix: nested tuples of tensors with B rows (so rows can be forked)."""

Metrics = dict[str, Tensor]
"""Named scalars of an update; they stay on the device until somebody prints them."""

Reward = Callable[[Tensor, Tensor, Context], Tensor]
"""`(tokens [B, T], mask [B, T], context) -> [B]` for the finished text, or `[B, T]` per token."""


class Behaviour(NamedTuple):
    """How the distribution that acts is made from a policy's logits.

    It travels with the rollout, so that `evaluate` scores exactly the distribution that acted.
    """

    temperature: float = 1.0
    support: Tensor | None = None  # bool, broadcastable to [B, T, V]: the tokens that were allowed
    autocast: dtype | None = None  # in which the policy's networks computed, if not in their own


RAW = Behaviour()  # the policy as it is


class Evaluation(NamedTuple):
    """A policy's second look at whole sequences; every tensor is `[B, T]`."""

    log_probs: Tensor
    entropy: Tensor
    values: Tensor | None = None


class Policy(Protocol):
    """Any `nn.Module` with these three methods; `evaluate` must agree with `step`, token by token."""

    def start(self, context: Context) -> State:
        """The state before the first token."""

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """Read one token per row `[B]`; return the logits `[B, V]` of the next, and the new state."""

    def evaluate(self, actions: Tensor, context: Context, behaviour: Behaviour = Behaviour()) -> Evaluation:
        """Score whole sequences in one differentiable pass, as the distribution `behaviour`."""


@dataclass(frozen=True, eq=False)
class Rollout:
    """B finished episodes of at most T steps, batch-major."""

    actions: Tensor  # [B, T] int64: the tokens; 0 where there is none
    mask: Tensor  # [B, T] bool, True on real actions (EOS is a real action)
    log_probs: Tensor  # [B, T] float32, under the distribution that really acted
    rewards: Tensor  # [B, T]
    values: Tensor | None  # [B, T]
    ends: Tensor  # [B, T] bool, True where an episode ended
    bootstrap: Tensor | None  # [B]: value after the last step, None where every episode ended
    context: Context
    behaviour: Behaviour = RAW

    @property
    def returns(self) -> Tensor:
        """R = Σₜ rₜ of every episode, `[B]`."""
        return self.rewards.sum(1)

    @property
    def lengths(self) -> Tensor:
        """Number of real actions of every episode, `[B]`."""
        return self.mask.sum(1)
