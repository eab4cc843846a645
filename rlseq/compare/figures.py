"""Figures of reports: learning curves with bands, lines of a single run, samples at several temperatures."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, ScalarFormatter

from rlseq.utils.files import Json

PALETTE = ("#3b82c4", "#e07b16", "#2a9d6f", "#d1495b", "#8e6bbf", "#b08a1e", "#1b9ea8", "#c45ba8", "#6b8e23")
START_COLOUR = "#8a8f98"  # where all started
INK, FAINT = "#010203", "#040506"  # replaced by the page's own colours, light or dark
COSTS = {"tokens": "tokens", "episodes": "episodes", "seconds": "seconds of training"}
FEW_POINTS = 40  # of a line whose points are marked
SIZE = 4.2, 3.1  # inches of a figure in a page


@dataclass(frozen=True)
class Curve:
    """A line of a figure; a page shows its values under the pointer."""

    name: str
    colour: str
    x: Sequence[float]
    y: Sequence[float]
    texts: Sequence[str] = ()  # the values as they are shown, where they are not those of `y`


def colours(task: Json) -> dict[str, str]:
    """Return the colour of each agent, the same in every figure and table."""
    names = [agent["name"] for agent in task["agents"] if agent["name"] != "start"]
    return {"start": START_COLOUR, **{name: PALETTE[i % len(PALETTE)] for i, name in enumerate(names)}}


def curves(task: Json, costs: Sequence[str] = tuple(COSTS)) -> Figure:
    """Draw the reward in tests against cost; triangles mark bands that extend beyond the axes."""
    figure = Figure(figsize=(SIZE[0] * len(costs), SIZE[1]), layout="constrained")
    axes = figure.subplots(1, len(costs), squeeze=False)[0]
    paint = colours(task)
    for axis, cost in zip(axes, costs, strict=True):
        for agent in task["agents"]:
            points, colour = agent["curve"], paint[agent["name"]]
            if agent["name"] == "start" or not points[-1][cost]:
                level = agent["scores"]["reward"]["estimate"]
                if agent["name"] == "start":
                    axis.axhline(level, color=colour, linestyle=":", linewidth=1.2)
                continue
            for seed in agent.get("seed_curves", ()):
                values = [point["reward"] for point in seed]
                axis.plot([point[cost] for point in seed], values, color=colour, linewidth=0.7, alpha=0.45)
            x = [point[cost] for point in points]
            if points[0]["low"] is not None:
                band = [point["low"] for point in points], [point["high"] for point in points]
                axis.fill_between(x, *band, color=colour, alpha=0.15, linewidth=0)
            axis.plot(
                x, [point["estimate"] for point in points], color=colour, linewidth=1.8, label=agent["name"]
            )
        _dressed(axis, COSTS[cost], "reward" if axis is axes[0] else "")
        _limit(axis, task)
        _mark_beyond(axis, task, cost)
    return figure


def means(task: Json, cost: str) -> list[Curve]:
    """Return the mean rewards of the agents along training, with their intervals as the texts to show."""
    paint = colours(task)
    return [
        Curve(
            agent["name"],
            paint[agent["name"]],
            [point[cost] for point in agent["curve"]],
            [point["estimate"] for point in agent["curve"]],
            [_valued(point) for point in agent["curve"]],
        )
        for agent in task["agents"]
        if agent["name"] != "start" and agent["curve"][-1][cost]
    ]


def _valued(point: Json) -> str:
    """Return a mean with its interval, where it has one."""
    if point["low"] is None:
        return f"{point['estimate']:.3f}"
    return f"{point['estimate']:.3f} [{point['low']:.3f}, {point['high']:.3f}]"


def plotted(lines: Sequence[Curve], x: str) -> Figure:
    """Draw the lines of a run, the first on top; lines of few points, such as tests, have marks."""
    figure = Figure(figsize=SIZE, layout="constrained")
    axis = figure.subplots()
    for line in reversed(lines):
        few = len(line.x) <= FEW_POINTS
        style: dict[str, Any] = {"marker": "o", "markersize": 3} if few else {"linewidth": 1, "alpha": 0.8}
        axis.plot(line.x, line.y, color=line.colour, **style)
    _dressed(axis, x, "")
    axis.yaxis.set_major_formatter(
        EngFormatter(sep="") if _large(lines) else ScalarFormatter(useOffset=False)
    )
    axis.set_xlim(left=0)
    return figure


def _large(lines: Sequence[Curve]) -> bool:
    return any(abs(y) >= 10_000 for line in lines for y in line.y)


def sweep(task: Json) -> Figure | None:
    """Draw quality against diversity of samples by temperature; return None without such tests."""
    swept = [agent for agent in task["agents"] if agent["temperatures"]]
    if not swept:
        return None
    figure = Figure(figsize=SIZE, layout="constrained")
    axis = figure.subplots()
    paint = colours(task)
    for agent in swept:
        points = agent["temperatures"]
        x, y = ([p[name]["estimate"] for p in points] for name in ("self_bleu", "reward"))
        axis.plot(x, y, marker="o", color=paint[agent["name"]], linewidth=1.5)
        for point, a, b in zip(points, x, y, strict=True):
            axis.annotate(
                f"{point['temperature']:g}", (a, b), textcoords="offset points", xytext=(5, 4), color=INK
            )
    _dressed(axis, "self-BLEU of samples (alike →)", "reward of samples")
    return figure


def inline(figure: Figure, title: str, lines: Sequence[Curve] = (), x: str = "") -> str:
    """Return a figure as SVG for a page, with text as text, in the colours of the page.

    Args:
        figure: with one pair of axes, if there are lines.
        title: is read aloud in place of the figure.
        lines: those whose values are shown under the pointer.
        x: the unit of the horizontal axis.
    """
    text = io.StringIO()
    from matplotlib import rc_context

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "rlseq", "font.family": "sans-serif"}):
        FigureCanvasSVG(figure).print_figure(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px system-ui, sans-serif", svg)
    svg = re.sub(r"\s*\n\s*", " ", svg)
    svg = svg.replace(INK, "currentColor").replace(FAINT, "var(--line)")
    shown = f' data-lines="{escape(_places(figure, lines, x))}"' if lines else ""
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}"{shown} ', 1)


def _places(figure: Figure, lines: Sequence[Curve], unit: str) -> str:
    """Return the points of lines as JSON: their places in the SVG, and the text that is shown for each."""
    engineering, scale = EngFormatter(sep=""), 72 / figure.dpi  # an SVG has 72 units an inch
    found = []
    for line in lines:
        where = figure.axes[0].transData.transform(np.column_stack([line.x, line.y])) * scale
        values = line.texts or [f"{value:.4g}" for value in line.y]
        points = [
            [
                round(float(x), 1),
                round(72 * figure.get_figheight() - float(y), 1),
                f"{engineering(at)} {unit}",
                value,
            ]
            for (x, y), at, value in zip(where, line.x, values, strict=True)
        ]
        found.append({"name": line.name, "colour": line.colour, "points": points})
    return json.dumps(found, ensure_ascii=False)


def _dressed(axis: Any, x: str, y: str) -> None:
    axis.set_xlabel(x, color=INK)
    axis.set_ylabel(y, color=INK)
    axis.tick_params(colors=INK, labelsize=9, length=0)
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.grid(color=FAINT, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.patch.set_alpha(0)
    axis.figure.patch.set_alpha(0)
    for side in axis.spines.values():
        side.set_visible(False)


def _limit(axis: Any, task: Json) -> None:
    """Set the limits of the axes by the means, because bands of few seeds may be far wider."""
    drawn = [agent for agent in task["agents"] if agent["name"] != "start"]
    points = [p["estimate"] for agent in drawn for p in agent["curve"]]
    margin = 0.12 * (max(points) - min(points)) or 0.1
    axis.set_ylim(min(points) - margin, max(points) + margin)
    axis.set_xlim(left=0)


def _mark_beyond(axis: Any, task: Json, cost: str) -> None:
    """Draw triangles at the edge of the axes where bands extend beyond them."""
    bottom, top = axis.get_ylim()
    for agent in task["agents"]:
        points, colour = [p for p in agent["curve"] if p["low"] is not None], colours(task)[agent["name"]]
        if agent["name"] == "start" or not agent["curve"][-1][cost]:
            continue
        for edge, marker, beyond in (
            (bottom, "v", [p[cost] for p in points if p["low"] < bottom]),
            (top, "^", [p[cost] for p in points if p["high"] > top]),
        ):
            style = {"color": colour, "alpha": 0.6, "markersize": 4, "clip_on": False}
            axis.plot(beyond, [edge] * len(beyond), marker, **style)
