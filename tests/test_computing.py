"""`compile` and `autocast` of agents: everything in a training follows, and "auto" keeps what is fastest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import rlseq
from rlseq.adapters.gym_env import GymEnv
from rlseq.compare.plan import ComparisonConfig
from rlseq.engine import computing, rollout
from rlseq.engine.computing import UNSTATED, Computing, Trial, now, ways
from rlseq.engine.device import casting
from rlseq.recipe.config import FitConfig
from rlseq.recipe.stages import Stage, likelihood
from rlseq.training.fingerprint import describe
from rlseq.training.loop import train

CPU = torch.device("cpu")


def agent_of(name: str = "reinforce", **hyper: Any) -> tuple[Any, Any]:
    env = rlseq.make("rlseq/Copy-v0", num_envs=4, seed=1)
    torch.manual_seed(0)
    policy = rlseq.make_policy("lstm", env, hidden=8, embedding=4)
    return rlseq.make_agent(name, policy, **hyper), env


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A compiler that leaves everything as it is, and a list of what was given to it."""
    seen: list[str] = []

    def loop(decode_loop: Any, step: Any, policy: Any, decode: Any) -> Any:
        seen.append("rollout")
        return lambda *rest: decode_loop(lambda *a: step(policy, decode, *a), *rest)

    def part(function: Any) -> Any:
        seen.append(function.__name__)
        return function

    monkeypatch.setattr(rollout, "compiled", loop)
    monkeypatch.setattr(computing, "_fused", part)
    monkeypatch.setattr(computing, "compiler_error", lambda device: None)
    return seen


def test_nothing_is_stated_by_default() -> None:
    agent, env = agent_of()
    assert agent.trial is None
    assert not {"compile", "autocast"} & describe(agent, env)["agent"].keys()  # older runs can be resumed
    assert "trial" not in agent.state_dict()


@pytest.mark.parametrize(
    ("compile", "seen"), [("rollout", ["rollout"]), ("all", ["features", "rollout"])], ids=str
)
def test_a_training_compiles_what_is_stated(compiler: list[str], compile: str, seen: list[str]) -> None:
    found = []
    for hyper in ({}, {"compile": compile}):
        agent, env = agent_of("scst", **hyper)
        found.append(train(agent, env, 2, alarms="ignore", probe=False, quiet=True))
    assert sorted(set(compiler)) == seen
    assert found[0] == found[1]
    assert now() is UNSTATED
    assert "features" not in vars(agent.policy)


