"""Two processes that train together compute what one does, refuse together, and resume."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from rlseq.agents import AGENTS, FUNCTIONS
from rlseq.engine.evaluation import _of_this_rank
from rlseq.policy_gradient.factors import factor_name
from rlseq.training import checkpoint
from rlseq.training.parallel import COMPARED_FIELDS, check_for_ranks
from rlseq.training.run_folder import read_results
from rlseq.utils import ranks
from tests.two_ranks import VARIANTS

WORK = Path(__file__).with_name("two_ranks.py")
FOLDERS: list[Path] = []


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What each of two ranks has found; one start of two processes for all tests."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, str(WORK), str(folder)],
            env={**os.environ, **shared, "RANK": str(number), "PYTHONPATH": str(WORK.parent.parent)},
            stderr=subprocess.PIPE,
        )
        for number in range(2)
    ]
    errors = [process.communicate(timeout=900)[1].decode() for process in running]
    assert [process.returncode for process in running] == [0, 9], errors
    FOLDERS.append(folder)
    return [json.loads((folder / f"{number}.json").read_text()) for number in range(2)]


@pytest.mark.parametrize("name", VARIANTS)
def test_two_ranks_compute_what_one_process_does(answers: list[Any], name: str) -> None:
    found = {**answers[0]["alike"], **answers[1]["alike"]}[name]
    assert found["moved"] > 1e-3
    assert found["weights"] < 1e-6
    if name != "in parts":  # whose metrics are means over parts, which have rows of each rank
        assert found["metrics"] < 1e-6


def test_a_run_resumes_bit_by_bit_and_counts_the_rows_of_all_ranks(answers: list[Any]) -> None:
    for answer in answers:
        assert answer["resumed"]
        assert answer["episodes"] == [48, 96]


def test_ranks_without_seeds_take_over_those_of_rank_0(answers: list[Any]) -> None:
    assert [answer["spread"] for answer in answers] == [0.0, 0.0]


def test_ranks_refuse_together(answers: list[Any]) -> None:
    first, second = (answer["refused"] for answer in answers)
    assert first == second
    assert "run.agent.lr was 0.001, and is 0.002 on rank 1" in first["settings"]
    assert "run.env.data." in first["data"]
    assert "run.training.eval_every was 1, and is 2 on rank 1" in first["training"]
    assert "num_envs=1 rows cannot be divided among 2 ranks" in first["rows"]
    assert "Own cannot be trained by several processes" in first["agent"]
    assert "divided among processes (fully_shard)" in first["sharded"]
    assert "rows=5 of a gradient step cannot be divided among 2 ranks; pass rows=4" in first["replay"]
    assert "take a multiple of 2 policies, one for each rank" in first["population"]
    assert "baseline <lambda> has not been shown" in first["factor"]
    assert "made already cannot be divided among processes; pass its id" in first["made already"]
    assert "Learning has not been shown to be right where each of several" in first["reward"]


def test_a_rank_that_is_lost_ends_the_others_with_an_intact_checkpoint(answers: list[Any]) -> None:
    assert "rank 0 of 2 has lost another rank" in answers[0]["lost"]
    folder = FOLDERS[0] / "lost"
    assert read_results(folder)["status"] == "failed"
    found = checkpoint.load(folder / "checkpoints")
    assert found is not None
    assert found[0] == 3


def test_every_factor_that_has_a_name_is_compared(answers: list[Any]) -> None:
    seen = {factor for answer in answers for found in answer["alike"].values() for factor in found["factors"]}
    known = {
        f"{field} {factor_name(factor)}" for field in COMPARED_FIELDS for factor in FUNCTIONS[field].values()
    }
    assert known - seen == {"credit own_credit"}  # which stands for that of an agent


@pytest.mark.parametrize("name", sorted(name for name, cls in AGENTS.items() if not cls.for_ranks))
def test_every_other_agent_is_refused_by_name(name: str) -> None:
    agent: Any = object.__new__(AGENTS[name])
    with pytest.raises(ValueError, match=f"{AGENTS[name].__name__} cannot be trained by several processes"):
        check_for_ranks(agent, None)


def test_a_subclass_must_say_that_it_takes_its_statistics_over_ranks() -> None:
    own: Any = type("Own", (AGENTS["rloo"],), {})
    with pytest.raises(ValueError, match="for_ranks = True"):
        check_for_ranks(object.__new__(own), None)


def test_an_address_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in there.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ranks, "JOINING", timedelta(seconds=1))
    with (
        pytest.raises(ranks.RankLost, match=r"cannot reach the others at 127\.0\.0\.1:1"),
        ranks.together(torch.device("cpu")),
    ):
        pass
    monkeypatch.delenv("MASTER_ADDR")
    with pytest.raises(ValueError, match="MASTER_ADDR is not set"):
        ranks.launched_as()


def test_other_commands_are_refused_under_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ranks.VARIABLES:
        monkeypatch.setenv(name, "2")
    with pytest.raises(ValueError, match="a fit runs in one process"):
        ranks.check_alone("a fit")


def test_the_items_of_a_test_are_divided() -> None:
    parts = [_of_this_rank(torch.arange(7), ranks.Rank(number, 3)).tolist() for number in range(3)]
    assert parts == [[0, 1, 2], [3, 4, 5], [6, 6, 6]]


def test_a_gpu_without_a_number_is_that_of_the_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ranks.own_device("cuda") == "cuda"
    for name in (*ranks.VARIABLES, "LOCAL_RANK"):
        monkeypatch.setenv(name, "3")
    assert ranks.own_device("cuda") == "cuda:3"
    assert ranks.own_device("cuda:0") == "cuda:0"
    assert ranks.own_device("cpu") == "cpu"
