"""The page of a comparison, and its tables as Markdown and CSV."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, select_autoescape

import rlseq.compare.figures as figures
import rlseq.compare.tables as tables
from rlseq.metrics.registry import row_of
from rlseq.utils.files import Json, write_whole


def write(results: Json, folder: Path) -> Path:
    """Write `report.html`, `tables.md` and three CSV files; returns the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "report.html", page(results).encode())
    write_whole(folder / "tables.md", tables.markdown(results).encode())
    for name, text in tables.spreadsheets(results).items():
        write_whole(folder / f"{name}.csv", text.encode())
    return folder / "report.html"


def page(results: Json) -> str:
    """Return the page as HTML, which loads nothing from elsewhere."""
    results = tables.visible(results)
    shown: str = _template("report.html").render(
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
    shown: str = _template("fragment.html").render(tasks=[_shown(task) for task in results["tasks"]])
    return shown


def _template(name: str) -> Any:
    loader = PackageLoader("rlseq.compare", "templates")
    return Environment(
        loader=loader, autoescape=select_autoescape(), trim_blocks=True, lstrip_blocks=True
    ).get_template(name)


def _shown(task: Json) -> dict[str, Any]:
    """Return the tables and figures of a task as the template takes them."""
    swept = figures.sweep(task)
    title = f"Reward of every agent on {task['env']} against"
    return {
        **task,
        "colours": figures.colours(task),
        "scores": tables.scores(task),
        "matrix": tables.matrix(task),
        "tables": [tables.pairs(task), tables.costs(task)],
        "bars": _bars(task),
        "heat": _heat(task),
        "alarms": tables.alarms(task),
        "curves": [
            figures.inline(figures.curves(task, [cost]), f"{title} {label}")
            for cost, label in figures.COSTS.items()
        ],
        "sweep": swept and figures.inline(swept, "Reward and self-BLEU of samples by temperature"),
    }


def _bars(task: Json) -> list[dict[str, Any]]:
    """Return the place of each interval between the worst and the best, in per cent of the width of a cell.

    `beyond` names the ends that lie outside the cell: wide intervals are cut rather than all others squeezed.
    """
    scores = [agent["scores"]["reward"] for agent in tables.ranked(task)]
    ends = [s[end] for s in scores for end in ("estimate", "low", "high") if s[end] is not None]
    points = [s["estimate"] for s in scores]
    room = 0.35 * (max(points) - min(points)) or 1.0
    low, high = max(min(ends), min(points) - room), min(max(ends), max(points) + room)
    width = (high - low) or 1.0

    def place(value: float) -> float:
        return round(100 * float(np.clip((value - low) / width, 0, 1)), 2)

    return [
        {
            "point": place(s["estimate"]),
            "low": place(s["estimate"] if s["low"] is None else s["low"]),
            "high": place(s["estimate"] if s["high"] is None else s["high"]),
            "beyond": " ".join(
                end
                for end, out in (("low", (s["low"] or low) < low), ("high", (s["high"] or high) > high))
                if out
            ),
        }
        for s in scores
    ]


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
