"""Verdicts have the sign of the tested difference, need both tests, and say where these part."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rlseq.compare import tables
from rlseq.compare.results import _curve, _scored
from rlseq.compare.statistics import as_tree, within
from rlseq.compare.tables import CUT, interval
from rlseq.compare.verdicts import compare_pairs, remarks, verdict
from rlseq.metrics.registry import NO_RANGE, row_of

Runs = dict[str, list[float]]


def judged(rewards: Runs) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Agents and pairs as they stand in results.json, with items that all score alike."""
    agents = [
        {"name": name, "seeds": list(range(len(runs))), "scores": {"reward": _scored(runs, NO_RANGE)}}
        for name, runs in rewards.items()
    ]
    return agents, compare_pairs(rewards, {name: [[0.0, 1.0]] for name in rewards}, NO_RANGE)


def test_the_verdict_has_the_sign_of_the_difference() -> None:
    """Of 20 seeds of A 5 collapsed: a typical run of A is better, but the tested mean is that of B."""
    rng = np.random.default_rng(0)
    a = [*rng.normal(0.86, 0.01, 15), *rng.normal(0.02, 0.01, 5)]
    agents, pairs = judged({"A": a, "B": list(rng.normal(0.85, 0.01, 20))})
    assert pairs[0]["better"] == "B"
    assert verdict(agents, pairs).startswith("B is significantly better than every other agent")
    assert any("a typical run of A is better" in line for line in remarks(agents, pairs))


def test_three_seeds_show_nothing_and_say_so() -> None:
    agents, pairs = judged({"A": [0.90, 0.91, 0.92], "B": [0.1, 0.11, 0.12]})
    assert pairs[0]["p"] < 0.001
    assert pairs[0]["p_permutation"] == pytest.approx(0.1)
    assert pairs[0]["better"] is None
    assert verdict(agents, pairs).startswith(
        "A has the highest mean reward, but no significant difference from B"
    )
    assert remarks(agents, pairs) == [
        "With 3 runs each, the smallest possible p of a permutation test is 0.1, so no difference can be "
        "shown, whatever the result of the t-test: use at least 4 seeds."
    ]


def test_where_the_tests_part_it_is_said_and_nothing_is_shown() -> None:
    """One run far above the others widens the spread, not the ranks."""
    agents, pairs = judged({"A": [1.1, 1.2, 1.3, 1.4, 30.0], "B": [0.1, 0.2, 0.3, 0.4, 0.5]})
    assert pairs[0]["p_permutation"] <= 0.05 < pairs[0]["p"]
    assert pairs[0]["better"] is None
    (remark,) = remarks(agents, pairs)
    assert remark.startswith("A − B: the t-test gives p = 0.")
    assert "the permutation test p = 0.008 (both without correction)" in remark
    assert "treated as not shown" in remark


def test_several_agents() -> None:
    runs = {"a": [0.5, 0.51, 0.52, 0.53], "b": [0.9, 0.91, 0.92, 0.93], "c": [0.8, 0.99, 0.85, 0.95]}
    agents, pairs = judged(runs)
    assert verdict(agents, pairs).startswith(
        "b has the highest mean reward, but no significant difference from c; it is significantly better "
        "than a"
    )
    assert "no failure in 41% of all comparisons with 4 seeds" in " ".join(remarks(agents, pairs))
    one = judged({"a": [1.0], "b": [0.0]})
    assert "use more seeds" in verdict(*one)
    assert "the only agent" in verdict(*judged({"a": [1.0, 2.0]}))
    assert verdict([], []) == "No run was finished."
    assert remarks([], []) == []


def test_a_difference_that_only_the_correction_hides_is_named() -> None:
    runs = {"a": [0.45, 0.50, 0.55, 0.59], "b": [0.595, 0.60, 0.64, 0.70], "c": [0.50, 0.56, 0.60, 0.66]}
    agents, pairs = judged(runs)
    p = {(pair["a"], pair["b"]): (pair["p"], pair["p_holm"], pair["p_permutation"]) for pair in pairs}
    alone, corrected, exchanged = next(iter(p.values()))
    assert alone <= 0.05 < corrected
    assert exchanged <= 0.05
    (remark,) = [line for line in remarks(agents, pairs) if "Holm" in line]
    assert f"p = {alone:.3f} for this pair alone, and {corrected:.3f} by Holm's method, as 3 pairs" in remark


