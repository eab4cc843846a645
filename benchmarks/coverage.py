"""Coverage of intervals over few seeds, and rates at which tests and verdicts separate equal agents.

    python benchmarks/coverage.py

Normal scores are what the small-sample quantiles are made for; uniform, skewed and heavy-tailed ones are not.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import record
from numpy.typing import NDArray
from scipy import stats

from rlseq.compare.statistics import (
    Interval,
    holm,
    iqm,
    mean_interval,
    permutation,
    probability_of_improvement,
    welch,
)

RUNS = 20_000
SEEDS = (3, 4, 5, 8, 10, 20)
SCORES: dict[str, Any] = {
    "normal": stats.norm(),
    "uniform": stats.uniform(),
    "skewed, Beta(6, 2)": stats.beta(6, 2),
    "heavy tails, t(3)": stats.t(3),
}

ITEMS = (5, 10, 20, 50, 200)


def failing(rng: np.random.Generator, size: tuple[int, ...]) -> NDArray[np.float64]:
    """Scores of an agent that fails in one run of five: 0.9 or 0, give or take 0.02; their mean is 0.72."""
    return np.where(rng.random(size) < 0.2, 0.0, 0.9) + 0.02 * rng.normal(size=size)


LAWS: dict[str, Callable[..., NDArray[np.float64]]] = {
    "normal": lambda rng, size: rng.normal(size=size),
    "skewed": lambda rng, size: rng.lognormal(size=size),
    "failing": failing,
    "heavy tails": lambda rng, size: rng.standard_t(3, size=size),
}
# differences of two systems on an item, and their mean
GAPS: dict[str, tuple[Callable[..., NDArray[np.float64]], float]] = {
    "normal": (lambda rng, size: rng.normal(0.3, 1, size), 0.3),
    "skewed": (lambda rng, size: rng.exponential(1, size), 1.0),
    "right or wrong": (lambda rng, size: (rng.random(size) < 0.3) * 1.0 - (rng.random(size) < 0.2), 0.1),
    "mostly equal": (lambda rng, size: np.where(rng.random(size) < 0.8, 0, rng.exponential(1, size)), 0.2),
}


def held(interval: Interval, truth: float) -> float:
    """Share of intervals with the truth inside."""
    return round(float(np.mean((interval.low <= truth) & (truth <= interval.high))), 4)


def percentile(statistic: Any, *groups: NDArray[np.float64]) -> Interval:
    """The percentile bootstrap that is not used, 200 resamples of the seeds."""
    rng = np.random.default_rng(0)
    found = np.stack(
        [statistic(*(g[:, rng.integers(g.shape[1], size=g.shape[1])] for g in groups)) for _ in range(200)]
    )
    low, high = np.percentile(found, [2.5, 97.5], axis=0)
    return Interval(None, low, high, groups[0].shape[1])


def middle(law: Any) -> float:
    """The interquartile mean of a distribution."""
    return float(law.ppf(np.linspace(0.25, 0.75, 20_001)).mean())


def of_iqm() -> list[dict[str, Any]]:
    """Coverage of the interquartile mean, ours and the percentile bootstrap's."""
    lines = []
    for name, law in SCORES.items():
        for seeds in SEEDS:
            runs = law.rvs(size=(RUNS, seeds), random_state=seeds)
            bootstrap = percentile(lambda x: stats.trim_mean(x, 0.25, axis=-1), runs[:2000])
            ours = iqm(runs[:, None], resamples=200)
            lines.append(
                {
                    "scores": name,
                    "seeds": seeds,
                    "held": held(ours, middle(law)),
                    "percentile_bootstrap": held(bootstrap, middle(law)),
                }
            )
    return lines


