"""Curricula: where training episodes begin, easy ones first.

What comes back shares episodes, contexts and random numbers with the task that was given; use one of them.
Evaluations begin as always.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor

from rlseq.engine.references import check_has_references
from rlseq.envs.wrappers.regimes import TwoRegimes
from rlseq.mdp.sequence_env import SequenceEnv
from rlseq.mdp.starts import Starts
from rlseq.types import Context, Rollout
from rlseq.utils.arguments import Checked, OpenShare, Share, checked_arguments
from rlseq.utils.errors import check_options, pick
from rlseq.utils.ranks import gathered, total
from rlseq.utils.stateful import TensorState

_E = TypeVar("_E", bound=SequenceEnv)
Difficulty = Callable[[Context], Tensor]  # contexts [n] -> a number for each [n], small where it is easy
COUNTED_TOGETHER = 4096  # items whose difficulty is computed together
DECAY = 0.8  # share of a success rate that is kept at every batch
ROUND_STEP = 7919  # a prime: from batch to batch an item begins at another place


def text_length(context: Context) -> Tensor:
    """Return the length of the first reference."""
    return context["reference_lengths"][:, 0]


class Pacing(Protocol):
    """The share of the items of a task that is open, the easiest first."""

    share: float

    def set_progress(self, done: float) -> None:
        """Note the share of training that is done."""

    def learn(self, success: Tensor) -> None:
        """Note the mean return of a batch."""


@dataclass
class BySchedule(Checked):
    """The share rises linearly with training.

    Args:
        start: share of the items at the beginning.
        until: share of training after which all items are open.
    """

    start: OpenShare = 0.1
    until: Share = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.share = self.start

    def set_progress(self, done: float) -> None:
        """Open more items."""
        self.share = min(1.0, self.start + (1 - self.start) * done / max(self.until, 1e-9))

    def learn(self, success: Tensor) -> None:
        """Ignore the return."""


@dataclass
class BySuccess(Checked):
    """The share is multiplied whenever the return of the open items is high enough.

    Args:
        start: share of the items at the beginning.
        wanted: mean return of the policy's samples at which more items are opened.
        factor: by how much more.
    """

    start: OpenShare = 0.1
    wanted: float = 0.8
    factor: float = 1.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.share = self.start

    def set_progress(self, done: float) -> None:
        """Ignore the share of training."""

    def learn(self, success: Tensor) -> None:
        """Open more items where the return is high enough."""
        if float(success) >= self.wanted:
            self.share = min(1.0, self.share * self.factor)


class EasyFirst(Starts):
    """Draws items among the easiest share; see `Curriculum`."""

    def __init__(self, env: SequenceEnv, pace: Pacing, difficulty: Difficulty) -> None:
        items = torch.split(torch.arange(env.size, device=env.device), COUNTED_TOGETHER)
        numbers = torch.cat([difficulty({**env.contexts(some), "index": some}) for some in items])
        self.order, self.pace = numbers.argsort(stable=True), pace

    def draw(self, env: Any, number: int) -> Tensor:
        """Return items among the easiest share."""
        open_items = max(1, round(self.pace.share * len(self.order)))
        rows = torch.randint(open_items, (number,), generator=env.generator, device=env.device)
        return self.order[rows]

    def set_progress(self, done: float) -> None:
        """Tell the pace."""
        self.pace.set_progress(done)

    def learn(self, batch: Rollout) -> None:
        """Tell the pace the mean return."""
        self.pace.learn(gathered(batch.episodes.returns).mean())

    def state_dict(self) -> dict[str, Any]:
        """Return the share that is open."""
        return {"share": self.pace.share}

    def load_state_dict(self, state: Any) -> None:
        """Continue from a share."""
        self.pace.share = state["share"]


@checked_arguments
def Curriculum(  # noqa: N802  (a wrapper, as others name theirs)
    env: _E, pace: Pacing | None = None, difficulty: Difficulty = text_length
) -> _E:
    """Return the task with its easy items first (Bengio et al. 2009): any agent then trains on these.

    Args:
        env: the training task.
        pace: `BySchedule()`, the default, or `BySuccess()`, which looks at the returns of the policy's texts.
        difficulty: of items; the length of their first reference when not given.
    """
    if difficulty is text_length:
        check_has_references(env)
    return env.replace(starts=EasyFirst(env, BySchedule() if pace is None else pace, difficulty))


class EdgeOfSuccess(TensorState, Starts):
    """Gives first words of references so that what is left is neither too easy nor too hard.

    See `ReverseCurriculum`. Level w leaves w words to write.
    """

    gives_words: ClassVar[bool] = True
    tensors: ClassVar = ("success", "rounds")

    def __init__(self, env: SequenceEnv, low: float, high: float) -> None:
        self.low, self.high = low, high
        self.success = torch.zeros(env.max_len, device=env.device)  # mean return by words left, from 1
        self.rounds = torch.zeros((), dtype=torch.int64, device=env.device)

    def levels(self) -> Tensor:
        """Return the numbers of words that are left to write in this round."""
        reachable = torch.cat([self.success.new_ones(1), self.success[:-1]]) >= self.low
        edge = reachable.cumprod(0).bool() & (self.success <= self.high)
        edge[-1] |= bool(reachable.all())  # whole texts are never too easy
        return 1 + edge.nonzero().flatten()

    def left(self, context: Context) -> Tensor:
        """Return the words that are left to write in each row: the same for rows of an item in a round."""
        levels = self.levels()
        return levels[(context["index"] + ROUND_STEP * self.rounds) % len(levels)]

    def given(self, context: Context) -> tuple[Tensor, Tensor]:
        """Return the first reference of each row, and how many of its words are given."""
        lengths = context["reference_lengths"][:, 0]
        return context["references"][:, 0].clamp(min=0), (lengths - self.left(context)).clamp(min=0)

    def learn(self, batch: Rollout) -> None:
        """Average the returns of each level that was tried."""
        left, returns = self.left(batch.context), batch.episodes.returns
        number = total(torch.bincount(left - 1, minlength=len(self.success)))
        summed = total(torch.zeros_like(self.success).index_add(0, left - 1, returns.to(self.success)))
        mean = DECAY * self.success + (1 - DECAY) * summed / number.clamp(min=1)
        self.success = torch.where(number > 0, mean, self.success)
        self.rounds = self.rounds + 1


@checked_arguments
def ReverseCurriculum(env: _E, low: float = 0.2, high: float = 0.9) -> _E:  # noqa: N802
    """Return the task in which texts begin with words of a reference, fewer and fewer of them.

    Florensa et al. 2017: begin near the goal; drop beginnings from which the policy nearly always succeeds,
    and go back from those at which it sometimes does. The returns of the policy's texts decide; words that
    are given are not learned from.

    Args:
        env: the training task; it has references.
        low: mean return from which on one word less is given.
        high: mean return above which a beginning is dropped.
    """
    check_has_references(env)
    if not low <= high:
        raise ValueError(f"low must be at most high, got low={low} and high={high}")
    return env.replace(starts=EdgeOfSuccess(env, low, high))


PACES: dict[str, Callable[..., Pacing]] = {"by_schedule": BySchedule, "by_success": BySuccess}
WRAPPERS: dict[str, Callable[..., Any]] = {"reverse": ReverseCurriculum, "regimes": TwoRegimes}
WITHOUT_RETURNS = ("by_schedule", "regimes")  # which likelihood can follow, too


def with_curriculum(env: _E, name: str, **settings: Any) -> _E:
    """Return the task with a curriculum by its name.

    Args:
        env: the training task.
        name: "by_schedule" or "by_success" for short items first, "reverse" for beginnings of references,
            "regimes" for noisy and clean text.
        **settings: fields of `BySchedule` or `BySuccess`, or arguments of `ReverseCurriculum` or
            `TwoRegimes`.
    """
    name = name.replace("-", "_")
    make = pick({**PACES, **WRAPPERS}, name, "curriculum")
    known = {each.name: each.default for each in signature(make).parameters.values() if each.name != "env"}
    check_options(settings, known, f"the curriculum {name}")
    for missing in (each for each, default in known.items() if default is Parameter.empty):
        if missing not in settings:
            raise ValueError(f"the curriculum {name} needs {missing}: {name} {missing}=…")
    return WRAPPERS[name](env, **settings) if name in WRAPPERS else Curriculum(env, make(**settings))
