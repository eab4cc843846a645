"""The types that all of rlseq shares: batch-major tensors, one mask, one layout `[B, T]`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, dtype, nn
from typing_extensions import Self

from rlseq.utils.ranks import Rank

Context = Mapping[str, Tensor]
"""What an episode is about ("index", "source", "references", …); every tensor has B rows."""

State = Any
"""A policy's memory of a prefix: nested tuples of tensors with B rows (so rows can be forked)."""

Metrics = dict[str, Tensor]
"""Named scalars of an update; they stay on the device until somebody prints them."""

Reward = Callable[[Tensor, Tensor, Context], Tensor]
"""`(tokens [B, T], mask [B, T], context) -> [B]` for the finished text, or `[B, T]` per token."""

HeldOut = Mapping[str, Any] | None
"""The options that make a task of its held-out items; None where it declares none."""

LegalRule = Callable[[Tensor, Tensor], Tensor]
"""`(tokens [n, T], length [n]) -> bool [n, V]`: what is allowed behind the first `length` tokens of a row."""

RewardLike = str | Reward | Mapping[str, Reward]
"""A reward as an option of a task: a function, several by name, or the name of one."""


@dataclass(eq=False)
class Counts:
    """The cost of training on a task so far, without evaluations; values stay tensors until they are read."""

    generated_tokens: Any = 0  # written by policies
    reference_tokens: Any = 0  # of references, imitated or given to a policy to go on from
    episodes: Any = 0  # finished texts, for each of which the reward is computed once

    @contextmanager
    def writing(self, env: Any) -> Iterator[None]:
        """Add the tokens and the episodes that are written inside the block."""
        before = env.length.sum()
        yield
        self.generated_tokens = self.generated_tokens + env.rank.total(env.length.sum() - before)
        self.episodes = self.episodes + env.rank.all(env.num_envs)

    def imitated(self, number: Any) -> None:
        """Move forced tokens of a rollout from the generated ones to those of references."""
        self.generated_tokens = self.generated_tokens - number
        self.reference_tokens = self.reference_tokens + number

    def add(self, other: Counts) -> None:
        """Add other counts."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def as_dict(self) -> dict[str, int]:
        """Return the counts as integers, and `tokens`, the sum of generated and reference tokens."""
        found = {name: int(value) for name, value in vars(self).items()}
        return {"tokens": found["generated_tokens"] + found["reference_tokens"], **found}


@dataclass(frozen=True, eq=False)
class RuleSupport:
    """The tokens that a rule allowed at every step, computed again where they are needed: no `[B, T, V]`."""

    rule: LegalRule
    tokens: Tensor  # [B, T]: the texts, as wide as they may become

    def at(self, row: Tensor, step: Tensor) -> Tensor:
        """Return what was allowed in some rows `[n]` at some steps `[n]`, bool `[n, V]`."""
        return self.rule(self.tokens[row], step)

    def masks(self, steps: int) -> Tensor:
        """Return what was allowed at the first steps of all rows, bool `[B, steps, V]`."""
        every = [torch.full_like(self.tokens[:, 0], step) for step in range(steps)]
        return torch.stack([self.rule(self.tokens, step) for step in every], 1)


class Behaviour(NamedTuple):
    """The settings by which the distribution that acts is made from a policy's logits.

    It travels with the rollout, so that `evaluate` scores exactly the distribution that acted; its support is
    applied to logits by `rlseq.engine.decode.acting_logits`.
    """

    temperature: float = 1.0
    support: Tensor | RuleSupport | None = None  # the tokens allowed: bool, broadcastable to [B, T, V]
    autocast: dtype | None = None  # in which the policy's networks computed, if not in their own

    def at(self, states: Tensor, steps: int) -> Behaviour:
        """Return the behaviour in some states `[n]`, numbered along the rows of `[B, steps]`.

        Its support is `[n, V]`, or the `[V]` of all states.
        """
        support, row, step = self.support, states // steps, states % steps
        if isinstance(support, RuleSupport):
            return self._replace(support=support.at(row, step))
        if support is None or support.ndim == 1:
            return self
        support = support[(None,) * (3 - support.ndim)]
        return self._replace(support=support[row % support.shape[0], step % support.shape[1]])

    def take(self, rows: Tensor | slice) -> Behaviour:
        """Return the behaviour in some rows: a support of every row, or one of all."""
        support = self.support
        if isinstance(support, RuleSupport):
            return self._replace(support=replace(support, tokens=support.tokens[rows]))
        if support is None or support.ndim < 3 or len(support) == 1:
            return self
        return self._replace(support=support[rows])


RAW = Behaviour()  # the policy as it is
NOISE = "noise"  # the entry of a context that holds z, `[B, Z]`, where a task draws it


class SoftTokens(NamedTuple):
    """Several words in one place, read as the weighted mean of their embeddings."""

    words: Tensor  # […, k]
    weights: Tensor  # […, k], which sum to 1


class Shifted(NamedTuple):
    """Words to whose embeddings a vector is added."""

    words: Any  # a tensor or `SoftTokens`, […]
    shift: Tensor  # […, E], or what can be broadcast to it


WordsRead = Tensor | SoftTokens | Shifted  # the forms in which a policy reads words


class Logits(Protocol):
    """The logits of every state, made again chunk by chunk when asked: `[B, T, V]` never exists."""

    @property
    def features(self) -> Tensor:
        """The hidden states from which the logits are computed, `[B, T, H]`."""

    def reduce(self, what: Callable[..., Tensor], *others: Logits | Tensor) -> Tensor:
        """`what(logits [n, V], …) -> [n]` or `[n, k]` of every state, as `[B, T]` or `[B, T, k]`.

        Args:
            what: of these logits, and of those of the others, in that order; forbidden tokens have FORBIDDEN.
            others: logits of the same actions under other policies, or numbers for each, `[B, T]` or
                `[B, T, k]`.
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

        Policies of rlseq also take `inputs`: what is read in place of the actions.
        """


class BasePolicy(nn.Module):
    """A policy that offers agents more than `Policy` asks for; by default it offers nothing more."""

    differentiable_step: bool = True  # False where `step` writes its state in place
    packs: bool = False  # True where `evaluate` takes the mask of real actions, to skip padding on a CPU

    def update_statistics(self, batch: Rollout) -> None:
        """Update running statistics of the inputs; called after a batch, never while it is learned from."""

    def describe(self) -> dict[str, Any]:
        """Return plain values, beside its name and sizes, with which the policy can be made again."""
        return {}

    def frozen_copy(self) -> nn.Module:
        """Return the policy as it is now, to be a reference: a copy whose weights do not change."""
        return deepcopy(self).requires_grad_(False)


class EpisodeStats(NamedTuple):
    """Returns and lengths of episodes, `[n]` each."""

    returns: Tensor
    lengths: Tensor
    cut: Tensor  # bool: stopped by a limit


@dataclass(frozen=True, eq=False)
class Rollout:
    """The actions of a policy: B rows of at most T actions, batch-major.

    A row is one finished text. Where episodes are longer than a batch, it is a segment in which episodes end
    and begin, and `last_episodes` has the statistics of the episodes. The last fields are added by an agent.
    """

    actions: Tensor  # [B, T] int64: the tokens, 0 where there is none; [B, T, A] where they are vectors
    mask: Tensor  # [B, T] bool, True on real actions (EOS is a real action)
    log_probs: Tensor  # [B, T] float32, under the distribution that acted
    rewards: Tensor  # [B, T]
    values: Tensor | None  # [B, T], V of the state in which an action was chosen
    ends: Tensor  # [B, T] bool, True where an episode ended
    bootstrap: Tensor | None  # [B, T]: V of the state after an action where a row is cut off, else 0
    context: Context
    behaviour: Behaviour = RAW
    samples: int = 1  # K: rows iK … iK+K−1 share a context
    last_episodes: EpisodeStats | None = None  # that ended in these segments or before them
    reached: Tensor | None = None  # [B, T, …]: observed after an action, in segments, before any reset
    cut: Tensor | None = None  # [B, T] bool: an episode ended there by a time limit, and was not over

    credit: Tensor | None = None  # [B, T]: what actions are credited with, if a credit stores it
    action_values: Tensor | None = None  # [B, T, V]: Q of every action
    inputs: Tensor | SoftTokens | None = None  # [B, T]: what the policy reads, if not the actions
    kl_penalty: Tensor | None = None  # [B, T]: subtracted from rewards for leaving the reference policy
    greedy: Tensor | None = None  # [B]: return of the greedy text of the same context
    features: Tensor | None = None  # [B, T, H]: what the policy's head reads
    reference_log_probs: Tensor | None = None  # [B, T], of the actions under the reference policy
    score_norms: Tensor | None = None  # [B, T]: squared norm of the gradient of log π(a) in the logits
    demonstrations: Rollout | None = None  # references of the same contexts
    given: Tensor | None = None  # [B, T] bool: words that the task gave, which the policy did not choose
    longest: int | None = None  # no row has more steps, where that is known without waiting for the device

    @property
    def returns(self) -> Tensor:
        """The sum of the rewards of every row, `[B]`."""
        return self.rewards.sum(1)

    @property
    def lengths(self) -> Tensor:
        """The number of real actions of every row, `[B]`."""
        return self.mask.sum(1)

    @property
    def episodes(self) -> EpisodeStats:
        """Statistics of the episodes, with the rewards that the task paid."""
        if self.last_episodes is not None:
            return self.last_episodes
        returns = self.returns if self.kl_penalty is None else self.returns + self.kl_penalty.sum(1)
        return EpisodeStats(returns, self.lengths, self.lengths == self.mask.shape[1])

    def take(self, rows: Tensor | slice) -> Self:
        """Return some of the rows, with `samples` as it was."""
        return replace(self, **{name: _rows(part, rows) for name, part in vars(self).items()})

    def put(self, rows: Tensor, other: Rollout) -> Self:
        """Return the batch with the texts of another in place of some rows, before an agent adds anything."""
        new = {
            name: _with_rows(part, rows, getattr(other, name), self.mask.shape)
            for name, part in vars(self).items()
        }
        return replace(self, **{**new, "longest": None})

    @property
    def width(self) -> int:
        """The number of steps of the longest row, at least 1; reading it may wait for the device."""
        return int(self.last_step) if self.longest is None else self.longest

    @property
    def last_step(self) -> Tensor:
        """The number of steps of the longest row, at least 1, on the device."""
        places = torch.arange(1, self.mask.shape[1] + 1, device=self.mask.device)
        return (self.mask.any(0) * places).amax().clamp(min=1)

    def trimmed(self, width: int | None = None) -> Self:
        """Return the batch without the steps after its longest row.

        Args:
            width: the number of steps that are kept; if not given, `width`, for which the host waits.
        """
        width = self.width if width is None else width
        if width == self.mask.shape[1]:
            return self
        behaviour = self.behaviour
        if isinstance(behaviour.support, Tensor) and behaviour.support.ndim == 3:
            behaviour = behaviour._replace(support=behaviour.support[:, :width])
        demonstrations = self.demonstrations and self.demonstrations.trimmed()
        steps = self._by_step(lambda part: part[:, :width])
        return replace(self, **{**steps, "behaviour": behaviour, "demonstrations": demonstrations})

    def as_transitions(self) -> Self:
        """Return every real action of segments as a row of its own, `[n, 1]`, for any order of learning."""
        real = self.mask.flatten().nonzero().squeeze(1)

        def apart(part: Tensor) -> Tensor:
            flat = part.flatten(0, 1).unsqueeze(1)
            return flat if len(real) == len(flat) else flat[real]

        support = self.behaviour.support
        return replace(
            self,
            **self._by_step(apart),
            context={
                "observation": apart(self.context["observation"]),
                "index": self.context["index"].repeat_interleave(self.mask.shape[1])[real],
            },
            behaviour=self.behaviour._replace(
                support=apart(support) if isinstance(support, Tensor) else support
            ),
        )

    def _by_step(self, change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """Return the changed fields of those that hold a value for every step."""
        shape = self.mask.shape
        found: dict[str, Any] = {
            name: change(part)
            for name, part in vars(self).items()
            if isinstance(part, Tensor) and part.shape[:2] == shape
        }
        if isinstance(self.inputs, SoftTokens):
            found["inputs"] = SoftTokens(*map(change, self.inputs))
        return found


def _rows(part: Any, rows: Tensor | slice) -> Any:
    """Return some rows of a field of a rollout; fields that have no rows stay as they are."""
    if isinstance(part, Tensor):
        return part[rows]
    if isinstance(part, SoftTokens):
        return SoftTokens(part.words[rows], part.weights[rows])
    if isinstance(part, Mapping):
        return {name: value[rows] for name, value in part.items()}
    return part.take(rows) if isinstance(part, (Behaviour, Rollout)) else part


def _with_rows(part: Any, rows: Tensor, new: Any, shape: Sequence[int]) -> Any:
    """Return a field of a rollout of `shape` `[B, T]` with new values in some rows."""
    if isinstance(part, Tensor):
        return part.index_copy(0, rows, new)
    if isinstance(part, Behaviour):
        return part._replace(support=_support_with_rows(part.support, rows, new.support, shape))
    if isinstance(part, Mapping):
        return {name: _with_rows(value, rows, new[name], shape) for name, value in part.items()}
    return part


def _support_with_rows(support: Any, rows: Tensor, new: Any, shape: Sequence[int]) -> Any:
    """Return which tokens were allowed: by a rule, in all rows alike, or a mask of every state."""
    if isinstance(support, RuleSupport):
        return replace(support, tokens=support.tokens.index_copy(0, rows, new.tokens))
    masks = [each for each in (support, new) if each is not None]
    if not masks or (len(masks) == 2 and masks[0].shape == masks[1].shape[-1:] and torch.equal(*masks)):
        return support
    everything = torch.ones(masks[0].shape[-1], dtype=torch.bool, device=rows.device)
    old, fresh = (everything if each is None else each for each in (support, new))
    return old.expand(*shape, -1).index_copy(0, rows, fresh.expand(len(rows), shape[1], -1))


@dataclass(frozen=True, eq=False, kw_only=True)
class LearningBatch(Rollout):
    """A rollout with everything that its loss needs, computed before anything is learned from it."""

    advantages: Tensor  # [B, T]: how much better an action was than expected
    targets: Tensor  # [B, T]: the returns that V is regressed on
    weights: Tensor  # [B, T]: how much every action counts in a step
    demonstrations: LearningBatch | None = None


@runtime_checkable
class LearningReward(Protocol):
    """A reward that learns from the batches of training, as curiosity does; fixed between updates."""

    def __call__(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """The reward, `[B]` or `[B, T]`."""

    def learn(self, batch: Rollout) -> None:
        """Learn from a batch; called after each update."""


class SteppedEnv(ABC):
    """A task that steps itself, of another kind than writing texts (`rlseq.adapters`)."""

    counts: Counts
    single_action_space: Any  # of Gymnasium, of one row

    def set_progress(self, done: float) -> None:  # noqa: B027  (most tasks change nothing)
        """Note the share of training that is done; called before each update."""

    def learn(self, batch: Rollout) -> None:  # noqa: B027
        """Note a batch; called after each update."""

    def of_rank(self, me: Rank) -> Self:
        """Return the rows of one of several processes that train together, the same in every process."""
        raise ValueError(f"{type(self).__name__} is trained on by one process; start it without torchrun")

    @abstractmethod
    def check(self, agent: Any) -> None:
        """Refuse, before anything is sampled, an agent that cannot learn from it."""

    @abstractmethod
    def rollout(self, policy: Any, decode: Any, **given: Any) -> Rollout:
        """Return what `rlseq.rollout` is to return; `given` are its other arguments."""

    @abstractmethod
    def evaluate(self, policy: Any, decode: Any, limit: int | None) -> dict[str, float]:
        """Return what `rlseq.evaluate` is to return."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return the description of the task that a run keeps, as plain values."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return the state that a checkpoint keeps."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
