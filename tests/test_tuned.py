"""The settings with which agents learn where none are given."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch

import rlseq
from rlseq.cli import main
from rlseq.compare.plan import ComparisonConfig
from rlseq.mdp.registry import ids
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
    for agents in (tuned.agents, tuned.after_likelihood):
        for agent, hyper in agents.items():
            rlseq.make_agent(agent, policy, **hyper).check(env)
    one = torch.zeros(1, dtype=torch.int64)
    likelihood = {"mle"} if "references" in env.contexts(one) else set()
    assert {*likelihood, "reinforce", "rloo", "scst"} <= tuned.agents.keys() | tuned.after_likelihood.keys()


def test_every_task_has_them() -> None:
    ours = {id for id in ids() if id.startswith("rlseq/")} - {"rlseq/TwoStates-v0"}  # which leaves no choice
    assert {f"rlseq/{name}" for name in FILES} == ours


def test_a_file_says_whether_it_was_measured() -> None:
    root = Path(__file__).parents[1] / "benchmarks" / "results"
    measured = json.loads((root / "tuned.json").read_text("utf-8"))["results"]
    for name in FILES:
        text = (files("rlseq.training") / "tuned" / f"{name}.yaml").read_text("utf-8")
        says = text.startswith("# Measured by benchmarks/tuned.py (benchmarks/results/tuned.json).\n")
        assert says == (f"rlseq/{name}" in measured), name


def test_other_tasks_have_none() -> None:
    for id in ("mine/Task-v0", "rlseq/../x"):
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


def hyper_of(config: ComparisonConfig) -> dict[str, Any]:
    return {run.agent: dict(run.hyper) for run in config.runs()}


def test_the_step_size_rises_in_comparisons_after_likelihood_unless_told_otherwise() -> None:
    agents: dict[str, Any] = {"rloo": {}, "scst": {"schedule": "linear"}, "mle": {}, "sb3-ppo": {}}
    assert hyper_of(ComparisonConfig("rlseq/Copy-v0", agents, seeds=1, tuned=False)) == {
        "start": {},
        "mle": AFTER_LIKELIHOOD,
        "rloo": AFTER_LIKELIHOOD,
        "scst": {"schedule": "linear"},
        "sb3-ppo": {},
    }
    for start in (None, "reinforce"):
        alone = ComparisonConfig("rlseq/Copy-v0", "rloo", seeds=1, start=start, tuned=False)
        assert hyper_of(alone)["rloo"] == {}


def test_comparisons_use_them_unless_told_otherwise() -> None:
    tuned = tuned_settings("rlseq/G2P-v0")
    agents: dict[str, Any] = {"scst": {}, "rloo": {"lr": 1.0}, "grpo": {}}
    config = ComparisonConfig({"rlseq/G2P-v0": {"max_len": 9}}, agents, seeds=1)
    assert hyper_of(config) == {
        "start": tuned.agents["mle"],
        "scst": {**AFTER_LIKELIHOOD, **tuned.after_likelihood["scst"]},
        "rloo": {**AFTER_LIKELIHOOD, **tuned.after_likelihood["rloo"], "lr": 1.0},
        "grpo": AFTER_LIKELIHOOD,
    }
    for run in config.runs():
        assert (run.policy, run.sizes, run.options) == (
            tuned.policy,
            tuned.sizes,
            {**tuned.options, "max_len": 9},
        )
    pretrained = ComparisonConfig("rlseq/G2P-v0", "scst", seeds=1, policy={"name": "hf", "model": "t5"})
    assert hyper_of(pretrained) == {"start": {}, "scst": AFTER_LIKELIHOOD}, "these step sizes are too large"
    own = ComparisonConfig("rlseq/G2P-v0", "scst", seeds=1, policy={"name": "gru", "hidden": 8})
    assert {(run.policy, *run.sizes.items()) for run in own.runs()} == {("gru", ("hidden", 8))}


def test_the_commands_solve_their_tasks() -> None:
    """By the committed results of those commands."""
    path = Path(__file__).parents[1] / "benchmarks" / "results" / "tuned.json"
    results = json.loads(path.read_text("utf-8"))["results"]
    for id, agents in results.items():
        tuned = tuned_settings(id)
        after = {f"{agent}, after likelihood": hyper for agent, hyper in tuned.after_likelihood.items()}
        assert {name: found["settings"] for name, found in agents.items()} == {**tuned.agents, **after}
    for id in ("rlseq/Copy-v0", "rlseq/Reverse-v0"):
        for agent, found in results[id].items():
            assert found["reward"] > 0.95 > 0.3 > found["before"], (id, agent)


def test_a_task_without_references_is_compared_without_a_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no references to learn from.*--start none"):
        rlseq.compare("rlseq/Bandit-v0", "rloo", seeds=1, budget_tokens=100, out=tmp_path)
