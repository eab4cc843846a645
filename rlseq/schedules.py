"""Schedules of the step size: the share of training that is done → the share of `lr` that is taken.

A policy that has converged at one step size keeps the noise of its last steps; falling to zero takes it away.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

from rlseq.arguments import Share, checked_arguments, shown
from rlseq.errors import pick

Schedule = Callable[[float], float]


@checked_arguments
def constant(done: Share) -> float:
    """1, or whatever the optimiser is set to by others."""
    return 1.0


@checked_arguments
def linear(done: Share) -> float:
    """1 − x."""
    return 1.0 - done


@checked_arguments
def cosine(done: Share) -> float:
    """(1 + cos πx) / 2."""
    return (1.0 + math.cos(math.pi * done)) / 2


@checked_arguments
def scheduled(schedule: Schedule | str) -> Schedule:
    """A schedule by name, or as it is."""
    if isinstance(schedule, str):
        return pick(SCHEDULES, schedule, "schedule")
    return schedule


def checked_share(share: Any, done: float) -> float:
    """Return the answer of a schedule, a finite number ≥ 0, as a float."""
    if not isinstance(share, Real) or not 0 <= float(share) < math.inf:
        raise ValueError(
            f"schedule must return a finite number ≥ 0, the share of lr, got {shown(share)} "
            f"when {done:.4g} of training is done"
        )
    return float(share)


def handed_over(done: float, xent_share: float, longest: int, delta: int) -> int:
    """Words at the end of a reference that are no longer given, in a curriculum from likelihood to own words.

    None for the first `xent_share` of training; then `delta`, 2 `delta`, … in stages of equal length, so that
    in the last of them no reference of at most `longest` words is given at all (Ranzato et al. 2016).
    """
    if done < xent_share:
        return 0
    stages = math.ceil(longest / delta)
    stage = 1 + int((done - xent_share) / (1 - xent_share) * stages + 1e-9)  # rounding ends no stage late
    return delta * min(stage, stages)


SCHEDULES: dict[str, Schedule] = {"constant": constant, "linear": linear, "cosine": cosine}
