"""How often intervals over few seeds hold the truth, and how often equal agents are told apart.

    python benchmarks/coverage.py

Normal scores are what the small-sample quantiles are made for; uniform, skewed and heavy-tailed ones are not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import record
from numpy.typing import NDArray
from scipy import stats

from rlseq.compare.statistics import Interval, iqm, probability_of_improvement, welch

RUNS = 20_000
SEEDS = (3, 4, 5, 8, 10, 20)
SCORES: dict[str, Any] = {
    "normal": stats.norm(),
    "uniform": stats.uniform(),
    "skewed, Beta(6, 2)": stats.beta(6, 2),
    "heavy tails, t(3)": stats.t(3),
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
    """How often Welch's test at 5 % tells apart two equal agents, and two that are 2 SD apart."""
    lines = []
    for name, law in SCORES.items():
        for seeds in SEEDS:
            x, y = law.rvs(size=(2, RUNS, seeds), random_state=seeds)
            found = float(np.mean(welch(x + 2 * law.std(), y)[1] <= 0.05))
            equal = float(np.mean(welch(x, y)[1] <= 0.05))
            lines.append(
                {"scores": name, "seeds": seeds, "equal_differ": round(equal, 4), "found": round(found, 4)}
            )
    return lines


def main() -> None:
    """Simulate, and write the JSON."""
    results = {
        "simulations": RUNS,
        "iqm": of_iqm(),
        "probability_of_improvement": of_probability(),
        "welch": of_tests(),
    }
    print(record.write("coverage", results))


if __name__ == "__main__":
    main()
