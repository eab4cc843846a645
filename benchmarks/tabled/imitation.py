"""Of imitation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlseq.compare.statistics import paired_difference
from tabled import markdown, origin, runs

PLACES = ((1, 5), (6, 10), (11, 20), (21, 1000))  # positions that are shown together
Runs = Sequence[Mapping[str, Any]]  # of seeds: agent -> what was measured


def dagger() -> str:
    """Return rewards, and shares of wrong words by position, after labels of each kind."""
    text = ""
    for run in runs("imitation"):
        for task, found in _grouped(run, "positions"):
            rows = [
                [
                    agent,
                    _difference(found, agent, "mle"),
                    *(_mean([wrong(one[agent], "own", *places) for one in found]) for places in PLACES),
                    _mean([wrong(one[agent], "own", 1, 1000) for one in found]),
                    _mean([wrong(one[agent], "reference", 1, 1000) for one in found]),
                ]
                for agent in found[0]
            ]
            names = [f"wrong, {a}–{b}" if b < 1000 else f"wrong, {a} on" for a, b in PLACES]
            head = [f"{task}, {len(found)} seeds", "reward", *names, "wrong, all", "after references"]
            text += markdown(head, rows) + "\n"
        text += origin(run).lstrip()
    return text


def gail() -> str:
    """Return the held-out reward by the number of demonstrations."""
    text = ""
    for run in runs("imitation"):
        rows = [
            [task, len(found), agent, _difference(found, agent, "mle")]
            for task, found in _grouped(run, None)
            for agent in found[0]
        ]
        text += markdown(["task", "seeds", "agent", "held-out reward"], rows) + origin(run)
    return text


def wrong(found: Mapping[str, Any], after: str, first: int, last: int) -> float:
    """Return the share of words at some positions that are not best after own or reference prefixes."""
    rows = [row for row in found["positions"] if first <= row["position"] <= last and row[f"{after}_texts"]]
    words = sum(row[f"{after}_texts"] for row in rows)
    return sum(row[after] * row[f"{after}_texts"] for row in rows) / words if words else float("nan")


def _grouped(run: Mapping[str, Any], wanted: str | None) -> Iterator[tuple[str, Runs]]:
    """Yield each task with the results of its seeds; those with positions, or those without."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for name, found in run["results"]["runs"].items():
        if any("positions" in one for one in found.values()) == bool(wanted):
            groups.setdefault(name.rpartition(", seed")[0], []).append(found)
    yield from groups.items()


def _mean(shares: Sequence[float]) -> str:
    mean = sum(shares) / len(shares)
    return "–" if mean != mean else f"{mean:.3f}"  # NaN where no text is so long


def _difference(found: Runs, agent: str, other: str) -> str:
    """Return a mean reward over seeds, and its difference from another agent's with an interval."""
    own, theirs = ([float(one[name]["reward"]) for one in found] for name in (agent, other))
    mean = f"{sum(own) / len(own):.3f}"
    if agent == other or len(found) < 2:
        return mean
    gap = paired_difference(own, theirs)
    return f"{mean} ({gap.estimate:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}])"
