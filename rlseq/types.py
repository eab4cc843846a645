"""The types that every part of rlseq speaks: batch-major tensors, one mask, one layout `[B, T]`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Protocol

from torch import Tensor, dtype
from typing_extensions import Self

Context = Mapping[str, Tensor]
"""What an episode is about ("index", "source", "references", …); every tensor has B rows."""

State = Any
"""A policy's memory of a prefix: nested tuples of tensors with B rows (so rows can be forked)."""

Metrics = dict[str, Tensor]
"""Named scalars of an update; they stay on the device until somebody prints them."""

Reward = Callable[[Tensor, Tensor, Context], Tensor]
"""`(tokens [B, T], mask [B, T], context) -> [B]` for the finished text, or `[B, T]` per token."""


@dataclass(eq=False)
class Counts:
    """What has been used up in a task so far, evaluation apart; tensors while nobody looks."""

    written: Any = 0  # tokens written in rollouts, forced ones too
    read: Any = 0  # tokens of references imitated
    judged: Any = 0  # texts finished, each of which a reward is asked about

    @contextmanager
    def writing(self, env: Any) -> Iterator[None]:
        """Counts what is written inside."""
        before = env.length.sum()
        yield
        self.written, self.judged = self.written + env.length.sum() - before, self.judged + env.num_envs

    def imitated(self, number: Any) -> None:
        """Count tokens that a rollout was forced to write as read: they are a reference's, not its own."""
        self.written, self.read = self.written - number, self.read + number

    def numbers(self) -> dict[str, int]:
        """The counts so far, and `tokens`, the sum of what was written and read."""
        found = {name: int(value) for name, value in vars(self).items()}
        return {"tokens": found["written"] + found["read"], **found}


class Behaviour(NamedTuple):
    """How the distribution that acts is made from a policy's logits.

    It travels with the rollout, so that `evaluate` scores exactly the distribution that acted.
    """

    temperature: float = 1.0
    support: Tensor | None = None  # bool, broadcastable to [B, T, V]: the tokens that were allowed
    autocast: dtype | None = None  # in which the policy's networks computed, if not in their own


RAW = Behaviour()  # the policy as it is


class SoftTokens(NamedTuple):
    """Several words in one place, read as the weighted mean of their embeddings."""

    words: Tensor  # […, k]
    weights: Tensor  # […, k], which sum to 1


class Logits(Protocol):
    """The logits of every state, made again chunk by chunk when asked: `[B, T, V]` never exists."""

    @property
    def features(self) -> Tensor:
        """What they are made from, `[B, T, H]`."""

    def reduce(self, what: Callable[..., Tensor], *others: Logits | Tensor) -> Tensor:
        """`what(logits [n, V], …) -> [n]` or `[n, k]` of every state, as `[B, T]` or `[B, T, k]`.

        Args:
            what: of these logits, and of those of the others, in that order; forbidden tokens have FORBIDDEN.
            others: logits of the same actions under other policies, or one number for each, `[B, T]`.
        """

    def divergence(self, other: Logits) -> Tensor:
        """KL(π ‖ π_other) in every state, `[B, T]`."""


class Evaluation(NamedTuple):
    """A policy's second look at whole sequences; every tensor is `[B, T]`."""

    log_probs: Tensor
    entropy: Tensor
    values: Tensor | None = None
    top: Tensor | None = None  # the probability of the likeliest token
    logits: Logits | None = None  # where a loss or a penalty wants to see all tokens


class Policy(Protocol):
    """Any `nn.Module` with these three methods; `evaluate` must agree with `step`, token by token."""

    def start(self, context: Context) -> State:
        """The state before the first token."""

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """Read one token per row `[B]`; return the logits `[B, V]` of the next, and the new state."""

    def evaluate(self, actions: Tensor, context: Context, behaviour: Behaviour = RAW) -> Evaluation:
        """Score whole sequences in one differentiable pass, as the distribution `behaviour`.

        The policies of this house also take `written`: what is read in place of the actions.
        """


class EpisodeStats(NamedTuple):
    """What episodes brought, `[n]` each."""

    returns: Tensor
    lengths: Tensor
    cut: Tensor  # bool: did not end by themselves


