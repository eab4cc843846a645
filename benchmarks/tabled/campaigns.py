"""The counts of the campaigns as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tabled import markdown, runs

SHOWN = 12  # counts of a campaign that are shown; the JSON has them all


def campaigns() -> str:
    """One line for each campaign whose counts are committed."""
    rows = []
    for run in runs("campaigns/*"):
        results = dict(run["results"])
        seed = results.pop("seed", 0)
        counts = list(_counts(results))
        more = f", and {len(counts) - SHOWN} more" if len(counts) > SHOWN else ""
        rows.append([run["name"], ", ".join(counts[:SHOWN]) + more, seed, f"`{run['commit']}`"])
    return markdown(["campaign", "counts", "seed", "commit"], rows)


def _counts(tree: Mapping[str, Any], place: str = "") -> Iterator[str]:
    """The numbers of a tree of counts in words."""
    for name, value in tree.items():
        label = f"{place}{str(name).replace('_', ' ')}"
        if isinstance(value, Mapping):
            yield from _counts(value, f"{label}: ")
        elif isinstance(value, (int, float)):
            yield f"{label} {value:,.4g}" if isinstance(value, float) else f"{label} {value:,}"
