"""`SampleReuse`: policy gradients that learn from a batch several times, or from one of older weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rlseq.engine.computing import OFF
from rlseq.mdp.sequence_env import unwrap_task
from rlseq.policy_gradient.algorithm import PolicyGradient
from rlseq.policy_gradient.worker import Worker, check_for_workers
from rlseq.types import LearningBatch, Rollout
from rlseq.utils.arguments import PositiveInt
from rlseq.utils.stateful import Stateful


@dataclass(eq=False)
class SampleReuse(PolicyGradient):
    """The base of policy gradients whose loss allows for samples of older weights.

    It has a ratio π/π_old, by which such samples count more or less, or a minimum that does not depend on the
    policy that wrote them.
    """

    epochs: PositiveInt = 1  # number of passes over a batch
    overlap: bool = False  # a thread writes the next batch while this one is learned from

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.overlap and self.compile != OFF:
            raise ValueError("compiled code is made for one thread; leave compile or overlap out")
        self.ahead = Worker(self, type(self).gather) if self.overlap else None

    def stateful_parts(self) -> dict[str, Stateful]:
        """Return the parts that have a state, the thread that writes ahead among them."""
        return super().stateful_parts() | ({} if self.ahead is None else {"ahead": self.ahead})

    def check(self, env: Any) -> None:
        """Refuse a task that does not fit the factors, or whose batches cannot be written ahead."""
        super().check(env)
        if not self.overlap:
            return
        check_for_workers("overlap", unwrap_task(env))
        if type(self).catch_up is not PolicyGradient.catch_up:
            raise ValueError(
                f"overlap writes the next batch while {type(self).__name__} learns its reward; leave "
                "overlap out"
            )

    def collect(self, env: Any) -> Rollout:
        """Return samples of the policy; with `overlap` those of its weights one update before."""
        if self.ahead is None:
            return super().collect(env)
        env = unwrap_task(env)
        self.check(env)
        if self.ahead.seed is None:
            self.ahead.begin(env, self.policy)
        else:
            self._ratio_checked = True  # the batch is not of the policy as it is now
        batch = self.ahead.finish(env)
        self.ahead.begin(env, self.policy)
        return batch

    def minibatches_of(self, batch: LearningBatch) -> Iterator[LearningBatch]:
        """Yield the minibatches of all passes over a batch."""
        for _ in range(self.epochs):
            yield from super().minibatches_of(batch)