def test_bfloat16_reaches_rollouts_completions_and_likelihood(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def noticed(dtype: Any, device: Any) -> Any:
        seen.append(dtype)
        return casting(dtype, device)

    monkeypatch.setattr("rlseq.engine.rollout.casting", noticed)
    for name in ("mle", "reinforce"):
        agent, env = agent_of(name, autocast="bfloat16")
        with agent.computing():
            batch = agent.collect(env)
            agent.update(batch)
    assert batch.behaviour.autocast is torch.bfloat16
    assert set(seen) == {torch.bfloat16}
    done = rlseq.complete(agent.policy, env, batch, samples=1)
    assert done.behaviour.autocast is None
    with computing.computing(Computing(autocast=torch.bfloat16)):
        assert rlseq.complete(agent.policy, env, batch, samples=1).behaviour.autocast is torch.bfloat16


def test_a_loop_of_one_s_own_enters_the_context() -> None:
    """As otherwise it would compute in float32, and say nothing."""
    agent, env = agent_of(autocast="bfloat16")
    with pytest.raises(RuntimeError, match=r"with agent\.computing\(\): agent\.update"):
        agent.update(agent.collect(env))
    with agent.computing():
        assert agent.update(agent.collect(env))["loss"].isfinite()


def test_a_thread_that_writes_ahead_computes_as_stated() -> None:
    agent, env = agent_of("grpo", samples=2, autocast="bfloat16", overlap=True)
    for _ in range(2):
        with agent.computing():
            batch = agent.collect(env)
            assert batch.behaviour.autocast == torch.bfloat16
            agent.update(batch)


def test_auto_leaves_open_what_the_device_may_gain_from() -> None:
    assert ways("auto", "off", "cpu") == [Computing(), Computing(rollout=True)]
    assert ways("auto", "off", "cuda")[-1] == Computing(rollout=True, learning=True)
    assert ways("off", "auto", "cpu") == [Computing(), Computing(autocast=torch.bfloat16)]


def noted(trial: Trial, *seconds: float) -> str | None:
    """Note the times of updates, and return the line."""
    for time in seconds:
        trial.note(time)
    return trial.news()


def test_a_trial_keeps_the_fastest_way_and_says_when_it_pays_back() -> None:
    trial = Trial(ways("auto", "off", "cpu"), "compile=auto", CPU)
    trial.done = 0.001
    assert noted(trial, 0.9, 0.3, 0.3, 0.3) is None
    assert trial.way.rollout
    said = noted(trial, 10.1, 0.1, 0.2, 0.1)
    assert said is not None
    assert "compile=auto: rollouts compiled, float32, which pays back after 50 updates of the 6,992" in said
    assert "300 ms uncompiled, float32; 100 ms rollouts compiled" in said
    assert trial.chosen == 1
    assert trial.news() is None


def test_a_trial_keeps_what_it_had_where_nothing_is_faster() -> None:
    trial = Trial(ways("auto", "off", "cpu"), "compile=auto", CPU)
    said = noted(trial, *[0.1] * 4, 9.0, *[0.2] * 3)
    assert trial.chosen == 0
    assert said is not None
    assert "uncompiled, float32, as nothing else is faster" in said


def test_nothing_is_compiled_for_a_training_that_is_nearly_over() -> None:
    trial = Trial(ways("auto", "off", "cpu"), "compile=auto", CPU)
    trial.done = 0.1
    said = noted(trial, *[0.1] * 4)
    assert trial.chosen == 0
    assert said is not None
    assert "does not pay back in the 3 s of training that are left" in said


def test_a_run_resumed_in_the_middle_of_a_trial_goes_on_with_its_times(
    compiler: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = []
    for name, calls in (("whole", [12]), ("parts", [6, 12])):
        for updates in calls:
            agent, env = agent_of(autocast="off", compile="auto")
            settings: dict[str, Any] = {"alarms": "ignore", "probe": False, "out": tmp_path / name}
            rows.append(train(agent, env, updates, **settings))
    assert rows[0] == rows[2]
    assert agent.trial.chosen == 0  # so few updates are over too soon
    assert capsys.readouterr().err.count("compile=auto, autocast=off: uncompiled") == 2
    assert agent.trial.seconds[0]


def test_what_cannot_be_done_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="compile must be one of 'off', 'rollout', 'all', 'auto', got 'yes'"):
        agent_of(compile="yes")
    with pytest.raises(ValueError, match="ES takes neither compile nor autocast"):
        agent_of("es", compile="rollout")
    monkeypatch.setattr(computing, "compiler_error", lambda device: "no g++")
    with pytest.raises(ValueError, match=r"compile=all, .*torch.compile does not work here \(no g\+\+\)"):
        agent_of(compile="all")
    monkeypatch.setattr(computing, "has_bfloat16", lambda device: False)
    with pytest.raises(ValueError, match="this cpu device has no bfloat16"):
        agent_of(autocast="bfloat16")
    agent, _ = agent_of(compile="auto")  # is told that there is no compiler, and goes on without one
    assert "uncompiled, float32; torch.compile does not work here" in agent.trial.news()


def test_a_task_without_words_takes_neither() -> None:
    env = GymEnv("CartPole-v1", 2, steps=5)
    agent = rlseq.make_agent("reinforce", rlseq.make_policy("mlp", env), autocast="bfloat16")
    with pytest.raises(ValueError, match="compile and autocast are for texts"):
        train(agent, env, 1)


def test_comparisons_and_fits_hand_it_to_every_agent(tmp_path: Path) -> None:
    agents = {"reinforce": {}, "mine": {"agent": "scst", "autocast": "off"}}
    config = ComparisonConfig("rlseq/Copy-v0", agents, seeds=1, autocast="bfloat16", out=tmp_path)
    stated = {run.agent: run.hyper["autocast"] for run in config.runs()}
    assert stated == {"start": "bfloat16", "reinforce": "bfloat16", "mine": "off"}
    assert config.plain()["autocast"] == "bfloat16"
    assert "compile" not in config.plain()
    assert FitConfig(autocast="auto").autocast == "auto"


def test_the_likelihood_of_a_fit_says_what_was_chosen(tmp_path: Path, compiler: list[str]) -> None:
    agent, env = agent_of()
    said: list[str] = []
    likelihood(
        *(agent.policy, lambda: env, rlseq.make("rlseq/Copy-v0", num_envs=4, seed=1), tmp_path),
        *([Stage(4, 1e-2)],),
        every=4,
        say=said.append,
        hyper={"autocast": "auto", "compile": "auto"},
    )
    assert said[0].startswith("compile=auto, autocast=auto: uncompiled, float32")
