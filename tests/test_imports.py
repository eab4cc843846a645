"""Components of one's own, in a module that `--import` names, are used by every command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlseq.agents import AGENTS
from rlseq.metrics.registry import METRICS
from rlseq.policies import POLICIES
from rlseq.training.run_folder import read_run
from tests.campaigns.test_command_line import typed

MODULE = '''
"""A task, an agent, a policy and a metric."""

from dataclasses import dataclass

import rlseq
from rlseq.agents import REINFORCE
from rlseq.envs.copy import Copy
from rlseq.policies import POLICIES


def agreement(tokens, mask, context):
    """The share of a text that its mask covers."""
    return mask.float().mean(1)


class Shout(Copy):
    """Copy, under another name."""


@dataclass(eq=False)
class Mine(REINFORCE):
    """REINFORCE with a setting of its own."""

    loudness: float = 1.0  # a factor of nothing


rlseq.register("own/Shout-v0", Shout)
rlseq.agents.register("mine", Mine)
rlseq.policies.register("whisper", POLICIES["gru"])
rlseq.metrics.register("agreement", agreement)
'''
TASK = (
    "--env",
    "own/Shout-v0",
    "--option",
    "items=20",
    "length=3",
    "num_envs=4",
    "--policy",
    "whisper",
    "hidden=4",
)
SHORT = ("--budget-tokens", "40", "--evaluations", "1", "--texts", "4", "--metrics", "agreement")


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module in the working folder, which nothing has imported."""
    (tmp_path / "own_parts.py").write_text(MODULE, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "own_parts"
    sys.modules.pop("own_parts", None)
    tables: Any = ((AGENTS, "mine"), (POLICIES, "whisper"), (METRICS, "agreement"))
    for table, name in tables:
        table.pop(name, None)


def command(*words: str, **more: Any) -> str:
    """Run a command in a fresh process; its output."""
    found = subprocess.run(
        [sys.executable, "-m", "rlseq", *words], capture_output=True, text=True, check=False, **more
    )
    assert found.returncode == 0, found.stderr
    return str(found.stdout)


def test_own_components_are_listed_trained_and_used_again(module: str, tmp_path: Path) -> None:
    for what, name in (
        ("envs", "own/Shout-v0"),
        ("agents", "mine"),
        ("policies", "whisper"),
        ("metrics", "agreement"),
    ):
        assert name in typed([what, "--import", module])[1]
    assert "a factor of nothing" in typed(["agents", "mine", "--import", module])[1]
    words = ["train", "mine", "--import", module, *TASK, *SHORT, "--loudness", "2", "--out", "run"]
    status, out, err = typed(words)
    assert status == 0, err
    assert "agreement" in out
    assert read_run(Path("run"))["imports"] == [module]
    assert "agreement" in command("evaluate", "run", "--metrics", "agreement", "--texts", "4")
    assert len(command("generate", "run", "a b c").splitlines()) == 1
    command("train", "mine", "--config", "run/command.yaml", "--out", "again")
    first, second = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("run", "again"))
    assert first["final"] == second["final"]


@pytest.mark.parametrize("threads", ["1", "2"])
def test_the_processes_of_a_comparison_import_them(module: str, tmp_path: Path, threads: str) -> None:
    """With one thread they are forked, with more they start afresh."""
    words = [
        "compare",
        "--import",
        module,
        *TASK,
        *SHORT,
        "--agents",
        "mine",
        "--start",
        "none",
        "--seeds",
        "1",
    ]
    command(*words, "--jobs", "1", "--out", "compared", env={**os.environ, "OMP_NUM_THREADS": threads})
    config = json.loads((tmp_path / "compared" / "config.json").read_text())
    assert config["imports"] == [module]
    program = f"import json, rlseq; rlseq.compare(**{config!r}, jobs=1, out='again').save()"
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    tasks = [
        json.loads((tmp_path / name / "results.json").read_text())["tasks"] for name in ("compared", "again")
    ]
    assert tasks[0][0]["agents"][0]["scores"] == tasks[1][0]["agents"][0]["scores"]
    assert "agreement" in tasks[0][0]["agents"][0]["scores"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            None,
            "ModuleNotFoundError: No module named 'own_parts'; go to",
        ),
        (
            "x = [",
            "SyntaxError: '[' was never closed (own_parts.py, line 1)",
        ),
        (
            "\n1 / 0",
            "ZeroDivisionError: division by zero (line 2 of own_parts",
        ),
        ("import nothing_at_all", "No module named 'nothing_at_all' (line 1 of own_parts.py)"),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_error(
    content: str | None, message: str, module: str
) -> None:
    (Path("own_parts.py").unlink if content is None else lambda: Path("own_parts.py").write_text(content))()
    for words in (
        ["agents"],
        ["train", "mle", *TASK],
        ["evaluate", "run"],
        ["compare", *TASK, "--agents", "mle"],
    ):
        status, _, said = typed([*words, "--import", module])
        assert status == 2
        assert message in said
        assert len(said.splitlines()) == 1
