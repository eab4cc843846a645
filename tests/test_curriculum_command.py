"""Curricula and curiosity as settings of a run: by command, in comparisons, stopped and resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import rlseq
from rlseq.cli import main
from rlseq.compare.plan import ComparisonConfig
from rlseq.engine.references import length_bucket
from rlseq.envs.wrappers.curriculum import (
    BySchedule,
    Curriculum,
    EdgeOfSuccess,
    ReverseCurriculum,
    with_curriculum,
)
from rlseq.training.experiment import build, run
from rlseq.training.run_config import RunConfig

OPTIONS = {"vocab_size": 5, "length": 3, "shortest": 1, "items": 60, "num_envs": 16, "reward": "accuracy"}
SETTINGS: dict[str, dict[str, Any]] = {
    "reverse": {"curriculum": {"name": "reverse", "low": 0.1}},
    "by success, curious": {"curriculum": {"name": "by_success", "wanted": 0.1}, "curiosity": 0.05},
    "by schedule": {"curriculum": {"name": "by-schedule", "until": 0.9}},
}


def config(folder: Path, agent: str = "reinforce", **changes: Any) -> RunConfig:
    plain: dict[str, Any] = {"env": "rlseq/Copy-v0", "agent": agent, "algorithm": agent, "options": OPTIONS}
    plain |= {"policy": "gru", "sizes": {"hidden": 8, "embedding": 4}, "budget_tokens": 600, "texts": 10}
    return RunConfig(**{**plain, "evaluations": 2, "folder": str(folder), **changes})


def weights(folder: Path) -> list[torch.Tensor]:
    return list(rlseq.load(folder).policy.state_dict().values())


@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_that_was_stopped_ends_as_one_that_was_not(name: str, tmp_path: Path) -> None:
    def stop(row: dict[str, float]) -> None:
        if row["update"] == 8:
            raise KeyboardInterrupt

    whole, stopped, plain = (tmp_path / place for place in ("whole", "stopped", "plain"))
    run(config(whole, **SETTINGS[name]), quiet=True, alarms="ignore")
    with pytest.raises(KeyboardInterrupt):
        run(config(stopped, **SETTINGS[name]), quiet=True, alarms="ignore", on_update=stop)
    assert json.loads((stopped / "results.json").read_text("utf-8"))["status"] == "interrupted"
    main(["resume", str(stopped), "--quiet"])
    assert all(map(torch.equal, weights(stopped), weights(whole)))
    run(config(plain), quiet=True, alarms="ignore")
    assert not all(map(torch.equal, weights(plain), weights(whole)))


def test_the_command_takes_a_curriculum_with_its_settings(tmp_path: Path, capsys: Any) -> None:
    words = "train reinforce --env rlseq/Copy-v0 --option length=3 items=60 --policy gru hidden=8 --quiet"
    words += f" --budget-tokens 400 --texts 10 --alarms ignore --out {tmp_path / 'a'}"
    main([*words.split(), *["--curriculum", "by_success", "wanted=0.4", "--curiosity", "0.02"]])
    kept = json.loads((tmp_path / "a/run.json").read_text("utf-8"))
    assert kept["curriculum"] == {"name": "by_success", "wanted": 0.4}
    assert kept["curiosity"] == 0.02
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main([*words.split(), "--curriculum", "reverse"])
    said = capsys.readouterr().err
    assert "holds a run of another configuration" in said
    assert "run.curriculum.name was 'by_success', is 'reverse'" in said


def test_agents_of_a_comparison_have_curricula_of_their_own() -> None:
    slow = {"agent": "rloo", "curriculum": {"name": "by_schedule", "until": 0.9}, "lr": 1e-3}
    end = {"agent": "rloo", "curriculum": "reverse"}
    agents: dict[str, Any] = {"rloo": {}, "slow": slow, "from the end": end}
    runs = {job.agent: job for job in ComparisonConfig("rlseq/Copy-v0", agents, seeds=1).runs()}
    assert runs["rloo"].curriculum == {}
    assert "curriculum" not in runs["rloo"].plain()
    assert runs["slow"].curriculum == {"name": "by_schedule", "until": 0.9}
    assert runs["slow"].hyper["lr"] == 1e-3
    assert "curriculum" not in runs["slow"].hyper
    assert runs["from the end"].curriculum == {"name": "reverse"}
    _, env, fresh = build(runs["from the end"])
    assert isinstance(env.starts, EdgeOfSuccess)
    assert fresh.starts is None


@pytest.mark.parametrize(
    ("agent", "changes", "message"),
    [
        ("mle", {"curriculum": {"name": "by_success"}}, "mle has none that it could follow.*by_schedule"),
        ("dagger", {"curriculum": {"name": "reverse"}}, "dagger has none that it could follow"),
        ("sb3-ppo", {"curriculum": {"name": "by_schedule"}}, "sb3-ppo has none that it could follow"),
        ("mle", {"curiosity": 0.1}, "mle is not trained on the reward of the task"),
        ("gail", {"curiosity": 0.1}, "gail is not trained on the reward of the task"),
        ("rloo", {"curriculum": {"name": "revers"}}, "unknown curriculum 'revers'.*reverse"),
        ("rloo", {"curriculum": {"name": "reverse", "wanted": 1.0}}, "reverse has no option 'wanted'"),
        ("rloo", {"curiosity": -1.0}, "curiosity must be"),
    ],
)
def test_what_would_have_no_effect_is_refused(
    agent: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        build(config(tmp_path, agent, **changes))


def test_likelihood_follows_a_schedule_where_it_would_draw_texts_of_similar_length(tmp_path: Path) -> None:
    _, env, _ = build(config(tmp_path, "mle", curriculum={"name": "by_schedule", "start": 0.2}))
    env.length_bucket = lambda rows: torch.zeros(rows, dtype=torch.int64)
    assert length_bucket(env) is None
    assert length_bucket(env.replace(starts=None)) is not None
    agent = rlseq.make_agent("mle", rlseq.make_policy("gru", env, hidden=8, embedding=4))
    assert int(agent.collect(env).lengths.max()) == 2


def test_gymnasium_is_not_shown_texts_that_begin_with_given_words() -> None:
    env = rlseq.make("rlseq/Copy-v0", num_envs=4, length=3)
    with pytest.raises(
        ValueError, match=r"words of references \(ReverseCurriculum\).*env.replace\(starts=None\)"
    ):
        ReverseCurriculum(env).reset(seed=0)
    Curriculum(env, BySchedule()).reset(seed=0)


def test_a_checkpoint_with_a_curriculum_is_not_continued_without_it() -> None:
    env = rlseq.make("rlseq/Copy-v0", num_envs=4, length=3)
    curriculum = with_curriculum(env, "reverse")
    with pytest.raises(
        ValueError, match="state is of a task with a curriculum, and this task has no curriculum"
    ):
        env.load_state_dict(curriculum.state_dict())
    with pytest.raises(
        ValueError, match="state is of a task with no curriculum, and this task has a curriculum"
    ):
        curriculum.load_state_dict(env.state_dict())
