"""Committed results as Markdown tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"


def markdown(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"


def origin(run: dict[str, Any]) -> str:
    """Return a line with the origin of the numbers."""
    machine = run["machine"]
    place = (
        machine["gpu"] or f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads"
    )
    return f"\n`{run['command']}` at `{run['commit']}`, {place}, torch {machine['torch']}.\n"


def gain(found: dict[str, Any], form: str = "+.3f") -> str:
    """Return a difference with its interval over items, its p-value, and its interval over seeds."""
    low, middle, high = (format(found[name], form) for name in ("low", "estimate", "high"))
    text = f"{middle} [{low}, {high}], p = {found['p']:.4f}"
    if "over seeds" in found:
        text += f"; over seeds [{', '.join(format(end, form) for end in found['over seeds'])}]"
    return text


def by_seed(alarms: Sequence[Sequence[str]]) -> str:
    """Return the number of alarms of each seed."""
    return ", ".join(str(len(said)) for said in alarms)


def runs(pattern: str) -> list[dict[str, Any]]:
    """The JSON files of a benchmark, each with the name of its file."""
    paths = sorted(RESULTS.glob(f"{pattern}.json"))
    return [{"name": path.stem, **json.loads(path.read_text("utf-8"))} for path in paths]