def of_probability() -> list[dict[str, Any]]:
    """Coverage of the probability of improvement of normal scores that differ by an effect."""
    lines = []
    for seeds in SEEDS:
        for effect in (0.0, 1.0, 2.0):
            x, y = np.random.default_rng(seeds).normal(size=(2, RUNS, seeds))
            truth = float(stats.norm.cdf(effect / np.sqrt(2)))
            pairs = percentile(
                lambda a, b: (a[:, :, None] > b[:, None]).mean((1, 2)), x[:2000] + effect, y[:2000]
            )
            ours = probability_of_improvement((x + effect)[:, None], y[:, None])
            lines.append(
                {
                    "effect_in_sd": effect,
                    "seeds": seeds,
                    "held": held(ours, truth),
                    "percentile_bootstrap": held(pairs, truth),
                }
            )
    return lines


def of_tests() -> list[dict[str, Any]]:
    """Return how often each test at 5 %, and a verdict, separates two agents, equal or not."""
    lines = []
    for name, law in LAWS.items():
        for seeds in SEEDS:
            rng = np.random.default_rng(seeds)
            x, y = law(rng, (RUNS // 4, seeds)), law(rng, (RUNS // 4, seeds))
            far = 2 * float(np.std(law(rng, (100_000, 1))))
            lines.append(
                {
                    "scores": name,
                    "seeds": seeds,
                    "equal": tested(x, y),
                    "two_sd_apart": tested(x + far, y),
                    # equal means, but only the first fails in a fifth of its runs
                    "one_fails": tested(failing(rng, x.shape), 0.72 + 0.02 * rng.normal(size=y.shape)),
                }
            )
    return lines


def tested(x: NDArray[np.float64], y: NDArray[np.float64]) -> dict[str, float]:
    """The shares of p-values of at most 5 %: of each test, and of both."""
    p, exchanged = welch(x, y)[1], permutations(x, y)
    found = {"welch": p, "permutation": exchanged, "verdict": np.maximum(p, exchanged)}
    return {name: round(float(np.mean(values <= 0.05)), 4) for name, values in found.items()}


def permutations(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of many pairs of agents, in parts that fit in memory; 499 exchanges where there are more than 1,000."""
    few = comb(2 * x.shape[1], x.shape[1]) <= 1000
    parts = zip(np.array_split(x, 10), np.array_split(y, 10), strict=True)
    return np.concatenate([permutation(a, b, resamples=1000 if few else 499) for a, b in parts])


def of_families() -> list[dict[str, Any]]:
    """Return how often a comparison of several equal agents ends in any verdict."""
    lines = []
    for name, law in LAWS.items():
        for agents, seeds in ((3, 4), (3, 10), (6, 4), (6, 10)):
            runs = law(np.random.default_rng(seeds), (agents, RUNS // 10, seeds))
            pairs = list(combinations(range(agents), 2))
            p = np.stack([welch(runs[a], runs[b])[1] for a, b in pairs], 1)
            exchanged = np.stack([permutations(runs[a], runs[b]) for a, b in pairs], 1)
            both = (np.array([holm(list(row)) for row in p]) <= 0.05) & (exchanged <= 0.05)
            lines.append(
                {"scores": name, "agents": agents, "seeds": seeds, "any": round(float(both.any(1).mean()), 4)}
            )
    return lines


def of_items() -> list[dict[str, Any]]:
    """Coverage of the mean difference over items: Student's interval, and the percentile bootstrap."""
    lines = []
    for name, (law, truth) in GAPS.items():
        for items in ITEMS:
            gaps = law(np.random.default_rng(items), (RUNS // 10, items))
            bootstrap = percentile(lambda g: g.mean(1), gaps)
            lines.append(
                {
                    "gaps": name,
                    "items": items,
                    "held": held(mean_interval(gaps), truth),
                    "percentile_bootstrap": held(bootstrap, truth),
                }
            )
    return lines


def main() -> None:
    """Simulate, and write the JSON."""
    results = {
        "simulations": RUNS,
        "iqm": of_iqm(),
        "probability_of_improvement": of_probability(),
        "tests": of_tests(),
        "families": of_families(),
        "items": of_items(),
    }
    print(record.write("coverage", results))


if __name__ == "__main__":
    main()
