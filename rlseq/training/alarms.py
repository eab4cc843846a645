"""Alarms: signs of failing training in the metrics of an agent, with the likely cause.

An alarm is a function of the rows of metrics so far that returns a description of the problem, or None.
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
TOLD, UNREADABLE = 0.3, 0.5  # probability of a source's word, and the share of it that shows a secret code


def not_a_number(rows: MetricRows) -> str | None:
    """Report metrics that are NaN or infinite."""
    bad = [name for name, value in rows[-1].items() if not math.isfinite(value)]
    if not bad:
        return None
    return (
        f"{', '.join(bad)} is not finite: the step size is too large, or a reward or a log-probability is "
        "not finite"
    )


def entropy_collapse(rows: MetricRows) -> str | None:
    """Report that the policy has become almost deterministic."""
    first, now = rows[0].get("entropy"), rows[-1].get("entropy")
    if first is None or now is None or now > LOW_ENTROPY * first:
        return None
    return (
        f"entropy fell from {first:.3g} to {now:.3g} nats per token: nothing new is sampled or learned; "
        "lower lr, add entropy=0.01 or kl=0.1, or stop training"
    )


def runaway(rows: MetricRows) -> str | None:
    """Report a policy that is far from its reference or its start."""
    for name in ("kl_reference", "kl_start", "kl_behaviour"):
        if rows[-1].get(name, 0.0) > FAR:
            return (
                f"{name} is {rows[-1][name]:.3g} nats per token: the policy is far from where it started; "
                "lower lr or epochs, or raise kl"
            )
    return None


def all_groups_equal(rows: MetricRows) -> str | None:
    """Report that all texts of every context have the same reward."""
    last = [row.get("equal_groups", 0.0) for row in rows[-PATIENCE:]]
    if len(last) < PATIENCE or min(last) < 1:
        return None
    return (
        f"for {PATIENCE} updates all texts of a context had the same reward, so there is no gradient: the "
        "reward does not vary (too hard, too easy, or constant), or the policy generates one text only"
    )


def secret_code(rows: MetricRows) -> str | None:
    """Report texts from which their sources can be told again, but which others cannot read."""
    row = rows[-1]
    told = row.get("reconstruction", 0.0)
    bad = [name for name in ("content", "fluency") if row.get(name, 1.0) < UNREADABLE * told]
    if told < TOLD or not bad:
        return None
    seen = " and ".join(f"{name} is {row[name]:.2f}" for name in bad)
    return (
        f"a source's words have probability {told:.2f} given the text, but {seen}: policy and reconstructor "
        "agree on a code of their own; give the task's reward or a discriminator more weight"
    )


_ALL = (not_a_number, entropy_collapse, runaway, all_groups_equal, secret_code)
ALARMS: dict[str, Alarm] = {alarm.__name__: alarm for alarm in _ALL}


class Stopped(RuntimeError):
    """The exception with which an alarm stops training."""


class AlarmWarning(UserWarning):
    """The warning of an alarm."""


def warn(message: str) -> None:
    """Issue a warning and continue."""
    warnings.warn(message, AlarmWarning, stacklevel=4)


def stop(message: str) -> None:
    """Stop training with an exception."""
    raise Stopped(message)


RESPONSES: dict[str, Callable[[str], None]] = {"warn": warn, "stop": stop, "ignore": lambda message: None}


@dataclass(eq=False)
class AlarmMonitor:
    """Checks every row of metrics; each alarm is raised once and recorded in `said`.

    Args:
        response: "warn", "stop", "ignore", or a function of the message.
        alarms: the alarms by name.
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
        """Check another row of metrics."""
        self.rows = [*self.rows[:1], *self.rows[1:][-PATIENCE:], row]
        for name, alarm in self.alarms.items():
            message = None if name in self.given else alarm(self.rows)
            if message is not None:
                self.given.append(name)
                update = row.get("update")
                where = "" if update is None else f"update {update:.0f}: "
                self.say(f"{where}{name}: {message}")

    def say(self, message: str) -> None:
        """Record a message and respond to it."""
        self.said.append(message)
        self.respond(message)

    def state_dict(self) -> dict[str, Any]:
        """Return the alarms that were raised, and the rows that later alarms need."""
        return {"rows": list(self.rows), "said": list(self.said), "given": list(self.given)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state, so that alarms of a resumed run are not raised again."""
        self.rows, self.said, self.given = list(state["rows"]), list(state["said"]), list(state["given"])
