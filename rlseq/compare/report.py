"""The page of a comparison, and its tables as Markdown and CSV."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader, select_autoescape
from matplotlib.ticker import MaxNLocator

import rlseq.compare.figures as figures
import rlseq.compare.tables as tables
from rlseq.metrics.registry import row_of
from rlseq.utils.files import Json, write_whole


def write(results: Json, folder: Path) -> Path:
    """Write `report.html`, `tables.md` and three CSV files; return the path of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "report.html", page(results).encode())
    write_whole(folder / "tables.md", tables.markdown(results).encode())
    for name, text in tables.spreadsheets(results).items():
        write_whole(folder / f"{name}.csv", text.encode())
    return folder / "report.html"


def page(results: Json) -> str:
    """Return the page as self-contained HTML: it makes no network requests."""
    results = tables.visible(results)
    shown: str = template("report.html").render(
        results=results,
        tasks=[{**_shown(task), "slug": f"task-{i}"} for i, task in enumerate(results["tasks"])],
        stock=any(a["algorithm"].startswith("sb3-") for task in results["tasks"] for a in task["agents"]),
        across=tables.across(results) if results["across"] else None,
        config=json.dumps(results["config"], indent=2, ensure_ascii=False),
        machine=json.dumps(results["machine"], indent=2),
    )
    return shown


def fragment(results: Json) -> str:
    """Return verdicts and scores as HTML for a notebook."""
    results = tables.visible(results)
    shown: str = template("fragment.html").render(tasks=[_shown(task) for task in results["tasks"]])
    return shown


def template(name: str, package: str = "rlseq.compare") -> Any:
    """Return a template of a page, which escapes all that is put into it.

    Args:
        name: of the template.
        package: that has it; it may extend those of the reports.
    """
    loader = ChoiceLoader([PackageLoader(place, "templates") for place in (package, "rlseq.compare")])
    return Environment(
        loader=loader, autoescape=select_autoescape(), trim_blocks=True, lstrip_blocks=True
    ).get_template(name)


def _shown(task: Json) -> dict[str, Any]:
    """Return the tables and figures of a task for the template."""
    swept = figures.sweep(task)
    title = f"Reward of every agent on {task['env']} against"
    return {
        **task,
        "colours": figures.colours(task),
        "scores": tables.scores(task),
        "matrix": tables.matrix(task),
        "pairs_table": tables.pairs(task),
        "memorisation": tables.memorised_by_agents(task),
        "costs": tables.costs(task),
        "settings": tables.hyper_parameters(task),
        "bars": (bars := _bars(task)),
        "clipped": any(bar["beyond"] for bar in bars),
        "ticks": _ticks(task),
        "heat": _heat(task),
        "alarms": tables.alarms(task),
        "curves": [
            figures.inline(figures.curves(task, [cost]), f"{title} {label}", figures.means(task, cost), label)
            for cost, label in figures.COSTS.items()
        ],
        "sweep": swept and figures.inline(swept, "Reward and self-BLEU of samples by temperature"),
    }


def _frame(task: Json) -> tuple[float, float]:
    """Return the least and the largest reward that the column of intervals shows.

    Wide intervals are cut rather than all others squeezed.
    """
    scores = [agent["scores"]["reward"] for agent in task["agents"]]
    ends = [s[end] for s in scores for end in ("estimate", "low", "high") if s[end] is not None]
    points = [s["estimate"] for s in scores]
    room = 0.35 * (max(points) - min(points)) or 1.0
    return max(min(ends), min(points) - room), min(max(ends), max(points) + room)


def _place(value: float, frame: tuple[float, float]) -> float:
    """Return the place of a value in a frame, in per cent of its width."""
    low, high = frame
    return round(100 * float(np.clip((value - low) / ((high - low) or 1.0), 0, 1)), 2)


def _bars(task: Json) -> list[dict[str, Any]]:
    """Return the place of each interval in the frame.

    `beyond` names the ends that lie outside the frame, `cut` those that the range of the metric has cut.
    """
    frame = low, high = _frame(task)
    scores = [agent["scores"]["reward"] for agent in tables.ranked(task)]
    return [
        {
            "point": _place(s["estimate"], frame),
            "low": _place(s["estimate"] if s["low"] is None else s["low"], frame),
            "high": _place(s["estimate"] if s["high"] is None else s["high"], frame),
            "beyond": " ".join(
                end
                for end, out in (
                    ("low", s["low"] is not None and s["low"] < low),
                    ("high", s["high"] is not None and s["high"] > high),
                )
                if out
            ),
            "cut": " ".join(f"cut-{end}" for end in s["cut"]),
        }
        for s in scores
    ]


def _ticks(task: Json) -> list[tuple[float, str]]:
    """Return places and labels of the axis below the intervals."""
    frame = low, high = _frame(task)
    values = [value for value in MaxNLocator(4).tick_values(low, high) if low <= value <= high]
    return [(_place(value, frame), f"{value:g}") for value in values]


def _heat(task: Json) -> list[list[float]]:
    """Return how good every cell of the matrix is within its column, 0 … 1."""
    agents = tables.ranked(task)
    columns = []
    for metric in agents[0]["scores"]:
        values = [a["scores"].get(metric, {}).get("estimate", 0.0) for a in agents]
        sign = row_of(metric).sign
        low, high = min(v * sign for v in values), max(v * sign for v in values)
        columns.append([(v * sign - low) / ((high - low) or 1) if high > low else 0.0 for v in values])
    return [list(row) for row in zip(*columns, strict=True)]
