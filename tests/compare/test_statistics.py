"""Known answers, the reference implementation, and whether intervals hold what they promise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import optimize, stats

from rlseq.compare.statistics import (
    Interval,
    approximate_randomisation,
    holm,
    iqm,
    paired_difference,
    permutation,
    probability_of_improvement,
    smallest_p,
    welch,
)

RUNS = 4000


def held(interval: Interval, truth: float) -> float:
    return float(np.mean((interval.low <= truth) & (truth <= interval.high)))


# ── known answers ────────────────────────────────────────────────────────────────────────────────────────


def test_iqm_is_the_mean_of_the_middle_half() -> None:
    assert iqm([1, 2, 3, 100]).estimate == pytest.approx(2.5)
    assert iqm([[1, 2, 3, 4], [5, 6, 7, 8]]).estimate == pytest.approx(4.5)
    assert iqm([8, 7, 6, 5, 4, 3, 2, 1]).n == 8


def test_equal_runs_have_an_interval_of_no_width_and_one_run_has_none() -> None:
    assert iqm([0.5, 0.5, 0.5])[:3] == (0.5, 0.5, 0.5)
    one = iqm([0.5])
    assert one.estimate == 0.5
    assert np.isnan(one.low)
    assert np.isnan(one.high)
    assert np.isnan(welch([1.0], [2.0])[1])


def test_an_interval_over_seeds_moves_and_grows_with_the_scale() -> None:
    scores = np.array([0.1, 0.4, 0.35, 0.8])
    small, large = iqm(scores), iqm(10 * scores + 3)
    assert large.low == pytest.approx(10 * small.low + 3)
    assert large.high == pytest.approx(10 * small.high + 3)


def test_it_does_not_matter_how_much_is_resampled_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = np.random.default_rng(0).normal(size=(3, 2, 4))
    whole = iqm(runs)
    for numbers in (1, 1000):
        monkeypatch.setattr("rlseq.compare.statistics.MEMORY", numbers)
        np.testing.assert_allclose(iqm(runs)[:3], whole[:3], rtol=1e-12)


def test_probability_of_improvement_counts_pairs_and_halves_ties() -> None:
    found = probability_of_improvement([1, 2, 3], [0, 2, 2.5])
    assert found.estimate == pytest.approx(5.5 / 9)
    assert found.n == 6
    two = probability_of_improvement([[1, 2], [0, 0]], [[0, 0], [1, 2]])
    assert two.estimate == pytest.approx(0.5)


def test_clean_separation_leaves_doubt() -> None:
    """Four runs that all beat four others: θ̂ = 1, and the low end solves (1 − θ)² = z² V(θ)."""
    found = probability_of_improvement([5, 6, 7, 8], [1, 2, 3, 4])
    z = 1.959964

    def excess(t: float) -> float:
        variance = t * (1 - t) * (1 + 3 * ((1 - t) / (2 - t) + t / (1 + t))) / 16
        return (1 - t) ** 2 - z**2 * variance

    assert found.estimate == found.high == 1
    assert found.low == pytest.approx(optimize.brentq(excess, 0.3, 0.999), abs=1e-3)


def test_welch_equals_scipy() -> None:
    x, y = [0.1, 0.5, 0.3, 0.9], [0.8, 1.1, 0.7]
    (difference, low, high, n), p = welch(x, y)
    wanted = stats.ttest_ind(x, y, equal_var=False)
    assert (p, difference, n) == (pytest.approx(wanted.pvalue), pytest.approx(0.45 - 2.6 / 3), 7)
    assert (low, high) == pytest.approx(tuple(wanted.confidence_interval()))


def test_welch_equals_its_formula_to_rounding() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 50, 5)) * [[[1.0]], [[3.0]]]
    (difference, low, high, _), p = welch(x, y)
    errors = x.var(-1, ddof=1) / 5, y.var(-1, ddof=1) / 5
    error = np.sqrt(errors[0] + errors[1])
    freedom = error**4 / (errors[0] ** 2 / 4 + errors[1] ** 2 / 4)
    half = stats.t.ppf(0.975, freedom) * error
    assert difference == pytest.approx(x.mean(-1) - y.mean(-1), abs=1e-12)
    assert p == pytest.approx(2 * stats.t.sf(np.abs(difference) / error, freedom), abs=1e-12)
    assert low == pytest.approx(difference - half, abs=1e-12)
    assert high == pytest.approx(difference + half, abs=1e-12)


def test_runs_that_never_differ_are_judged_by_exchanges() -> None:
    assert welch([1.0] * 4, [1.0] * 4)[1] == 1
    assert welch([1.0] * 4, [0.5] * 4)[1] == pytest.approx(2 / 70)


def test_randomisation_by_hand() -> None:
    """Three items, all better by 1: of 2³ exchanges, two are as extreme."""
    assert approximate_randomisation([2, 3, 4], [1, 2, 3]) == pytest.approx(0.25)
    assert approximate_randomisation([2, 3, 4], [2, 3, 4]) == 1


def test_the_paired_difference_equals_scipys() -> None:
    a, b = [0.1, 0.5, 0.3, 0.9], [0.8, 1.1, 0.7, 0.75]
    found = paired_difference(a, b)
    wanted = stats.ttest_rel(a, b).confidence_interval()
    assert (found.estimate, found.low, found.high) == pytest.approx((0.45 - 3.35 / 4, *wanted))
    assert paired_difference([1, 3], [1, 3])[:3] == (0, 0, 0)
    assert np.isnan(paired_difference([1], [3]).low)


@pytest.mark.parametrize(("m", "n"), [(3, 3), (4, 4), (3, 5), (6, 5)])
def test_permutations_equal_scipys(m: int, n: int) -> None:
    rng = np.random.default_rng(m * n)
    for x, y in zip(rng.normal(size=(5, m)) + 1, rng.normal(size=(5, n)), strict=True):
        wanted = stats.permutation_test(
            (x, y),
            lambda a, b, axis: np.abs(a.mean(axis) - b.mean(axis)),
            alternative="greater",
            n_resamples=np.inf,
        )
        assert permutation(x, y) == pytest.approx(wanted.pvalue)
        assert permutation(x, y) >= smallest_p(m, n)
        assert abs(permutation(x, y, resamples=100) - wanted.pvalue) < 0.2


def test_permutations_by_hand() -> None:
    assert permutation([5, 6, 7], [1, 2, 3]) == pytest.approx(2 / 20)
    assert permutation([5, 6, 7, 8], [1, 2, 3, 4]) == pytest.approx(2 / 70)
    assert permutation([0.1, 0.1], [0.1, 0.1]) == 1
    assert np.isnan(permutation([1], [2]))
    assert permutation([[5, 6, 7], [1, 2, 3]], [[1, 2, 3], [1, 2, 3]]).tolist() == pytest.approx([0.1, 1])


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    adjusted = holm([0.02, float("nan"), 0.01])
    assert adjusted[0] == adjusted[2] == pytest.approx(0.02)
    assert np.isnan(adjusted[1])


@pytest.mark.parametrize(("a", "b"), [([1, 2], [1]), ([], []), ([[1, 2]], [[1, 2]])])
def test_paired_tests_need_pairs(a: Any, b: Any) -> None:
    with pytest.raises(ValueError, match=r"one score per item from each.*got \("):
        approximate_randomisation(a, b)


def test_estimates_equal_rliables() -> None:
    from rliable import metrics

    x, y = np.random.default_rng(0).normal(size=(2, 5, 3))  # rliable: [runs, tasks]
    assert iqm(x.T).estimate == pytest.approx(metrics.aggregate_iqm(x))
    ours = probability_of_improvement(x.T, y.T).estimate
    assert ours == pytest.approx(metrics.probability_of_improvement(x, y))


# ── intervals hold what they promise ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("tasks", "seeds"), [(1, 4), (1, 5), (1, 10), (3, 4)])
def test_iqm_intervals_hold_95_percent(tasks: int, seeds: int) -> None:
    runs = np.random.default_rng(seeds).normal(size=(RUNS, tasks, seeds))
    assert held(iqm(runs, resamples=200), 0) == pytest.approx(0.95, abs=0.02)


def test_the_percentile_bootstrap_does_not() -> None:
    """Why it is not used: at four seeds it holds 88 %."""
    runs = np.random.default_rng(4).normal(size=(RUNS, 4))
    draws = np.random.default_rng(0).integers(4, size=(256, 4))
    middles = stats.trim_mean(runs[:, draws], 0.25, axis=-1)
    low, high = np.percentile(middles, [2.5, 97.5], axis=1)
    assert held(Interval(None, low, high, 4), 0) < 0.91


@pytest.mark.parametrize("seeds", [4, 8])
@pytest.mark.parametrize("effect", [0.0, 1.0])
def test_intervals_of_the_probability_hold_95_percent(seeds: int, effect: float) -> None:
    x, y = np.random.default_rng(seeds).normal(size=(2, RUNS, 1, seeds))
    found = probability_of_improvement(x + effect, y)
    assert held(found, float(stats.norm.cdf(effect / np.sqrt(2)))) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("seeds", [2, 3, 4, 5, 10])
def test_two_equal_agents_differ_in_at_most_5_percent(seeds: int) -> None:
    x, y = np.random.default_rng(seeds).normal(size=(2, 20_000, seeds))
    difference, p = welch(x, y)
    assert np.mean(p <= 0.05) <= 0.055  # three standard errors of 20,000 simulations above 5 %
    assert held(difference, 0) >= 0.945


def test_a_clear_difference_is_found() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, RUNS, 4))
    assert np.mean(welch(x + 4, y)[1] <= 0.05) > 0.95


def test_tests_over_items_hold_their_level() -> None:
    rng = np.random.default_rng(0)
    runs = 400
    rejected, inside = 0, 0
    for _ in range(runs):
        level = rng.normal(size=60)  # items differ in difficulty, the same for both
        a, b = level + rng.normal(size=(2, 60))
        rejected += approximate_randomisation(a, b, resamples=199) <= 0.05
        low, high = paired_difference(a, b)[1:3]
        inside += low <= 0 <= high
    assert rejected / runs == pytest.approx(0.05, abs=0.03)
    assert inside / runs == pytest.approx(0.95, abs=0.03)
