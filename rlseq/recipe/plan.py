"""Numbers of updates and texts of a fit whose time is limited: each is chosen once, by measured speeds."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple

from rlseq.agents import make_agent
from rlseq.engine.evaluation import evaluate_texts
from rlseq.recipe.clock import Clock
from rlseq.recipe.config import FitConfig
from rlseq.recipe.stages import EVALUATIONS, EVERY, Stage

PATIENCE_EACH = 4, 3  # looks without a better one: at the first step size, and at the second
FALL = 0.15  # of the second step size of likelihood, in relation to the first
LOOKS = 20  # of likelihood, at least, where time is limited
LIKELIHOOD = 0.5, 0.6  # shares of the time until which its first step size may last, and its second
TESTS = 0.2  # share of the time for evaluations on dev and on test
MARGIN = 0.9  # share of the time left that is planned: speeds vary
TRIALS = 3  # updates by which speed is measured
TRIED_TEXTS = 64  # items by which the speed of an evaluation is measured
MOST_TEXTS, LEAST_TEXTS = (500, 2000), (100, 200)  # items of an evaluation, of dev and of test


class TextLimits(NamedTuple):
    """The most items of an evaluation."""

    dev: int
    test: int


@dataclass(frozen=True)
class Plan:
    """The amounts of a fit; without a limit of time those of its configuration.

    Args:
        config: of the fit.
        clock: counts the time, and keeps what was chosen.
        task: makes the task of a part, given its name and a number of rows.
        rows: of a batch.
    """

    config: FitConfig
    clock: Clock
    task: Callable[[str, int], Any]
    rows: int

    def every(self, policy: Any) -> int:
        """Return the updates of likelihood between two looks at dev."""
        most = max(1, min(EVERY, self.config.updates // 8))
        limit = self.clock.limit
        if limit is None:
            return most
        return self.clock.once(
            "every",
            lambda: int(min(most, max(1.0, LIKELIHOOD[1] * limit / LOOKS / self._speed("mle", policy)))),
        )

    def stages(self, lr: float, every: int) -> tuple[Stage, Stage]:
        """Return likelihood at a step size, and from the best weights at a smaller one."""
        first = max(every, self.config.updates * 3 // 4)
        second = max(every, self.config.updates - first)
        return Stage(first, lr, PATIENCE_EACH[0]), Stage(second, FALL * lr, PATIENCE_EACH[1])

    def late(self, look: str) -> bool:
        """Return whether a stage of likelihood has had its time."""
        share = LIKELIHOOD[0 if look.startswith("stage 1") else 1]
        return self.clock.once(f"stop at {look}", lambda: self.clock.left(share) <= 0)

    def texts(self, policy: Any) -> TextLimits:
        """Return the items of each of the many evaluations on dev, and of the three on test."""
        limit = self.clock.limit
        if limit is None:
            return TextLimits(*MOST_TEXTS)
        each = self.clock.once("seconds of a text", lambda: self._seconds_of_a_text(policy))
        affordable = (TESTS * limit / 2 / times / each for times in (2 * EVALUATIONS + 1, 3))
        parts = zip(affordable, LEAST_TEXTS, MOST_TEXTS, strict=True)
        return TextLimits(*(int(min(most, max(least, items))) for items, least, most in parts))

    def reward_updates(self, policy: Any, agents: dict[str, Callable[[Any], Any]]) -> int:
        """Return the updates of each of the last stages for which there is time.

        Args:
            policy: as it is before them; copies of it are trained.
            agents: of the stages, made of a policy.
        """
        if self.clock.limit is None:
            return self.config.reward_updates
        return self.clock.once("reward updates", lambda: self._affordable(policy, agents))

    def _affordable(self, policy: Any, agents: dict[str, Callable[[Any], Any]]) -> int:
        each = sum(self._speed_of(make(deepcopy(policy))) for make in agents.values())
        left = MARGIN * self.clock.left(1 - TESTS)
        return max(0, min(self.config.reward_updates, int(left / each)))

    def _speed(self, agent: str, policy: Any) -> float:
        return self._speed_of(make_agent(agent, deepcopy(policy)))

    def _speed_of(self, agent: Any) -> float:
        """Measure the seconds of an update."""
        env = self.task("train", self.rows)

        def update() -> None:
            with agent.computing():
                agent.update(agent.collect(env))

        update()
        began = time.perf_counter()
        for _ in range(TRIALS):
            update()
        return (time.perf_counter() - began) / TRIALS

    def _seconds_of_a_text(self, policy: Any) -> float:
        dev = self.task("dev", TRIED_TEXTS)
        began = time.perf_counter()
        evaluate_texts(policy, dev, limit=TRIED_TEXTS)
        return (time.perf_counter() - began) / float(min(TRIED_TEXTS, dev.size))
