"""A small comparison, from the call to the page."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

import rlseq
from rlseq.compare import statistics, tables
from rlseq.compare.plan import ComparisonConfig
from rlseq.compare.results import Comparison
from rlseq.metrics.registry import row_of
from tests.compare.conftest import small


def of(comparison: Any, name: str) -> Any:
    return next(agent for agent in comparison.results["tasks"][0]["agents"] if agent["name"] == name)


def test_everybody_has_the_same_budget_and_start(comparison: Any) -> None:
    agents = comparison.results["tasks"][0]["agents"]
    assert [a["name"] for a in agents] == [
        *("start", "mle", "reinforce", "reinforce@exact", "reinforce@constant"),
        *("sb3-a2c", "sb3-a2c@exact", "sb3-a2c@constant"),
    ]
    first = of(comparison, "start")["scores"]["reward"]["runs"]
    for agent in agents:
        assert 1500 <= agent["costs"]["tokens"] <= 1500 + 2048
        assert agent["seeds"] == [0, 1]
        if agent["name"] not in ("start",) and not agent["name"].startswith("sb3"):
            assert agent["curve"][0]["estimate"] == pytest.approx(sum(first) / 2), "the shared start"
    assert not comparison.results["failed"]
    assert of(comparison, "mle")["costs"]["episodes"] == 0
    assert of(comparison, "reinforce")["costs"]["episodes"] >= 1500 / 4


def test_scores_are_those_of_the_runs(comparison: Any) -> None:
    for name, metric in (("mle", "reward"), ("reinforce", "bleu"), ("sb3-a2c", "exact")):
        runs = [
            json.loads(
                (comparison.folder / f"runs/rlseq_Copy-v0/{name}/{seed}/results.json").read_text("utf-8")
            )
            for seed in (0, 1)
        ]
        values = [run["final"][metric] for run in runs]
        score = of(comparison, name)["scores"][metric]
        assert score["runs"] == values
        wanted = statistics.mean_interval(values)
        assert score["iqm"]["estimate"] == pytest.approx(float(statistics.iqm(values).estimate))
        low, high = row_of("bleu" if metric == "bleu" else "accuracy").range
        assert (score["estimate"], score["low"], score["high"]) == pytest.approx(
            [float(wanted.estimate), max(float(wanted.low), low), min(float(wanted.high), high)]
        )


def test_pairs_are_corrected_for_their_number(comparison: Any) -> None:
    pairs = comparison.results["tasks"][0]["pairs"]
    assert len(pairs) == 7 * 6 / 2
    assert [p["p_holm"] for p in pairs] == pytest.approx(statistics.holm([p["p"] for p in pairs]))
    x, y = (of(comparison, name)["scores"]["reward"]["runs"] for name in ("mle", "reinforce"))
    pair = next(p for p in pairs if (p["a"], p["b"]) == ("mle", "reinforce"))
    assert pair["difference"]["estimate"] == pytest.approx(sum(x) / 2 - sum(y) / 2)
    assert pair["items"]["difference"]["n"] == 20


def test_a_constant_reward_shows_no_gain(comparison: Any) -> None:
    """With a baseline the advantage is 0, so that nothing is learned at all."""
    control = of(comparison, "reinforce@constant")["scores"]["reward"]
    assert control["runs"] == of(comparison, "start")["scores"]["reward"]["runs"]


def test_the_same_call_makes_nothing_again_and_more_seeds_only_what_is_new(
    comparison: Any, tmp_path: Path
) -> None:
    shutil.copytree(comparison.folder, tmp_path, dirs_exist_ok=True)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("metrics.jsonl")}
    shutil.rmtree(tmp_path / "runs" / "rlseq_Copy-v0" / "mle" / "1")
    again = small(tmp_path)
    touched = [p for p, t in files.items() if p.stat().st_mtime_ns != t]
    assert [str(p.parent.relative_to(tmp_path)) for p in touched] == ["runs/rlseq_Copy-v0/mle/1"]
    assert [a["scores"] for a in again.results["tasks"][0]["agents"]] == [
        a["scores"] for a in comparison.results["tasks"][0]["agents"]
    ]


def test_other_settings_in_the_same_folder_are_refused(comparison: Any) -> None:
    before = {path: path.read_bytes() for path in comparison.folder.rglob("*.json")}
    with pytest.raises(ValueError, match=r"holds another run:\n  run\.budget_tokens was 1500, is 999"):
        small(comparison.folder, budget_tokens=999)
    assert {path: path.read_bytes() for path in comparison.folder.rglob("*.json")} == before


def test_a_failed_run_is_reported_and_the_rest_goes_on(tmp_path: Path, capsys: Any) -> None:
    class Moody(rlseq.SequenceEnv):
        """Raises when a seed of 1 has written for a while; registered here, as in a notebook."""

        def __init__(self, **options: Any) -> None:
            super().__init__(vocab=rlseq.Vocab.numbered(4), max_len=3, reward=self.judge_text, **options)
            self.calls = 0

        def judge_text(self, tokens: Any, mask: Any, context: Any) -> Any:
            self.calls += 1
            if self.calls > 1 and self.seed == 1:
                raise ZeroDivisionError("in a bad mood")
            return mask.sum(1).float()

    rlseq.register("tests/Moody-v0", Moody)
    found = rlseq.compare(
        "tests/Moody-v0", "reinforce", seeds=2, budget_tokens=400, start=None, texts=20, jobs=2, out=tmp_path,
        policy={"name": "gru", "hidden": 8, "embedding": 4},
    )  # fmt: skip
    (failure,) = found.results["failed"]
    assert failure["run"] == "runs/tests_Moody-v0/reinforce/1"
    assert "ZeroDivisionError: in a bad mood" in failure["error"]
    assert found.results["tasks"][0]["agents"][0]["seeds"] == [0]
    found.save()
    assert "in a bad mood" in (tmp_path / "report.html").read_text("utf-8")
    with pytest.raises(ValueError, match=r"Moody cannot have the metric 'bleu', which needs references"):
        rlseq.compare("tests/Moody-v0", "reinforce", start=None, metrics=["bleu"], out=tmp_path / "b")
    with pytest.raises(ValueError, match="no references"):
        rlseq.compare("tests/Moody-v0", "reinforce", out=tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_planted_hack_trips_the_alarm(tmp_path: Path) -> None:
    """A reward that likes repetition, on a task that has a better measure of what was meant."""
    from rlseq.envs.copy import Copy

    class Hackable(Copy):
        """Copy, but paid for saying the same word again."""

        held_out: ClassVar[None] = None

        def __init__(self, **options: Any) -> None:
            super().__init__(
                reward=lambda t, m, c: ((t[:, 1:] == t[:, :-1]) & m[:, 1:]).float().mean(1), **options
            )

    rlseq.register("tests/Hackable-v0", Hackable)
    found = rlseq.compare(
        {"tests/Hackable-v0": {"num_envs": 64}}, {"reinforce": {"lr": 2e-2}}, seeds=1,
        budget_tokens=25_000, start_tokens=20_000, start_hyper={"lr": 1e-2}, texts=50, jobs=2, out=tmp_path,
        policy={"name": "gru", "hidden": 32, "embedding": 16},
    )  # fmt: skip
    alarms = " ".join(tables.alarms(found.results["tasks"][0]))
    assert "reinforce, seed 0: reward went from" in alarms
    assert "but repetition" in alarms
    assert "but accuracy" in alarms
    assert "start" not in alarms


BAD: list[tuple[dict[str, Any], str]] = [
    ({"agents": ["scts"]}, "unknown agent 'scts'; did you mean 'scst'"),
    ({"envs": ["rlseq/Copi-v0"]}, "unknown id 'rlseq/Copi-v0'; did you mean 'rlseq/Copy-v0'"),
    ({"metrics": ["bleuu"]}, "unknown metric 'bleuu'; did you mean 'bleu'"),
    ({"seeds": 10**30}, "seeds=more than 10^15 would need more than 1,000 PB of memory"),
    ({"budget_tokens": 0}, "budget_tokens must be an integer ≥ 1, got 0"),
    ({"seeds": 0}, "seeds must be an integer ≥ 1, got 0"),
    ({"jobs": 0}, "jobs must be an integer ≥ 1 or None, got 0"),
    ({"control": "constent"}, "did you mean 'constant'"),
    ({"agents": []}, "nothing to compare"),
    ({"agents": ["mle", "mle"]}, "'mle' is named twice"),
    ({"agents": {"mle": {"lrr": 1}}}, "no option 'lrr'; did you mean 'lr'"),
    ({"agents": {"start": {"agent": "mle"}}}, "is the name of what all agents start from"),
    ({"policy": "ltsm"}, "did you mean 'lstm'"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_mistakes_are_refused_before_anything_is_written(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        small(tmp_path / "none", **change)
    assert not (tmp_path / "none").exists()


def test_the_command_that_reproduces_it_is_kept(comparison: Any) -> None:
    config = json.loads((comparison.folder / "config.json").read_text("utf-8"))
    assert ComparisonConfig(**config).plain() == config
    assert config == comparison.results["config"]


def test_tables_and_spreadsheets_are_the_results(comparison: Any) -> None:
    comparison.save()
    task = comparison.results["tasks"][0]
    with (comparison.folder / "scores.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(a["scores"]) for a in task["agents"])
    row = next(r for r in rows if (r["agent"], r["metric"]) == ("reinforce", "bleu"))
    assert float(row["estimate"]) == of(comparison, "reinforce")["scores"]["bleu"]["estimate"]
    text = (comparison.folder / "tables.md").read_text("utf-8")
    for table in tables.tables(task):
        for line in table.rows:
            assert "| " + " | ".join(map(tables._inline, line)) + " |" in text
    assert tables._inline(task["verdict"]) in text


def test_a_comparison_shows_itself(comparison: Any) -> None:
    from rich.console import Console

    console = Console(width=120, record=True, file=io.StringIO())
    console.print(comparison.table())
    shown = console.export_text()
    assert "reinforce@constant" in shown
    assert comparison.results["tasks"][0]["verdict"][:30] in shown
    assert "<table>" in comparison._repr_html_()
    assert len(comparison.plot().axes) == 3
    assert Comparison.load(comparison.folder).results == comparison.results


def test_a_stock_policy_writes_what_the_stock_agent_would() -> None:
    """Our loop over its network, against SB3's own prediction, token by token."""
    from rlseq.adapters.sb3_agent import stock_agent

    env = rlseq.make("rlseq/Copy-v0", num_envs=8, items=20, length=3)
    agent = stock_agent("sb3-ppo", env, n_steps=8, batch_size=16)
    agent.update(None)
    batch = rlseq.rollout(agent.policy, env, decode=rlseq.Greedy(), index=torch.arange(8))
    view: Any = rlseq.sb3.SequenceVecEnv(env).env
    seen, _ = view.reset(options={"index": torch.arange(8)})
    for t in range(env.max_len):
        action, _ = agent.model.predict(seen, deterministic=True)
        live = batch.mask[:, t]
        assert (torch.as_tensor(action)[live] == batch.actions[live, t]).all()
        seen, *_ = view.step(batch.actions[:, t].numpy())
        if not batch.mask.all():
            break
    assert env.counts.as_dict()["generated_tokens"] >= 64


def test_over_several_tasks_agents_are_compared_by_how_often_they_win() -> None:
    from rlseq.compare.verdicts import probabilities_across_tasks

    def task(**runs: list[float]) -> dict[str, Any]:
        return {
            "agents": [
                {"name": name, "scores": {"reward": {"runs": values}}} for name, values in runs.items()
            ]
        }

    tasks = [task(start=[0, 0], a=[3, 4], b=[1, 2]), task(start=[0, 0], a=[100, 0], b=[50, 60])]
    (line,) = probabilities_across_tasks(tasks)
    assert (line["a"], line["b"]) == ("a", "b")
    assert line["probability"]["estimate"] == pytest.approx((1 + 0.5) / 2)
    table = tables.across({"across": [line]})
    assert table.rows[0][0] == "a − b"
    assert table.rows[0][1].startswith("0.750 [")
