"""Training prints a line at every evaluation, in a terminal and in a file, unless it is quiet."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import rlseq
from rlseq.agents import AGENTS, REINFORCE
from rlseq.training.progress_lines import Pace, clock, evaluation_line
from tests.compare.conftest import small
from tests.test_log import run

LINE = re.compile(
    r"update [\d,]+ \(\d+%\) · reward -?[\d.]+ · exact [\d.]+ · entropy [\d.]+ · length [\d.]+ · "
    r"[\d,]+ tokens/s · (\d+:\d\d left|finished)"
)
WORDS = [
    *("train", "reinforce", "--env", "rlseq/Copy-v0", "--option", "length=3", "items=40", "num_envs=16"),
    *("--policy", "gru", "hidden=8", "--budget-tokens", "600", "--evaluations", "3"),
]


def test_every_evaluation_is_a_line(tmp_path: Path, capsys: Any) -> None:
    run(tmp_path / "a")
    opening, *lines = capsys.readouterr().err.splitlines()
    assert opening == "REINFORCE: 6 updates, an evaluation every 2 updates"
    assert all(map(LINE.fullmatch, lines)), lines
    assert [line.split(" · ")[0] for line in lines] == ["update 2 (33%)", "update 4 (67%)", "update 6 (100%)"]
    assert lines[0].endswith(" left")
    assert lines[-1].endswith("finished")


def test_a_quiet_run_prints_nothing(tmp_path: Path, capfd: Any) -> None:
    run(tmp_path / "a", quiet=True)
    assert capfd.readouterr() == ("", "")


def test_a_run_without_evaluation_tasks_shows_its_training(capsys: Any) -> None:
    env = rlseq.make("rlseq/Copy-v0", num_envs=8, items=20, length=3)
    agent = rlseq.make_agent("mle", rlseq.make_policy("gru", env, hidden=8, embedding=4))
    rlseq.train(agent, env, updates=2)
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(r"update 2 \(100%\) · nll [\d.]+ · [\d,]+ tokens/s · finished", last)


def test_other_environments_have_steps(capsys: Any) -> None:
    env = rlseq.adapters.GymEnv("CartPole-v1", num_envs=4, steps=8)
    agent = rlseq.make_agent("reinforce", rlseq.make_policy("mlp", env))
    rlseq.train(agent, env, updates=1)
    assert " steps/s · finished" in capsys.readouterr().err


def test_lines_go_to_a_file_and_stand_above_the_bar_of_a_terminal(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rlseq", *WORDS, "--out"]
    to_file = subprocess.run([*command, tmp_path / "a"], capture_output=True, text=True, check=True)
    told = [line for line in to_file.stderr.splitlines() if line.startswith("update")]
    assert len(told) == 3
    assert all(map(LINE.fullmatch, told)), told
    assert "━" not in to_file.stderr
    shown = in_terminal([*command, str(tmp_path / "b")])
    assert "━" in shown
    assert len(re.findall(r"^update ", shown, re.MULTILINE)) == 3
    hushed = in_terminal([*command, str(tmp_path / "c"), "--quiet"])
    assert "━" not in hushed
    assert "update" not in hushed


def in_terminal(command: list[str]) -> str:
    """What a command writes to the terminal that is its standard error, without escapes."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "120", "TERM": "xterm"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs, env=environment) as process:
        os.close(theirs)
        data = b""
        while part := _read(ours):
            data += part
    os.close(ours)
    assert process.returncode == 0, data
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode()).replace("\r", "\n")


def _read(handle: int) -> bytes:
    """Bytes of a terminal; nothing when its last writer is gone, which Linux says by an error."""
    try:
        return os.read(handle, 4096)
    except OSError:
        return b""


@dataclass(eq=False)
class Failing(REINFORCE):
    """An agent that learns nothing."""

    def update(self, batch: Any) -> Any:
        raise ZeroDivisionError("as intended")


@pytest.mark.skipif(sys.platform != "linux", reason="an agent of a test is known to forked processes only")
def test_a_comparison_prints_the_lines_of_its_runs(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(AGENTS, "fails", Failing)
    settings: dict[str, Any] = {
        "agents": {"mle": {}, "fails": {}},
        "rewards": (),
        "control": None,
        "temperatures": False,
        "seeds": 1,
    }
    small(tmp_path / "a", **settings)
    told = capsys.readouterr().err.splitlines()
    named = [line.partition("] ")[2].partition(": ") for line in told]
    evaluations = [run for run, _, line in named if LINE.fullmatch(line) or " · nll " in line]
    assert evaluations.count("rlseq_Copy-v0/start/0") == 3
    assert evaluations.count("rlseq_Copy-v0/mle/0") == 3
    assert ("rlseq_Copy-v0/fails/0", ": ", "failed: ZeroDivisionError: as intended") in named
    assert told[0].startswith("[0/3] ")
    assert re.match(r"\[[12]/3, 0:\d\d left\] ", told[-1]), "or nothing is left"
    small(tmp_path / "b", **settings, quiet=True)
    assert capsys.readouterr().err == ""
    assert "update" in (tmp_path / "b" / "runs/rlseq_Copy-v0/mle/0/log.txt").read_text("utf-8")


def test_the_main_metric_is_the_first_that_says_something_else_than_the_reward() -> None:
    row = {"update": 1200.0, "eval_reward": 0.5, "eval_accuracy": 0.5, "eval_bleu": 31.25, "entropy": 1.0}
    shown = evaluation_line(row, 0.5, ["accuracy", "bleu"], "10 tokens/s", 61.0)
    assert shown == (
        "update 1,200 (50%) · reward 0.500 · bleu 31.2 · entropy 1.000 · 10 tokens/s · 1:01 left"
    )
    assert "accuracy" not in evaluation_line(row, 1.0, ["accuracy"], "", 0.0)


def test_speed_and_time_left_are_those_of_this_call() -> None:
    pace = Pace(done=100, tokens=1000, seconds=10.0, began=-1e6)
    assert pace.speed(3000, 20.0) == pytest.approx(200)
    whole = pace.left(200, 400)
    assert whole == pytest.approx(2 * pace.left(300, 500), rel=0.01)
    assert pace.left(400, 400) == 0
    assert [clock(seconds) for seconds in (0.4, 61, 3723)] == ["0:00", "1:01", "1:02:03"]
