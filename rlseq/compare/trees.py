"""Intervals as they stand in `results.json`: within the range of their metric, and without NaN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlseq.compare.statistics import Interval
from rlseq.metrics.registry import NO_RANGE

Tree = dict[str, Any]
Range = tuple[float, float]


def as_tree(interval: Interval, range: Range = NO_RANGE) -> Tree:
    """An interval as JSON; ends beyond the range are moved to its ends, and `cut` names them.

    Args:
        interval: of one number.
        range: the least and the largest value that there can be.
    """
    low, high = float(interval.low), float(interval.high)
    beyond = {"low": low < range[0], "high": high > range[1]}
    return {
        "estimate": float(interval.estimate),
        "low": _known(range[0] if beyond["low"] else low),
        "high": _known(range[1] if beyond["high"] else high),
        "cut": [end for end, is_beyond in beyond.items() if is_beyond],
        "n": interval.n,
    }


def within(range: Range, values: Sequence[float]) -> Range:
    """A metric's range; none where values beyond it show that another metric has its name."""
    return range if all(range[0] - 1e-6 <= value <= range[1] + 1e-6 for value in values) else NO_RANGE


def without_nan(tree: Any) -> Any:
    """The same tree with null in place of NaN, which JSON does not have."""
    if isinstance(tree, dict):
        return {key: without_nan(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [without_nan(value) for value in tree]
    return _known(tree) if isinstance(tree, float) else tree


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value
