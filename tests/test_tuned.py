"""The settings with which agents learn where none are given."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import rlseq
from rlseq.cli import main
from rlseq.compare.plan import ComparisonConfig
from rlseq.training.tuned_settings import AFTER_LIKELIHOOD, TunedSettings, tuned_settings

FILES = sorted(path.name.removesuffix(".yaml") for path in (files("rlseq.training") / "tuned").iterdir())
SHORT = ["--budget-tokens", "2000", "--texts", "20", "--quiet"]


def run_of(folder: Path) -> Any:
    return json.loads((folder / "run.json").read_text("utf-8"))


@pytest.mark.parametrize("name", FILES)
def test_every_file_makes_its_policy_and_its_agents(name: str) -> None:
    tuned = tuned_settings(f"rlseq/{name}")
    env = rlseq.make(f"rlseq/{name}", **tuned.options)
    policy = rlseq.make_policy(str(tuned.policy), env, value=True, **tuned.sizes)
    for agent, hyper in tuned.agents.items():
        rlseq.make_agent(agent, policy, **hyper).check(env)
    assert {"mle", "reinforce", "rloo"} <= set(tuned.agents)


def test_other_tasks_have_none() -> None:
    for id in ("rlseq/Oracle-v0", "mine/Task-v0", "rlseq/../x"):
        assert tuned_settings(id) == TunedSettings()


def test_train_uses_them_unless_told_otherwise(tmp_path: Path) -> None:
    tuned = tuned_settings("rlseq/Copy-v0")
    main(["train", "reinforce", "--env", "rlseq/Copy-v0", *SHORT, "--out", str(tmp_path / "a")])
    run = run_of(tmp_path / "a")
    assert (run["policy"], run["sizes"], run["options"]) == (tuned.policy, tuned.sizes, tuned.options)
    assert run["hyper"] == tuned.agents["reinforce"]
    own = ["--lr", "1e-4", "--policy", "gru", "hidden=8", "--option", "num_envs=16"]
    main(["train", "reinforce", "--env=rlseq/Copy-v0", *own, *SHORT, "--out", str(tmp_path / "b")])
    run = run_of(tmp_path / "b")
    assert (run["policy"], run["sizes"], run["options"]) == ("gru", {"hidden": 8}, {"num_envs": 16})
    assert run["hyper"] == {"entropy": 0.01}, "1e-4 is the default of the agent, and was typed"


def test_the_step_size_rises_after_a_start_unless_told_otherwise(tmp_path: Path) -> None:
    first = str(tmp_path / "first")
    main(["train", "mle", "--env", "rlseq/Copy-v0", "--policy", "gru", "hidden=8", *SHORT, "--out", first])
    for name, typed, schedule in (("a", [], "warmup"), ("b", ["--schedule", "constant"], "constant")):
        out = tmp_path / name
        main(["train", "rloo", "--start", first, *typed, *SHORT, "--out", str(out)])
        assert json.loads((out / "config.json").read_text())["agent"]["schedule"] == schedule
    main(["train", "mle", "--start", first, *SHORT, "--out", str(tmp_path / "c")])
    assert json.loads((tmp_path / "c/config.json").read_text())["agent"]["schedule"] == "warmup"


def test_the_step_size_rises_in_comparisons_after_likelihood_unless_told_otherwise() -> None:
    agents: dict[str, Any] = {"rloo": {}, "scst": {"schedule": "linear"}, "mle": {}, "sb3-ppo": {}}
    config = ComparisonConfig("rlseq/Copy-v0", agents, seeds=1)
    hyper = {run.agent: run.hyper for run in config.runs()}
    assert hyper == {
        "start": {},
        "mle": AFTER_LIKELIHOOD,
        "rloo": AFTER_LIKELIHOOD,
        "scst": {"schedule": "linear"},
        "sb3-ppo": {},
    }
    for start in (None, "reinforce"):
        alone = ComparisonConfig("rlseq/Copy-v0", "rloo", seeds=1, start=start)
        assert [run.hyper for run in alone.runs() if run.agent == "rloo"] == [{}]


def test_the_commands_solve_their_tasks() -> None:
    """By the committed results of those commands."""
    path = Path(__file__).parents[1] / "benchmarks" / "results" / "tuned.json"
    for id, agents in json.loads(path.read_text("utf-8"))["results"].items():
        assert set(agents) == set(tuned_settings(id).agents)
        for agent, found in agents.items():
            assert found["settings"] == tuned_settings(id).agents[agent]
            assert found["reward"] > 0.95 > 0.3 > found["untrained"], (id, agent)
