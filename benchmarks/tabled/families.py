"""Of families of algorithms."""

from __future__ import annotations

from typing import Any

from rlseq.compare.statistics import mean_interval
from tabled import markdown, origin, runs

SEARCH_SEED = 1000  # as in benchmarks/families.py


def families(task: str) -> str:
    """Return the scores of all methods on a task, the best after the tokens first."""
    return "".join(_families(run, task) for run in runs("families"))


def _families(run: dict[str, Any], task: str) -> str:
    results = run["results"]
    limits, found = results["tasks"][task], [one for one in results["runs"] if one["task"] == task]
    rows = [_row(name, results["families"], found) for name in dict.fromkeys(one["method"] for one in found)]
    rows = sorted((row for row in rows if row), key=lambda row: -row[0])
    after = f"{limits['tokens']:,} tokens", "seconds then", f"{limits['seconds']:g} seconds", "tokens then"
    head = ["method", "family", "setting", *after, "seeds"]
    return markdown(head, [row[1:] for row in rows]) + origin(run)


def _row(name: str, families: dict[str, str], found: list[dict[str, Any]]) -> list[Any]:
    """Return a row behind the number by which rows are sorted; nothing where no seed is done."""
    done = [one for one in found if one["method"] == name and one["seed"] != SEARCH_SEED]
    if not done:
        return []
    title = name.removesuffix(", pole")
    setting = ", ".join(f"{key} {value}" for key, value in done[0]["setting"].items())
    if name == "start":
        scores = [one["start"]["score"] for one in done]
        here = interval(scores)
        return [sum(scores) / len(done), "*start*", "", "", here, "", here, "", len(done)]
    after = {limit: [one[limit] for one in done] for limit in ("tokens", "seconds")}
    first, second = ([one["score"] for one in each] for each in after.values())
    seconds = sum(one["seconds"] for one in after["tokens"]) / len(done)
    tokens = sum(one["tokens"] for one in after["seconds"]) / len(done)
    cells = interval(first), f"{seconds:.1f}", interval(second), f"{tokens:,.0f}", len(done)
    return [sum(first) / len(done), f"`{title}`", families[name], setting, *cells]


def interval(scores: list[float]) -> str:
    """Return the mean with its interval of 95 %."""
    found = mean_interval(scores)
    digits = 0 if max(map(abs, scores)) > 20 else 3  # returns of the pole, or shares and likelihoods
    return f"{found.estimate:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"
