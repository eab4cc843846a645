"""Statistics of agents over few seeds, and of their texts over the same test items.

*Agents* are compared over seeds: would other training runs differ as well? Two sets of *texts* are compared
over items: would the texts for other items differ as well? Percentile bootstraps over few
seeds are too narrow (`benchmarks/results/coverage.json`: at four they hold 88 % instead of 95 %, and half
where one agent is clearly better), so intervals over seeds are studentised, or inverted score tests.

Every function accepts leading axes, so that curves and simulations are one call.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import combinations
from math import comb
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from rlseq.metrics.registry import NO_RANGE, Bounds
from rlseq.utils.files import Json

LEVEL = 0.95
MEMORY = 4_000_000  # numbers that are resampled at a time
Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """An estimate, its interval, and the number of observations that it rests on."""

    estimate: Any  # a float, or an array over the leading axes
    low: Any
    high: Any
    n: int


# ── over seeds ───────────────────────────────────────────────────────────────────────────────────────────


def mean_interval(scores: ArrayLike, level: float = LEVEL) -> Interval:
    """Return the mean over the last axis with Student's interval: x̄ ± t(n−1) · s / √n.

    Args:
        scores: `[…, n]`.
        level: of the interval.
    """
    runs = np.asarray(scores, np.float64)
    n, estimate = runs.shape[-1], runs.mean(-1)
    if n < 2:  # one run says nothing about the spread of runs
        return Interval(estimate, np.full_like(estimate, np.nan), np.full_like(estimate, np.nan), n)
    half = stats.t.ppf((1 + level) / 2, n - 1) * runs.std(-1, ddof=1) / np.sqrt(n)
    return Interval(estimate, estimate - half, estimate + half, n)


def iqm(scores: ArrayLike, level: float = LEVEL, resamples: int = 400) -> Interval:
    """Return the interquartile mean over tasks and seeds, the mean of the middle half (Agarwal et al. 2021).

    IQM ± q · SE.  SE is the stratified bootstrap's (seeds drawn within each task), times √(n/(n−1)) for its
    bias; q is the quantile of |IQM − μ| / SE for as many simulated scores, in place of Student's t.

    Args:
        scores: `[…, seeds]` of one task, or `[…, tasks, seeds]`, on one scale.
        level: of the interval.
        resamples: of the bootstrap.
    """
    runs = np.atleast_2d(np.asarray(scores, np.float64))
    tasks, seeds = runs.shape[-2:]
    estimate = _middle(runs)
    if seeds < 2:  # one run says nothing about the spread of runs
        return Interval(
            estimate, np.full_like(estimate, np.nan), np.full_like(estimate, np.nan), runs[0].size
        )
    half = _critical(tasks, seeds, level) * _bootstrap_error(runs, resamples)
    return Interval(estimate, estimate - half, estimate + half, tasks * seeds)


# What stands beside the mean of an agent's runs, by its name in results and CSV: heading and function.
BESIDE_MEAN: dict[str, tuple[str, Callable[[ArrayLike], Interval]]] = {"iqm": ("IQM", iqm)}


def probability_of_improvement(x: ArrayLike, y: ArrayLike, level: float = LEVEL) -> Interval:
    """Return θ = P(X > Y) + ½ P(X = Y) that a run of one agent beats a run of the other, mean over tasks.

    The estimate is Mann and Whitney's U / mn, as in Agarwal et al. 2021. The interval holds the θ with
    (θ̂ − θ)² ≤ z² V(θ),  V = θ(1−θ) [1 + (N−1) ((1−θ)/(2−θ) + θ/(1+θ))] / mn,  N = (m+n)/2
    (Newcombe 2006, method 5): it does not shrink to a point where all runs of one beat all of the other.

    Args:
        x: `[…, seeds]` of one task, or `[…, tasks, seeds]`.
        y: the same tasks; it may have another number of seeds.
        level: of the interval.
    """
    a, b = np.atleast_2d(np.asarray(x, np.float64)), np.atleast_2d(np.asarray(y, np.float64))
    (tasks, m), n = a.shape[-2:], b.shape[-1]
    gap = np.sign(a[..., :, None] - b[..., None, :])
    estimate = ((gap + 1) / 2).mean((-3, -2, -1))
    theta = np.linspace(0, 1, 2001)
    odds = (1 - theta) / (2 - theta) + theta / (1 + theta)
    variance = theta * (1 - theta) * (1 + ((m + n) / 2 - 1) * odds) / (m * n * tasks)
    z = stats.norm.ppf((1 + level) / 2)
    inside = (estimate[..., None] - theta) ** 2 <= z**2 * variance + 1e-12
    low, high = theta[inside.argmax(-1)], theta[::-1][inside[..., ::-1].argmax(-1)]
    return Interval(estimate, low, high, tasks * (m + n))


def welch(x: ArrayLike, y: ArrayLike, level: float = LEVEL) -> tuple[Interval, Any]:
    """Return the difference of mean scores x̄ − ȳ over seeds, and its p-value.

    Welch's t holds its level at few seeds and unequal spreads of nearly normal scores (Colas, Sigaud &
    Oudeyer 2019); where agents fail in some seeds it may not, so `permutation` is reported as well.
    Where neither agent's runs differ at all, t has no value; the permutation test then gives p.

    Args:
        x: `[…, seeds]`.
        y: `[…, seeds]`, not necessarily as many.
        level: of the interval.
    """
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    m, n = a.shape[-1], b.shape[-1]
    difference = a.mean(-1) - b.mean(-1)
    if min(m, n) < 2:
        nothing = np.full_like(difference, np.nan)
        return Interval(difference, nothing, nothing, m + n), nothing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # where runs hardly differ, or not at all
        test = stats.ttest_ind(a, b, axis=-1, equal_var=False)
        low, high = test.confidence_interval(level)
    still = (a == a[..., :1]).all(-1) & (b == b[..., :1]).all(-1)
    p = np.where(still, np.where(difference == 0, 1.0, 2 / comb(m + n, n)), test.pvalue)
    low, high = (np.where(still, difference, end) for end in (low, high))
    return Interval(difference, low, high, m + n), p


def permutation(x: ArrayLike, y: ArrayLike, resamples: int = 9999, seed: int = 0) -> Any:
    """Return the p-value of the difference of means where the runs of two agents are exchanged.

    p = #{|d*| ≥ |d|} / C(m+n, m), d* the difference after an exchange of runs between the agents; where
    there are more than `resamples` exchanges, p = (1 + #{|d*| ≥ |d|}) / (1 + R) for R random ones. The scores
    need not be normal. No p-value is smaller than `smallest_p(m, n)`.

    Args:
        x: `[…, seeds]`.
        y: `[…, seeds]`, not necessarily as many.
        resamples: R.
        seed: of the random exchanges.
    """
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    m, n = a.shape[-1], b.shape[-1]
    if min(m, n) < 2:
        return np.full_like(a.mean(-1), np.nan)
    chosen, exact = _exchanges(m, n, resamples, seed)
    both = np.concatenate([a, b], -1)
    both = both - both.mean(-1, keepdims=True)  # small numbers are added with small errors
    found = np.abs(both @ (chosen / m - (1 - chosen) / n))
    seen = np.abs(both[..., :m].mean(-1) - both[..., m:].mean(-1))[..., None]
    as_large = (found >= seen - 1e-9 * np.abs(both).max(-1, keepdims=True)).sum(-1)
    return as_large / chosen.shape[1] if exact else (1 + as_large) / (1 + resamples)


def smallest_p(m: int, n: int) -> float:
    """Return the smallest p-value that an exact permutation test of m and n runs can have."""
    return (2 if m == n else 1) / comb(m + n, m)


# ── over items ───────────────────────────────────────────────────────────────────────────────────────────


def paired_difference(a: ArrayLike, b: ArrayLike, level: float = LEVEL) -> Interval:
    """Return the mean difference of two systems on the same items, with Student's interval of the pairs.

    The percentile bootstrap over few items is too narrow (`benchmarks/coverage.py`). This interval holds
    its level for many items; for few items with skewed or mostly equal scores it is too narrow as well.

    Args:
        a: one system's score of every item, `[N]`.
        b: the other's.
        level: of the interval.
    """
    return mean_interval(_paired(a, b), level)


def approximate_randomisation(a: ArrayLike, b: ArrayLike, resamples: int = 4999, seed: int = 0) -> float:
    """Return the p-value of the mean difference where the two scores of an item change places at random.

    p = (1 + #{|d*| ≥ |d|}) / (1 + R),  d the mean difference (Noreen 1989; Riezler & Maxwell 2005);
    exact where there are no more than R exchanges.

    Args:
        a: one system's score of every item, `[N]`.
        b: the other's.
        resamples: R.
        seed: of the exchanges.
    """
    gap = _paired(a, b)
    if not gap.any():
        return 1.0
    found = stats.permutation_test(
        (gap,),
        lambda x, axis: np.abs(x.mean(axis)),
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        alternative="greater",
        batch=max(1, 2_000_000 // len(gap)),
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def share_interval(hits: int, n: int, level: float = LEVEL) -> Interval:
    """Return a share of n independent trials with Wilson's interval, which holds its level at few trials.

    (p̂ + z²/2n ± z √(p̂(1 − p̂)/n + z²/4n²)) / (1 + z²/n)   (Wilson 1927)

    Args:
        hits: trials that succeeded.
        n: trials; without any the share is not known.
        level: of the interval.
    """
    if not n:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    z, share = float(stats.norm.ppf((1 + level) / 2)), hits / n
    middle = share + z**2 / (2 * n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = ((middle + sign * half) / (1 + z**2 / n) for sign in (-1, 1))
    return Interval(share, float(low), float(high), n)


def holm(p: Sequence[float]) -> list[float]:
    """Return the p-values of a family, adjusted to control the family-wise error rate (Holm 1979).

    p̃₍ᵢ₎ = max_{j ≤ i} min(1, (m − j + 1) p₍ⱼ₎); tests without a p-value are not in the family.
    """
    adjusted = [float("nan")] * len(p)
    order = sorted((i for i in range(len(p)) if not np.isnan(p[i])), key=lambda i: p[i])
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p[i]))
        adjusted[i] = largest
    return adjusted


# ── in results.json ─────────────────────────────────────────────────────────────────────────────────────


def as_tree(interval: Interval, range: Bounds = NO_RANGE) -> Json:
    """Return an interval as JSON; ends beyond the range are moved to its ends, and `cut` names them.

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


def within(range: Bounds, values: Sequence[float]) -> Bounds:
    """Return the range of a metric; none where values beyond it show that another metric has its name."""
    return range if all(range[0] - 1e-6 <= value <= range[1] + 1e-6 for value in values) else NO_RANGE


def without_nan(tree: Any) -> Any:
    """Return a tree with null in place of NaN, which JSON does not have."""
    if isinstance(tree, dict):
        return {key: without_nan(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [without_nan(value) for value in tree]
    return _known(tree) if isinstance(tree, float) else tree


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


# ── below ────────────────────────────────────────────────────────────────────────────────────────────────


def _middle(runs: Floats) -> Floats:
    """Return the interquartile mean of `[…, tasks, seeds]`."""
    return np.asarray(stats.trim_mean(runs.reshape(*runs.shape[:-2], -1), 0.25, axis=-1), np.float64)


def _bootstrap_error(runs: Floats, resamples: int) -> Floats:
    """Return the standard error of the IQM, by seeds drawn within each task; leading indices share draws."""
    tasks, seeds = runs.shape[-2:]
    draws = np.random.default_rng(0).integers(seeds, size=(resamples, tasks, seeds))
    parts = np.array_split(draws, min(resamples, -(-runs.size * resamples // MEMORY)))
    each = np.concatenate([_middle(runs[..., np.arange(tasks)[:, None], part]) for part in parts], axis=-1)
    return np.asarray(each.std(-1) * np.sqrt(seeds / (seeds - 1)), np.float64)


@lru_cache(maxsize=8)
def _exchanges(m: int, n: int, resamples: int, seed: int) -> tuple[Floats, bool]:
    """Return the runs that each exchange assigns to the first agent, `[m + n, exchanges]`, and if all are."""
    if comb(m + n, m) > resamples:
        order = np.random.default_rng(seed).random((m + n, resamples)).argsort(0)
        return (order < m).astype(np.float64), False
    subsets = list(combinations(range(m + n), m))
    chosen = np.zeros((m + n, len(subsets)))
    chosen[np.array(subsets).T, np.arange(len(subsets))] = 1
    return chosen, True


@lru_cache
def _critical(tasks: int, seeds: int, level: float) -> float:
    """Return the quantile of |IQM − μ| / SE for scores of which half are normal and half are flat.

    Of normal scores alone it is too low for flat ones. For many runs it approaches Student's, which is taken.
    """
    if tasks * seeds > 40:
        return float(stats.t.ppf((1 + level) / 2, tasks * (seeds - 1)))
    random, shape = np.random.default_rng(1), (5_000, tasks, seeds)
    runs = np.concatenate([random.normal(size=shape), random.uniform(-1, 1, size=shape)])
    return float(np.quantile(np.abs(_middle(runs)) / _bootstrap_error(runs, 200), level))


def _paired(a: ArrayLike, b: ArrayLike) -> Floats:
    """Return the differences, item by item."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if x.ndim != 1 or x.shape != y.shape or not len(x):
        raise ValueError(
            "paired tests need one score per item from each, on the same items [N]; "
            f"got {x.shape} and {y.shape}"
        )
    return x - y
