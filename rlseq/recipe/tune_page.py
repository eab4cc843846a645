"""The page of a search: history, importances, and the reward along every hyper-parameter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from rlseq.compare.figures import PALETTE, inline
from rlseq.compare.report import template
from rlseq.recipe.page import axes
from rlseq.utils.files import Json, write_whole


def write_tune_page(results: Json, path: Path) -> None:
    """Write the page of a search."""
    finished = [row for row in results["history"] if row["state"] == "complete"]
    names = list(results["best"]["hyper"])
    figures = [inline(history(finished), "Reward on dev of every trial, and the best so far")]
    figures += [inline(slice_of(finished, name), f"Reward on dev against {name}") for name in names]
    page = template("tune.html", "rlseq.recipe").render(results=results, figures=figures, names=names)
    write_whole(path, page.encode())


def history(rows: list[dict[str, Any]]) -> Figure:
    """Draw the reward of every trial, and the best so far."""
    figure, axis = axes("trial", "reward on dev")
    numbers, rewards = [row["trial"] for row in rows], [row["reward"] for row in rows]
    axis.plot(numbers, rewards, "o", color=PALETTE[0], markersize=4)
    best = [max(rewards[: place + 1]) for place in range(len(rewards))]
    axis.step(numbers, best, where="post", color=PALETTE[1], linewidth=1.8)
    return figure


def slice_of(rows: list[dict[str, Any]], name: str) -> Figure:
    """Draw the reward of every trial against one hyper-parameter."""
    figure, axis = axes(name, "reward on dev")
    values = [row[name] for row in rows]
    axis.plot(values, [row["reward"] for row in rows], "o", color=PALETTE[0], markersize=4)
    if min(values) > 0 and max(values) / min(values) > 20:
        axis.set_xscale("log")
    return figure