@dataclass(frozen=True, eq=False)
class Rollout:
    """B rows of at most T actions, batch-major: one finished text each, or a stretch of another kind of task.

    The last block is what an agent adds before it learns; the last three, `PolicyGradient.judged`.
    """

    actions: Tensor  # [B, T] int64: the tokens, 0 where there is none; [B, T, A] where they are vectors
    mask: Tensor  # [B, T] bool, True on real actions (EOS is a real action)
    log_probs: Tensor  # [B, T] float32, under the distribution that really acted
    rewards: Tensor  # [B, T]
    values: Tensor | None  # [B, T], V of the state in which an action was chosen
    ends: Tensor  # [B, T] bool, True where an episode ended
    bootstrap: Tensor | None  # [B, T]: V of the state after an action where a row is cut off, else 0
    context: Context
    behaviour: Behaviour = RAW
    samples: int = 1  # K: rows iK … iK+K−1 share a context

    credit: Tensor | None = None  # [B, T]: what actions are credited with, if more was asked than rewards
    written: Tensor | SoftTokens | None = None  # [B, T]: what is read in place of the actions, if not they
    kl_penalty: Tensor | None = None  # [B, T]: what rewards have paid for leaving the reference policy
    greedy: Tensor | None = None  # [B]: return of the greedy text of the same context
    features: Tensor | None = None  # [B, T, H]: what the policy's head reads
    demonstrations: Rollout | None = None  # demonstrations of the same contexts
    advantages: Tensor = None  # type: ignore[assignment]  # [B, T]: how much better than expected
    targets: Tensor = None  # type: ignore[assignment]  # [B, T]: what V should have said
    weights: Tensor = None  # type: ignore[assignment]  # [B, T]: how much every action counts

    @property
    def returns(self) -> Tensor:
        """R = Σₜ rₜ of every row, `[B]`."""
        return self.rewards.sum(1)

    @property
    def lengths(self) -> Tensor:
        """Number of real actions of every row, `[B]`."""
        return self.mask.sum(1)

    @property
    def earned(self) -> EpisodeStats:
        """What there is to report of every episode."""
        paid = self.returns if self.kl_penalty is None else self.returns + self.kl_penalty.sum(1)
        return EpisodeStats(paid, self.lengths, self.lengths == self.mask.shape[1])

    def as_transitions(self) -> Rollout:
        """The same with rows that may be learned from in any order and company: whole texts."""
        return self

    def take(self, rows: Tensor | slice) -> Self:
        """Some of the rows; what they count stays as it was."""
        parts = {field.name: _rows_of(getattr(self, field.name), rows) for field in fields(self)}
        return replace(self, **parts)

    def trimmed(self) -> Self:
        """No wider than the longest text, for there is nothing to learn behind it: a look at the device."""
        used = self.mask.any(0).nonzero()
        width = int(used.max()) + 1 if len(used) else 1
        if width == self.mask.shape[1]:
            return self
        steps = {name: _steps_of(getattr(self, name), width) for name in _BY_STEP}
        behaviour = self.behaviour
        if behaviour.support is not None and behaviour.support.ndim == 3:
            behaviour = behaviour._replace(support=behaviour.support[:, :width])
        return replace(
            self,
            behaviour=behaviour,
            demonstrations=self.demonstrations and self.demonstrations.trimmed(),
            **steps,
        )


_BY_STEP = (  # what has a place for every step
    *(
        "actions",
        "mask",
        "log_probs",
        "rewards",
        "values",
        "ends",
        "bootstrap",
        "credit",
        "written",
        "kl_penalty",
    ),
    *("features", "advantages", "targets", "weights"),
)


def _steps_of(part: Any, width: int) -> Any:
    if isinstance(part, SoftTokens):
        return SoftTokens(part.words[:, :width], part.weights[:, :width])
    return None if part is None else part[:, :width]


def _rows_of(part: Any, rows: Tensor | slice) -> Any:
    if isinstance(part, Tensor) or part is None:
        return part if part is None else part[rows]
    if isinstance(part, Behaviour):  # a support of every row, or one of all
        if part.support is None or part.support.ndim < 3 or len(part.support) == 1:
            return part
        return part._replace(support=part.support[rows])
    if isinstance(part, SoftTokens):
        return SoftTokens(part.words[rows], part.weights[rows])
    if isinstance(part, Mapping):
        return {name: value[rows] for name, value in part.items()}
    if isinstance(part, Rollout):
        return part.take(rows)
    return part


class SteppedEnv(ABC):
    """A task of another kind than writing, which steps itself (`rlseq.adapters`)."""

    counts: Counts

    @abstractmethod
    def check(self, agent: Any) -> None:
        """Refuse, before anything is sampled, an agent that cannot learn from it."""

    @abstractmethod
    def rollout(self, policy: Any, decode: Any, **given: Any) -> Rollout:
        """What `rlseq.rollout` is to return; `given` are its other arguments."""

    @abstractmethod
    def evaluate(self, policy: Any, decode: Any, limit: int | None) -> dict[str, float]:
        """What `rlseq.evaluate` is to return."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What a run's folder keeps of it."""
