"""Campaign: equal agents are rarely told apart, and a verdict always has the sign of the difference.

The scores are normal, skewed, heavy-tailed, or of agents of which a fifth of all runs fail. What no test of
few seeds can see, a failure that none of the runs showed, is measured in `benchmarks/coverage.py` and said on
the page.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rlseq.compare.results import _scored
from rlseq.compare.statistics import paired_difference
from rlseq.compare.verdicts import compare_pairs, remarks, verdict
from rlseq.metrics.registry import NO_RANGE

Law = Callable[[np.random.Generator, int], Any]


def failing(rng: np.random.Generator, n: int) -> Any:
    return np.where(rng.random(n) < 0.2, 0.0, 0.9) + 0.02 * rng.normal(size=n)


LAWS: dict[str, Law] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "skewed": lambda rng, n: rng.lognormal(size=n),
    "beta": lambda rng, n: rng.beta(6, 2, size=n),
    "heavy tails": lambda rng, n: rng.standard_t(2, size=n),
    "failing": failing,
    "right or wrong": lambda rng, n: (rng.random(n) < 0.8).astype(float),
}


def compare(rewards: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Agents and pairs of a comparison with these runs."""
    runs = {name: [float(value) for value in values] for name, values in rewards.items()}
    agents = [
        {"name": name, "seeds": list(range(len(values))), "scores": {"reward": _scored(values, NO_RANGE)}}
        for name, values in runs.items()
    ]
    return agents, compare_pairs(runs, {name: [[0.0, 1.0]] for name in runs}, NO_RANGE)


@pytest.mark.parametrize("name", LAWS)
def test_equal_agents_are_told_apart_in_at_most_5_percent(name: str, campaign: Any) -> None:
    trials = campaign.trials(60, 1500)
    counts: dict[str, Any] = {}
    for agents, n in ((2, 3), (2, 4), (2, 7), (3, 5), (5, 4), (2, 20)):
        rng = np.random.default_rng([campaign.seed, agents, n, len(name)])
        told = 0
        for _ in range(trials if n < 20 else trials // 5):
            _, pairs = compare({f"agent {i}": LAWS[name](rng, n) for i in range(agents)})
            told += any(pair["better"] is not None for pair in pairs)
        total = trials if n < 20 else trials // 5
        counts[f"{agents} agents, {n} seeds"] = {"trials": total, "told_apart": told}
        assert told / total <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / total), (agents, n)
    campaign.record(f"statistics-{name.replace(' ', '-')}", counts)


def test_a_verdict_has_the_sign_of_its_difference(campaign: Any) -> None:
    """Over pairs of laws, shifts and numbers of seeds: ranking, difference and verdict agree."""
    rng = np.random.default_rng([campaign.seed, 1])
    shown = 0
    trials = campaign.trials(300, 5000)
    for _ in range(trials):
        laws, n = rng.choice(list(LAWS), size=3), int(rng.integers(3, 9))
        rewards = {f"{i} {law}": LAWS[law](rng, n) + 3 * rng.random() for i, law in enumerate(laws)}
        agents, pairs = compare(rewards)
        means = {name: np.mean(values) for name, values in rewards.items()}
        for pair in pairs:
            if pair["better"] is not None:
                shown += 1
                worse = pair["a"] if pair["better"] == pair["b"] else pair["b"]
                assert means[pair["better"]] > means[worse]
                end = pair["difference"]["low" if pair["better"] == pair["a"] else "high"]
                assert (end > 0) == (pair["better"] == pair["a"]), "the interval holds no difference"
        said = verdict(agents, pairs)
        assert said.startswith(max(means, key=lambda name: means[name])), (
            "the best is the one of the highest mean"
        )
        assert all(isinstance(line, str) for line in remarks(agents, pairs))
    assert shown > trials / 10
    campaign.record("statistics-sign", {"trials": trials, "differences_shown": shown})


@pytest.mark.parametrize("items", [5, 10, 20, 50, 200])
def test_intervals_over_items_hold_the_truth(items: int, campaign: Any) -> None:
    trials = campaign.trials(300, 4000)
    least = {5: 0.86, 10: 0.87, 20: 0.89, 50: 0.91, 200: 0.93}[items]
    laws: dict[str, tuple[Law, float, float]] = {
        "normal": (lambda rng, n: rng.normal(0.3, 1, n), 0.3, 0.95),
        "skewed": (lambda rng, n: rng.exponential(1, n), 1.0, least),
        "right or wrong": (lambda rng, n: (rng.random(n) < 0.3) * 1.0 - (rng.random(n) < 0.2), 0.1, least),
    }
    counts = {}
    for name, (law, truth, level) in laws.items():
        rng = np.random.default_rng([campaign.seed, items])
        found = [paired_difference(law(rng, items), np.zeros(items)) for _ in range(trials)]
        held = np.mean([f.low <= truth <= f.high for f in found])
        counts[name] = {"trials": trials, "held": int(held * trials)}
        assert held >= level - 3 * np.sqrt(level * (1 - level) / trials)
    campaign.record(f"statistics-items-{items}", counts)
