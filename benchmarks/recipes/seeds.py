"""Stages of equal CPU time, several seeds, and differences over items and over seeds: for several recipes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlseq.compare.statistics import mean_interval
from rlseq.recipe.difference import difference
from rlseq.training.alarms import AlarmMonitor
from rlseq.types import Metrics

LAST = 20  # updates at the end over whose mean reconstruction is reported
Scores = NDArray[np.float64]
Pool = Callable[[Scores], Scores]  # scores of all seeds, [seeds, texts] -> of independent texts, [N]


def updates_of(agent: Any, env: Any, seconds: float) -> Iterator[Metrics]:
    """Update for some CPU seconds, and yield the metrics of every update."""
    start = time.process_time()
    while (spent := time.process_time() - start) < seconds:
        agent.set_progress(spent / seconds)
        yield agent.update(agent.collect(env))


def trained(agent: Any, env: Any, seconds: float) -> int:
    """Train for some CPU seconds; return the number of updates."""
    return sum(1 for _ in updates_of(agent, env, seconds))


def watched(agent: Any, env: Any, seconds: float) -> dict[str, Any]:
    """Train for some CPU seconds; return the number of updates, reconstruction at the end, and alarms."""
    watch, rows = AlarmMonitor("ignore"), list[dict[str, float]]()
    for number, metrics in enumerate(updates_of(agent, env, seconds), 1):
        rows.append({"update": float(number), **{name: float(x) for name, x in metrics.items()}})
        watch(rows[-1])
    last = [row["reconstruction"] for row in rows[-LAST:] if "reconstruction" in row]
    reconstruction = round(sum(last) / len(last), 4) if last else None
    return {"updates": len(rows), "reconstruction": reconstruction, "alarms": watch.said}


def of_same_items(scores: Scores) -> Scores:
    """Return the mean over seeds of each item, where all seeds are tested on the same."""
    mean: Scores = scores.mean(0)
    return mean


def of_all_samples(scores: Scores) -> Scores:
    """Return the samples of all seeds together, where each seed draws its own."""
    return scores.ravel()


def scores_of(found: Sequence[Any], figure: str) -> Scores:
    """Return a figure of the texts of every seed, `[seeds, texts]`."""
    return np.stack([np.asarray(one.scores[figure], np.float64) for one in found])


def compared(mine: Scores, other: Scores, pool: Pool) -> dict[str, Any]:
    """Return the difference of two policies: over texts, and over seeds, each with its own start.

    Args:
        mine: the scores of the texts of every seed, `[seeds, texts]`.
        other: the same of the other policy, of which each seed has the same start.
        pool: makes independent texts of those of all seeds.
    """
    found = dict(difference(pool(mine), pool(other)))
    if len(mine) > 1:
        between = mean_interval(mine.mean(1) - other.mean(1))
        found["over seeds"] = [float(between.low), float(between.high)]
    return found


def means(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean over seeds of every figure."""
    return {name: round(float(np.mean([one[name] for one in figures])), 4) for name in figures[0]}
