"""`rlseq resume`: a run continues with the settings in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import rlseq
from rlseq.cli import main
from rlseq.training.run_folder import read_results

SMALL = [
    "--policy",
    "lstm",
    "hidden=8",
    "embedding=8",
    "--option",
    "num_envs=16",
    "--evaluations",
    "2",
    "--quiet",
]


def train(agent: str, budget: int, out: Path, *more: str) -> Path:
    words = ["--env", "rlseq/Copy-v0", "--budget-tokens", str(budget), "--texts", "20", "--out", str(out)]
    main(["train", agent, *words, *SMALL, *more])
    return out


def weights(run: Path) -> dict[str, Any]:
    return dict(rlseq.load(run).policy.state_dict())


@pytest.mark.parametrize("agent", ["mle", "rloo"])
def test_a_finished_run_goes_on_as_if_it_had_not_ended(agent: str, tmp_path: Path, capsys: Any) -> None:
    whole = train(agent, 1600, tmp_path / "whole", "--schedule", "constant")
    parts = train(agent, 800, tmp_path / "parts", "--schedule", "constant")
    capsys.readouterr()
    main(["resume", str(parts), "--budget-tokens", "1600"])
    said = capsys.readouterr()
    assert "1,600 tokens, an evaluation every 800 tokens, resumed after " in said.err
    assert said.out.endswith(f"{parts}\n")
    theirs = weights(whole)
    assert all(torch.equal(value, theirs[name]) for name, value in weights(parts).items())
    assert read_results(parts)["tokens"] == read_results(whole)["tokens"] >= 1600
    before = read_results(parts)
    main(["resume", str(parts), "--budget-tokens", "1600"])  # nothing is left to do
    assert capsys.readouterr().out == said.out
    assert read_results(parts)["updates"] == before["updates"]


def test_a_run_of_a_comparison_goes_on(tmp_path: Path, capsys: Any) -> None:
    rlseq.compare(
        "rlseq/Copy-v0",
        ["reinforce", "mle"],
        seeds=1,
        budget_tokens=300,
        start_tokens=300,
        policy={"name": "lstm", "hidden": 8, "embedding": 8},
        jobs=1,
        out=tmp_path,
    )
    run = tmp_path / "runs" / "rlseq_Copy-v0" / "reinforce" / "0"
    main(["resume", str(run), "--budget-tokens", "900", "--quiet"])
    assert read_results(run)["tokens"] >= 900
    assert "reward" in capsys.readouterr().out


def test_bad_requests_have_one_line(tmp_path: Path, capsys: Any) -> None:
    run = train("mle", 300, tmp_path / "run")
    state = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for words, said in (
        ([str(tmp_path)], "there is no checkpoint of a run"),
        ([str(run), "--budget-tokens", "100"], "and a training cannot become shorter; give more"),
    ):
        with pytest.raises(SystemExit):
            main(["resume", *words])
        error = capsys.readouterr().err
        assert said in error
        assert "Traceback" not in error
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == state
