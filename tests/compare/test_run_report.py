"""The report of a single run: its page in a browser, its tables, and runs that ended early."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import rlseq
from rlseq.compare.run_report import MOST_POINTS, RunReport, _shortened, run_markdown, run_page
from tests.compare.test_report import PROBE, Cells, answer, needs_browser, opened

TASK: dict[str, Any] = {"num_envs": 16, "items": 40, "length": 3}


def train(out: Path, updates: int = 30, **options: Any) -> Path:
    env = rlseq.make("rlseq/Copy-v0", **TASK)
    policy = rlseq.make_policy("gru", env, hidden=16, embedding=8)
    agent = rlseq.make_agent("grpo", policy, lr=1e-2, samples=4)
    fresh = rlseq.make("rlseq/Copy-v0", split="test", num_envs=16, length=3)
    settings = {"eval_every": 5, "eval_texts": 20, "quiet": True, "alarms": lambda message: None}
    rlseq.train(agent, env, updates, fresh, out=out, **{**settings, **options})
    return out


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("run"))


def test_the_tables_are_those_of_the_run(run: Path) -> None:
    report = RunReport.load(run)
    results = json.loads((run / "results.json").read_text("utf-8"))
    table = report.scores()
    assert table.head[:2] == ["metric", "update 5"]
    assert table.head[-1] == "update 30"
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["reward"][-1] == f"{results['final']['reward']:.3f}"
    assert rows["exact"][0] == f"{results['curve'][0]['eval_exact']:.3f}"
    assert "20 of " in table.caption
    settings = {(row[0], row[1]): row[2] for row in report.settings().rows}
    assert settings["agent", "lr"] == "0.01"
    assert settings["agent", "epochs"] == "1"
    assert settings["task", "id"] == "rlseq/Copy-v0"
    assert settings["task", "length"] == "3"
    assert "parameters" in settings["policy", "policy"]
    begun, end = (results["curve"][place]["eval_reward"] for place in (0, -1))
    verb = "rose" if end > begun else "fell" if end < begun else "is"
    assert report.summary().startswith(f"The reward in tests {verb} ")
    assert "after 30 updates and " in report.summary()
    text = run_markdown(report)
    assert "| reward | " in text
    assert report.summary() in text


@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_in_a_browser(run: Path, tmp_path: Path, width: int) -> None:
    report = RunReport.load(run)
    html = report.save(tmp_path).read_text("utf-8")
    word = str(report.texts[30][3]["source"])
    (tmp_path / "probed.html").write_text(
        html.replace("</body>", PROBE.replace("QUERY", word)), encoding="utf-8"
    )
    seen, console = opened(tmp_path / "probed.html", width, tmp_path)
    assert console == ""
    said = answer(seen)
    assert said["requests"] == 0
    assert not said["wide"], "only tables may scroll sideways"
    assert said["hints"]
    assert said["tip"][0] == "30 updates"
    assert said["tip"][1] == f"test {report.tests[-1]['reward']:.4g}"
    changed = [
        {lines[place]["text"] for lines in report.texts.values()} for place in range(len(report.texts[30]))
    ]
    assert said["differ"] == sum(len(texts) > 1 for texts in changed)
    cells = Cells()
    cells.feed(seen)
    for table in (report.scores(), report.settings()):
        shown = [[" ".join(cell.split()) for cell in row] for row in cells.tables[table.name][1:]]
        assert shown == [list(row) for row in table.rows]


def test_the_page_has_a_figure_for_each_kind_of_metric(run: Path) -> None:
    html = run_page(RunReport.load(run))
    titles = re.findall(r"<figcaption><strong>([^<]*)</strong>", html)
    for title in ("Reward", "exact", "Entropy", "Divergence (KL)", "Length", "Gradient norm", "Diversity"):
        assert title in titles
    assert "Groups with equal rewards" in titles
    assert "accuracy" not in titles, "it is the reward again"
    assert len(re.findall(r'<svg role="img"', html)) == len(titles)
    others = set(re.findall(r"https?://[^\s\"'<]+", html))
    assert others <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_texts_and_alarms_are_only_text(run: Path) -> None:
    report = RunReport.load(run)
    report.texts[30][0]["text"] = "<script>alert(1)</script>\u202e"
    hostile = RunReport(**{**vars(report), "alarms": ["<img src=x onerror=alert(2)>"]})
    html = run_page(hostile)
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert" in html
    assert "<img" not in html
    assert "\u202e" not in html
    assert "⚠ \\<img src" in run_markdown(hostile)


def test_a_run_that_failed_says_so(tmp_path: Path) -> None:
    def fail(row: dict[str, float]) -> None:
        if row["update"] == 7:
            raise ZeroDivisionError("as intended")

    with pytest.raises(ZeroDivisionError):
        train(tmp_path, on_update=fail)
    html = run_page(RunReport.load(tmp_path))
    assert "The run ended with an error" in html
    assert "ZeroDivisionError: as intended" in html
    assert "(failed)" in html


def test_a_run_without_tests_has_curves_only(tmp_path: Path) -> None:
    env = rlseq.make("rlseq/Copy-v0", **TASK)
    agent = rlseq.make_agent("mle", rlseq.make_policy("gru", env, hidden=8, embedding=4))
    rlseq.train(agent, env, 3, out=tmp_path, quiet=True)
    html = run_page(RunReport.load(tmp_path))
    assert "the policy was never tested" in html
    assert "<strong>Likelihood</strong>" in html
    assert "Samples over time" not in html


def test_other_environments_have_steps_and_episodes(tmp_path: Path) -> None:
    env, fresh = (rlseq.adapters.GymEnv("CartPole-v1", num_envs=4, steps=8) for _ in range(2))
    agent = rlseq.make_agent("reinforce", rlseq.make_policy("mlp", env))
    rlseq.train(agent, env, 2, fresh, eval_every=1, eval_texts=4, out=tmp_path, quiet=True)
    report = RunReport.load(tmp_path)
    steps = f"{env.counts.as_dict()['tokens']} steps"
    assert f"after 2 updates and {steps}" in report.summary()
    one = replace(report, results={**report.results, "updates": 1})
    assert f"after 1 update and {steps}" in one.summary()
    assert report.scores().caption == "Scores in tests, means over episodes."
    html = run_page(report)
    assert steps in html
    assert "Samples over time" not in html


def test_a_run_without_results_is_refused(run: Path, tmp_path: Path) -> None:
    for name in ("config.json", "run.json", "words.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    with pytest.raises(ValueError, match="has no results yet: they are written at the first evaluation"):
        RunReport.load(tmp_path)


def test_long_runs_show_means_of_neighbours() -> None:
    x, y = _shortened([(float(n), float(n % 2)) for n in range(10 * MOST_POINTS)])
    assert len(x) == len(y) == MOST_POINTS
    assert set(y) == {0.5}
    assert x[0] == 4.5
    assert _shortened([(1.0, 2.0), (2.0, 3.0)]) == ([1.0, 2.0], [2.0, 3.0])
    assert _shortened([]) == ([], [])


def test_the_command_reports_runs_and_refuses_other_folders(run: Path, tmp_path: Path, capsys: Any) -> None:
    from rlseq.cli import main

    main(["report", str(run)])
    shown = capsys.readouterr().out
    assert "grpo on rlseq/Copy-v0" in shown
    assert "exact" in shown
    assert shown.replace("\n", "").endswith(str(run / "report.html"))
    assert max(map(len, shown.splitlines()[:-1])) <= 80
    with pytest.raises(SystemExit) as ended:
        main(["report", str(tmp_path)])
    assert ended.value.code == 2
    assert "holds no finished comparison, and no run" in capsys.readouterr().err
