"""Training on a pretended CUDA device: no mixed devices, few waits of the host, and graphs that stay true."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
TRIALS = 13


@pytest.fixture(scope="module")
def answers() -> Any:
    """The answers of all exercises, of one process: the guard must be loaded before torch."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.pretended.exercises"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if "skipped: " in answer.stderr:
        pytest.skip(answer.stderr.strip())
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def test_agents_learn_on_the_device_and_go_on_from_a_checkpoint(answers: Any) -> None:
    failed = {name: answer["error"] for name, answer in answers["trials"].items() if "error" in answer}
    assert not failed, "\n".join(f"{name}: {error}" for name, error in failed.items())
    assert len(answers["trials"]) == TRIALS
    assert {name: answer["gap"] for name, answer in answers["trials"].items() if answer["gap"] > 0} == {}


def functions(waits: dict[str, int]) -> dict[str, int]:
    """How often the host waited, by the name of the function."""
    found: dict[str, int] = {}
    for line, number in waits.items():
        name = line.split()[1]
        found[name] = found.get(name, 0) + number
    return found


def test_a_rollout_is_checked_once_when_it_is_written_and_once_when_it_is_judged(answers: Any) -> None:
    for graph in answers["graphs"].values():
        assert functions(graph["waits"]) == {"check_written": 1, "checked_reward": 1}


def test_an_update_waits_for_one_length_and_for_the_norm_of_every_step(answers: Any) -> None:
    steps = {"ppo": 16, "dqn": 4}
    for name, answer in answers["trials"].items():
        agent = name.split()[0]
        if agent in ("reinforce", "scst", "mixer", "ppo", "dqn"):
            assert functions(answer["update"]) == {"clip": steps.get(agent, 1), "width": 1}, name


def test_graphs_follow_the_weights(answers: Any) -> None:
    """Under autocast, too, where a graph could read copies of weights that were made before it."""
    for name, graph in answers["graphs"].items():
        assert graph["same_words"] == [True] * 3, name
        assert max(graph["gaps"]) < 1e-5, name


def test_graphs_are_captured_on_the_device_of_the_task_in_one_pool(answers: Any) -> None:
    graphs = answers["graphs"]
    assert {name: graph["devices"] for name, graph in graphs.items()} == {
        name: [1] if "cuda:1" in name else [0] for name in graphs
    }
    assert {graph["pools"] for graph in graphs.values()} == {1}
