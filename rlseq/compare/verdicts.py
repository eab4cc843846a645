"""Tests of the differences between agents, and the sentences that report them.

Ranking, difference, interval and both tests are of one statistic: the mean reward over seeds. An agent is
better than another if Welch's t-test with Holm's correction and a permutation test of the same difference
both show it. `benchmarks/coverage.py` measures how often this rule finds a difference between equal agents.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from rlseq.compare.statistics import (
    approximate_randomisation,
    as_tree,
    holm,
    paired_difference,
    permutation,
    probability_of_improvement,
    smallest_p,
    welch,
    without_nan,
)
from rlseq.metrics.registry import Bounds
from rlseq.utils.files import Json

ALPHA = 0.05
FEW_ITEMS = 20  # with fewer, intervals over items have less than their nominal coverage
FAILING = 0.2  # the share of failing runs in the remark about failures that no test detects


def compare_pairs(
    rewards: Mapping[str, Sequence[float]], texts: Mapping[str, Sequence[Sequence[float]]], range: Bounds
) -> list[Json]:
    """Return the tests of every two agents, over seeds and over items, corrected for the number of pairs.

    Args:
        rewards: of every agent, the reward of every run.
        texts: of every agent, the reward of every test item in every run.
        range: the least and the largest reward.
    """
    lines = [
        {
            "a": a,
            "b": b,
            **_over_seeds(rewards[a], rewards[b], range),
            "items": _over_items(texts[a], texts[b], range),
        }
        for a, b in itertools.combinations(rewards, 2)
    ]
    for tests in (lines, [line["items"] for line in lines]):
        for test, p in zip(tests, holm([test["p"] for test in tests]), strict=True):
            test["p_holm"] = p
    return [without_nan({**line, "better": _better(line)}) for line in lines]


def _over_seeds(x: Sequence[float], y: Sequence[float], range: Bounds) -> Json:
    """Return the difference of mean rewards, its two tests, and the probability that the first is better."""
    difference, p = welch(x, y)
    widest = range[1] - range[0]
    return {
        "difference": as_tree(difference, (-widest, widest)),
        "probability": as_tree(probability_of_improvement(x, y)),
        "p": float(p),
        "p_permutation": float(permutation(x, y)),
    }


def _over_items(x: Sequence[Sequence[float]], y: Sequence[Sequence[float]], range: Bounds) -> Json:
    """Return the difference of means over seeds on the same items, its test, and how many items differ."""
    a, b = np.mean(x, axis=0), np.mean(y, axis=0)
    widest = range[1] - range[0]
    return {
        "difference": as_tree(paired_difference(a, b), (-widest, widest)),
        "p": approximate_randomisation(a, b),
        "differ": int((a != b).sum()),
    }


def _better(line: Json) -> str | None:
    """Return the agent of a pair that both tests show to be better, None if they do not."""
    shown = line["p_holm"] <= ALPHA and line["p_permutation"] <= ALPHA  # never where a p-value is NaN
    difference = line["difference"]["estimate"]
    if not shown or difference == 0:
        return None
    return str(line["a"] if difference > 0 else line["b"])


def probabilities_across_tasks(tasks: Sequence[Json]) -> list[Json]:
    """Return the probability of improvement of every two agents over all tasks; scales do not matter."""
    runs = [{a["name"]: a["scores"]["reward"]["runs"] for a in task["agents"]} for task in tasks]
    names = [name for name in runs[0] if name != "start" and all(name in one for one in runs)]
    lines = []
    for a, b in itertools.combinations(names, 2):
        least = [min(len(one[name]) for one in runs) for name in (a, b)]  # where a run failed
        x, y = ([one[name][:n] for one in runs] for name, n in zip((a, b), least, strict=True))
        lines.append({"a": a, "b": b, "probability": as_tree(probability_of_improvement(x, y))})
    return lines


# ── in words ─────────────────────────────────────────────────────────────────────────────────────────────


def verdict(agents: Sequence[Json], pairs: Sequence[Json]) -> str:
    """Return a sentence that names the better agent, or states that none is shown to be better."""
    if not agents:
        return "No run was finished."
    ranked = sorted(agents, key=lambda agent: -agent["scores"]["reward"]["estimate"])
    best, n = ranked[0]["name"], min(len(agent["seeds"]) for agent in agents)
    if len(ranked) == 1:
        return f"{best} is the only agent, so there is no comparison."
    if n < 2:
        return (
            f"{best} has the highest reward, but one run for each agent allows no conclusion: use more seeds."
        )
    better = {frozenset((p["a"], p["b"])): p["better"] for p in pairs}
    beaten = [a["name"] for a in ranked[1:] if better[frozenset((best, a["name"]))] == best]
    close = [a["name"] for a in ranked[1:] if a["name"] not in beaten]
    rule = f"{n} seeds; a difference is called significant at p ≤ {ALPHA} in both tests"
    if not close:
        return f"{best} is significantly better than every other agent ({rule})."
    text = f"{best} has the highest mean reward, but no significant difference from {_listed(close)}"
    text += f"; it is significantly better than {_listed(beaten)}" if beaten else ""
    return f"{text} ({rule})."


def remarks(agents: Sequence[Json], pairs: Sequence[Json]) -> list[str]:
    """Return the limitations of the verdict, a sentence each."""
    runs = {agent["name"]: len(agent["seeds"]) for agent in agents}
    return [
        *_too_few(runs),
        *_parting(pairs, runs),
        *_corrected(pairs),
        *_orders(agents, pairs),
        *_unseen(pairs, runs),
        *_items(pairs),
        *_tuned(agents),
    ]


def _too_few(runs: Mapping[str, int]) -> list[str]:
    """Return a remark if there are too few runs for any verdict."""
    n = min(runs.values(), default=0)
    if len(runs) < 2 or n < 2 or smallest_p(n, n) <= ALPHA:
        return []
    return [
        f"With {n} runs each, the smallest possible p of a permutation test is {smallest_p(n, n):.2g}, so no "
        "difference can be shown, whatever the result of the t-test: use at least 4 seeds."
    ]


def _parting(pairs: Sequence[Json], runs: Mapping[str, int]) -> list[str]:
    """Return a remark for each pair of agents on which the two tests do not agree."""
    lines = []
    for pair in pairs:
        p, exchanged = pair["p"], pair["p_permutation"]
        m, n = runs[pair["a"]], runs[pair["b"]]
        claimed = p is not None and pair["p_holm"] <= ALPHA < exchanged  # by the t-test alone
        denied = p is not None and exchanged <= ALPHA < p
        if smallest_p(m, n) > ALPHA or not (claimed or denied):
            continue
        reason = (
            "a few extreme runs increase the variance that the t-test estimates"
            if exchanged < p
            else "the t-test assumes normally distributed runs, and the permutations show that they are not"
        )
        lines.append(
            f"{pair['a']} − {pair['b']}: the t-test gives p = {p:.3f}, the permutation test "
            f"p = {exchanged:.3f} (both without correction). They disagree because {reason}: the difference "
            "is treated as not shown."
        )
    return lines


def _corrected(pairs: Sequence[Json]) -> list[str]:
    """Return a remark for each pair whose difference is shown only without the correction for all pairs."""
    return [
        f"{pair['a']} − {pair['b']}: the t-test gives p = {pair['p']:.3f} for this pair alone, and "
        f"{pair['p_holm']:.3f} by Holm's method, as {len(pairs)} pairs are tested; the interval is that of "
        "the pair alone. The difference is treated as not shown."
        for pair in pairs
        if pair["p"] is not None and pair["p"] <= ALPHA < pair["p_holm"] and pair["p_permutation"] <= ALPHA
    ]


def _orders(agents: Sequence[Json], pairs: Sequence[Json]) -> list[str]:
    """Return a remark for each pair whose means and interquartile means have opposite orders."""
    middle = {agent["name"]: agent["scores"]["reward"]["iqm"]["estimate"] for agent in agents}
    lines = []
    for pair in pairs:
        better = pair["better"]
        other = pair["a"] if better == pair["b"] else pair["b"]
        if better is not None and middle[better] < middle[other]:
            lines.append(
                f"{better} has the higher mean, but {other} the higher interquartile mean: a typical run of "
                f"{other} is better, and its failures, or exceptional runs of {better}, determine the mean."
            )
    return lines


def _unseen(pairs: Sequence[Json], runs: Mapping[str, int]) -> list[str]:
    """Return a remark on how often so few seeds show no failure of an agent that sometimes fails."""
    n = min(runs.values(), default=0)
    hidden = (1 - FAILING) ** n
    if not any(pair["better"] for pair in pairs) or hidden <= ALPHA:
        return []
    return [
        f"An agent that fails in one run of five shows no failure in {hidden:.0%} of all comparisons "
        f"with {n} seeds, and then no test can detect it. If single failures matter, use more seeds."
    ]


def _items(pairs: Sequence[Json]) -> list[str]:
    """Return a remark if intervals over items are based on few items."""
    few = sorted(
        (pair["items"]["differ"], pair["items"]["difference"]["n"])
        for pair in pairs
        if 0 < pair["items"]["differ"] < FEW_ITEMS
    )
    if not few:
        return []
    (least, n), most = few[0], few[-1][0]
    return [
        f"Intervals over items cover less than 95 % if fewer than {FEW_ITEMS} items have different scores: "
        f"here {least if least == most else f'{least} to {most}'} of {n}, "
        f"in {len(few)} of {len(pairs)} pairs."
    ]


def _tuned(agents: Sequence[Json]) -> list[str]:
    """Return a remark if some agents have tuned settings of the task and others have not."""
    tuned = [agent["name"] for agent in agents if agent.get("tuned")]
    others = [agent["name"] for agent in agents if not agent.get("tuned")]
    if not tuned or not others:
        return []
    return [
        f"Settings that were tuned on this task: {_listed(tuned)}; not tuned: {_listed(others)}. A "
        "difference between the two groups may come from the tuning; --no-tuned (tuned=False) compares all "
        "agents with their defaults."
    ]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
