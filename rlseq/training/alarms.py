"""Alarms: what an agent's metrics say when training goes wrong, with the likely cause.

An alarm is any function of the rows of metrics so far that returns what is wrong, or None.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlseq.utils.arguments import check_fields
from rlseq.utils.errors import pick

MetricRows = Sequence[dict[str, float]]
Alarm = Callable[[MetricRows], "str | None"]
PATIENCE = 10  # updates for which all groups may be equal
LOW_ENTROPY = 0.02  # share of the entropy at the start
FAR = 3.0  # nats per token from another policy


def not_a_number(rows: MetricRows) -> str | None:
    """A metric is NaN or infinite."""
    bad = [name for name, value in rows[-1].items() if not math.isfinite(value)]
    if not bad:
        return None
    return f"{', '.join(bad)} is not finite: the step size is too large, or a reward or a log-probability is"


def entropy_collapse(rows: MetricRows) -> str | None:
    """The policy hardly chooses any more."""
    first, now = rows[0].get("entropy"), rows[-1].get("entropy")
    if first is None or now is None or now > LOW_ENTROPY * first:
        return None
    return (
        f"entropy fell from {first:.3g} to {now:.3g} nats per token: nothing new is sampled or learned; "
        "lower lr, add entropy=0.01 or kl=0.1, or stop here"
    )


def runaway(rows: MetricRows) -> str | None:
    """The policy is far from where it should stay."""
    for name in ("kl_reference", "kl_start", "kl_behaviour"):
        if rows[-1].get(name, 0.0) > FAR:
            return (
                f"{name} is {rows[-1][name]:.3g} nats per token: the policy ran away from what it knew; "
                "lower lr or epochs, or raise kl"
            )
    return None


def all_groups_equal(rows: MetricRows) -> str | None:
    """The texts of every context earn the same."""
    last = [row.get("equal_groups", 0.0) for row in rows[-PATIENCE:]]
    if len(last) < PATIENCE or min(last) < 1:
        return None
    return (
        f"for {PATIENCE} updates all texts of a context earned the same, so there is no gradient: the reward "
        "has no spread here (too hard, too easy, or constant), or the policy writes one text only"
    )


_ALL = (not_a_number, entropy_collapse, runaway, all_groups_equal)
ALARMS: dict[str, Alarm] = {alarm.__name__: alarm for alarm in _ALL}


class Stopped(RuntimeError):
    """Training was stopped by an alarm."""


class AlarmWarning(UserWarning):
    """Training goes wrong."""


def warn(message: str) -> None:
    """Say so, and go on."""
    warnings.warn(message, AlarmWarning, stacklevel=4)


def stop(message: str) -> None:
    """End training."""
    raise Stopped(message)


RESPONSES: dict[str, Callable[[str], None]] = {"warn": warn, "stop": stop, "ignore": lambda message: None}


@dataclass(eq=False)
class AlarmMonitor:
    """Looks at every row of metrics; each alarm is given once, and recorded in `said`.

    Args:
        response: what to do: "warn", "stop", "ignore", or a function of the message.
        alarms: by name.
    """

    response: str | Callable[[str], None] = "warn"
    alarms: Mapping[str, Alarm] = field(default_factory=lambda: dict(ALARMS))
    rows: list[dict[str, float]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)  # all messages so far
    given: list[str] = field(default_factory=list)  # names of the alarms among them

    def __post_init__(self) -> None:
        check_fields(self)
        response = self.response
        self.respond = pick(RESPONSES, response, "alarms") if isinstance(response, str) else response

    def __call__(self, row: dict[str, float]) -> None:
        """Take in another row."""
        self.rows = [*self.rows[:1], *self.rows[1:][-PATIENCE:], row]
        for name, alarm in self.alarms.items():
            message = None if name in self.given else alarm(self.rows)
            if message is not None:
                self.given.append(name)
                update = row.get("update")
                where = "" if update is None else f"update {update:.0f}: "
                self.say(f"{where}{name}: {message}")

    def say(self, message: str) -> None:
        """Record a message, and respond to it."""
        self.said.append(message)
        self.respond(message)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know: the alarms that were given, and the rows that later ones need."""
        return {"rows": list(self.rows), "said": list(self.said), "given": list(self.given)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there: what was said is not said again."""
        self.rows, self.said, self.given = list(state["rows"]), list(state["said"]), list(state["given"])
