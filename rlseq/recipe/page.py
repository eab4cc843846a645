"""The page of a fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from rlseq.compare.figures import FAINT, INK, PALETTE, inline
from rlseq.compare.report import template
from rlseq.metrics.registry import row_of
from rlseq.recipe.verdict import models
from rlseq.utils.files import Json, write_whole

NAME = "report.html"
MODELS = {
    "likelihood": "likelihood",
    "longer": "continued likelihood",
    "reward": "trained on the reward",
}
MODEL_COLOURS = dict(zip(MODELS, ("#8a8f98", *PALETTE), strict=False))


def write_page(results: Json, folder: Path) -> Path:
    """Write the page of a fit, and return its path."""
    path = folder / NAME
    write_whole(path, fit_page(results).encode())
    return path


def fit_page(results: Json) -> str:
    """Return the page as HTML, which loads nothing from elsewhere."""
    figures = [inline(likelihood_curve(results), "Nats per token on dev against updates of likelihood")]
    if results["stages"]:
        figures.append(inline(reward_curves(results), "Reward on dev against updates after likelihood"))
    shown: str = template("fit.html", "rlseq.recipe").render(
        results=results,
        names=MODELS,
        head=_columns(results),
        rows=_rows(results),
        figures=figures,
        arrow=arrow,
    )
    return shown


def _columns(results: Json) -> list[str]:
    """The scores of the table, the reward first, each with the direction in which it is better."""
    scores = models(results)[0][1]
    pooled = sorted(name for name in scores if name.startswith("pooled "))
    names = [results["reward"]["name"], "exact", "length", *pooled]
    return list(dict.fromkeys(names))


def _rows(results: Json) -> list[list[str]]:
    return [
        [
            MODELS[name] + (" (kept)" if name == results["kept"] else ""),
            *(f"{scores[n]:.4g}" for n in _columns(results)),
        ]
        for name, scores in models(results)
    ]


def arrow(column: str) -> str:
    """Return an arrow that says in which direction a score is better."""
    return {1: " ↑", -1: " ↓", 0: ""}[row_of(column.removeprefix("pooled ")).sign]


def likelihood_curve(results: Json) -> Figure:
    """Draw nats per token on dev, by look; the stages one after the other."""
    figure, axis = axes("look at dev", "nats per token on dev")
    scores = list(results["dev nll"].values())
    axis.plot(range(1, len(scores) + 1), scores, color=PALETTE[0], linewidth=1.8, marker="o", markersize=3)
    return figure


def reward_curves(results: Json) -> Figure:
    """Draw the reward on dev of training on it, and of continued likelihood, from where both started."""
    figure, axis = axes("updates after likelihood", "reward on dev")
    start = results["earned on dev"]["likelihood"]
    axis.axhline(start, color=MODEL_COLOURS["likelihood"], linestyle=":", linewidth=1.2)
    for name, stage in results["stages"].items():
        points = [(0, start), *((row["update"], row["reward"]) for row in stage["curve"])]
        axis.plot(*zip(*points, strict=True), color=MODEL_COLOURS[name], linewidth=1.8, label=MODELS[name])
    legend = axis.legend(frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_color(INK)
    return figure


def axes(x: str, y: str) -> tuple[Figure, Any]:
    """Return an empty figure in the style of the pages, and its axes."""
    figure = Figure(figsize=(5.2, 3.1), layout="constrained")
    axis = figure.subplots()
    axis.set_xlabel(x, color=INK)
    axis.set_ylabel(y, color=INK)
    axis.tick_params(colors=INK, labelsize=9, length=0)
    axis.grid(color=FAINT, linewidth=0.8)
    axis.patch.set_alpha(0)
    figure.patch.set_alpha(0)
    for side in axis.spines.values():
        side.set_visible(False)
    return figure, axis
