"""The difference of two models on the same test items, tested and in words."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from rlseq.compare.statistics import approximate_randomisation, mean_interval, paired_difference
from rlseq.utils.files import Json


def difference(new: ArrayLike, old: ArrayLike) -> Json:
    """Return the paired difference new − old with its interval, in relation to old, and its p-value.

    Args:
        new: the score of every item, `[N]`.
        old: the same of the other model.
    """
    gain, before = paired_difference(new, old), float(mean_interval(old).estimate)
    return {
        **{name: _plain(value) for name, value in gain._asdict().items()},
        "relative": float(gain.estimate) / abs(before) if before else 0.0,
        "p": approximate_randomisation(new, old),
    }


def _plain(value: Any) -> float | int:
    return value if isinstance(value, int) else float(value)
