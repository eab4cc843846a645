"""Samples beside training texts in the folder of a run, and in the reports of runs and comparisons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlseq.compare import tables
from rlseq.compare.results import Comparison
from rlseq.compare.run_report import RunReport, run_markdown, run_page
from rlseq.training.experiment import SAMPLES

NAMES = ("copies", "nearest_rate", "held_out_copies", "held_out_rate")


def of_runs(folder: Path, agent: str) -> list[dict[str, Any]]:
    runs = sorted((folder / "runs/rlseq_Copy-v0" / agent).iterdir())
    return [json.loads((run / "memorisation.json").read_text("utf-8")) for run in runs]


def test_a_comparison_shows_the_means_of_its_runs(comparison: Any) -> None:
    (task,) = comparison.results["tasks"]
    table = tables.memorised_by_agents(task)
    rows = {row[0]: row[1:] for row in table.rows}
    assert {"start", "mle", "reinforce", "sb3-a2c"} <= set(rows)
    for agent in task["agents"]:
        runs, shown = of_runs(comparison.folder, agent["name"]), agent["memorisation"]
        for name in NAMES:
            assert shown[name]["estimate"] == pytest.approx(sum(run[name] for run in runs) / len(runs))
        equal = sum(run["equal_pairs"] for run in runs)
        pairs = sum(run["samples"] * (run["samples"] - 1) / 2 for run in runs)
        assert shown["support"] == (pairs / equal if equal else None)
        assert rows[agent["name"]][0].startswith(f"{shown['copies']['estimate']:.3f} [")
    assert "references of 40 training items" in table.caption
    assert 0 < min(run["samples"] for run in of_runs(comparison.folder, "mle")) <= SAMPLES
    page = comparison.save().read_text("utf-8")
    assert '<table data-table="memorisation">' in page
    assert "## rlseq/Copy-v0" in (text := (comparison.folder / "tables.md").read_text("utf-8"))
    assert "| agent | copies | edits |" in text


def test_a_comparison_without_these_figures_is_shown_without_them(comparison: Any) -> None:
    """As comparisons of earlier versions, and those on tasks without references."""
    results = json.loads(json.dumps(comparison.results))
    for agent in results["tasks"][0]["agents"]:
        del agent["memorisation"]
    assert not tables.memorised_by_agents(results["tasks"][0]).rows
    assert "copies" not in tables.markdown(results)
    assert Comparison(comparison.folder, results).table()


def test_the_report_of_a_run_shows_its_samples_beside_training_texts(comparison: Any) -> None:
    run = comparison.folder / "runs/rlseq_Copy-v0/mle/0"
    (found, *_), report = of_runs(comparison.folder, "mle"), RunReport.load(run)
    figures, nearest = report.memorisation()
    assert figures.rows[0][1:] == [f"{found['copies']:.3f}", f"{found['held_out_copies']:.3f}"]
    assert figures.rows[1][1:] == [f"{found['nearest_rate']:.3f}", f"{found['held_out_rate']:.3f}"]
    assert [row[2] for row in nearest.rows] == [str(each["distance"]) for each in found["nearest"]]
    html = run_page(report)
    assert "<h3>Memorisation</h3>" in html
    assert '<table data-table="nearest">' in html
    assert "word for word a training text" in run_markdown(report)
    without = RunReport(**{**vars(report), "memorised": {}})
    assert "Memorisation" not in run_page(without)
    assert "training text" not in run_markdown(without)