def test_few_items_are_named() -> None:
    rewards = {"a": [0.5, 0.6], "b": [0.5, 0.7]}
    items = {"a": [[0.0] * 10 + [1.0] * 30], "b": [[1.0] * 5 + [0.0] * 5 + [1.0] * 30]}
    agents, _ = judged(rewards)
    found = remarks(agents, compare_pairs(rewards, items, NO_RANGE))
    assert found[-1].endswith("fewer than 20 items have different scores: here 5 of 40, in 1 of 1 pairs.")


# ── ranges ───────────────────────────────────────────────────────────────────────────────────────────────


def test_an_interval_ends_where_its_metric_does_and_has_a_mark() -> None:
    cut = _scored([0.95, 0.99, 1.0], row_of("exact").range)
    assert (cut["high"], cut["cut"]) == (1.0, ["high"])
    assert interval(cut) == f"0.980 [0.914, 1.000{CUT}]"
    assert _scored([0.95, 0.99, 1.0], NO_RANGE)["high"] > 1
    assert _scored([0.5, 0.5], row_of("exact").range)["cut"] == []
    low = _scored([0.0, 0.1, 0.3], row_of("per").range)
    assert (low["low"], low["cut"]) == (0.0, ["low"])
    assert row_of("per").reward_range == (-np.inf, 1)


def test_values_beyond_a_range_show_that_it_is_of_another_metric() -> None:
    assert within((0.0, 1.0), [0.2, 3.0]) == NO_RANGE
    assert within((0.0, 1.0), [0.2, 1.0]) == (0, 1)


def test_unknown_ends_are_null() -> None:
    assert as_tree(_interval(np.nan), (0, 1))["low"] is None


def _interval(end: float) -> Any:
    from rlseq.compare.statistics import Interval

    return Interval(0.5, end, end, 1)


# ── curves ───────────────────────────────────────────────────────────────────────────────────────────────


def curve(*rows: tuple[float, float]) -> list[dict[str, float]]:
    return [{"tokens": t, "episodes": t / 4, "seconds": t / 100, "reward": r} for t, r in rows]


def test_a_missing_evaluation_shifts_no_other() -> None:
    whole = curve((0, 0.0), (100, 0.1), (200, 0.2), (300, 0.3))
    holed = curve((0, 0.0), (200, 0.2), (300, 0.3))
    for curves in ([whole, holed], [holed, whole]):
        points = _curve(curves)
        assert [p["tokens"] for p in points] == [0, 100, 200, 300]
        assert [p["estimate"] for p in points] == pytest.approx([0, 0.1, 0.2, 0.3])
        assert [p["episodes"] for p in points] == pytest.approx([0, 25, 50, 75])


def test_seeds_are_joined_by_what_they_spent() -> None:
    points = _curve([curve((0, 0.0), (100, 1.0), (205, 2.0)), curve((0, 0.0), (50, 0.5), (201, 2.0))])
    assert [p["tokens"] for p in points] == [0, 100, 203]
    assert points[1]["estimate"] == pytest.approx((1.0 + 0.5 + 1.5 * 50 / 151) / 2)
    assert points[2]["estimate"] == pytest.approx(2.0)


def test_alarms_that_differ_in_figures_share_a_line() -> None:
    def agent(name: str, *alarms: tuple[int, str]) -> dict[str, Any]:
        return {"name": name, "alarms": [{"seed": seed, "alarm": alarm} for seed, alarm in alarms]}

    low = ((0, "preflight: references (0.566) earn little"), (1, "preflight: references (0.571) earn little"))
    task = {"agents": [agent("rloo", *low, (1, "entropy fell")), agent("median", *low[:1])]}
    assert tables.alarms(task) == [
        "rloo, seeds 0, 1; median, seed 0: preflight: references (0.566) earn little (figures of the first)",
        "rloo, seed 1: entropy fell",
    ]


def test_tuned_agents_beside_others_are_named() -> None:
    agents, pairs = judged({"A": [0.1, 0.2, 0.3, 0.4], "B": [0.1, 0.2, 0.3, 0.4]})
    assert not any("tuned" in line for line in remarks(agents, pairs))
    agents[0]["tuned"] = True
    assert any(
        line.startswith("Settings that were tuned on this task: A; not tuned: B.")
        for line in remarks(agents, pairs)
    )
