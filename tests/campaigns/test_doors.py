"""Every agent on every task that it can learn, through every door: the command, Python, and comparisons.

Each is trained, stopped, taken up again, scored and used; what was stopped comes to the same scores.
"""

from __future__ import annotations

import json
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import rlseq
from rlseq.agents import AGENTS
from rlseq.agents.adversarial import AdversarialRounds
from rlseq.mdp.registry import ids
from rlseq.training import checkpoint
from rlseq.training import experiment_envs as tasks
from tests.campaigns.conftest import Campaign
from tests.campaigns.test_command_line import typed

OPTIONS: dict[str, dict[str, Any]] = {
    "rlseq/Captions-v0": {"scenes": 20},
    "rlseq/Boxes-v0": {"scenes": 20},
    "rlseq/Oracle-v0": {"vocab_size": 20},
}
FILES = {"rlseq/Parallel-v0": "pairs.tsv", "rlseq/Text-v0": "texts.txt"}
POLICIES = {"rlseq/Captions-v0": "captioner", "rlseq/Boxes-v0": "captioner"}
SHORTER = {"pretraining": 1, "d": 1, "k": 1}  # lessons of a discriminator, which take minutes by default
VALUED = ("a2c", "g_learning", "ppo", "ppo_kl", "trpo")  # agents that need V
BUDGET = 1500  # tokens
REASONS = ("references", "source", "number of rows", "num_envs")  # why an agent may not go with a task


def options(id: str, place: Path) -> dict[str, Any]:
    """Options that make a task small."""
    pairs = [f"{n:03d}" for n in range(60)]
    (place / "pairs.tsv").write_text("".join(f"{x}\t{x[::-1]}\n" for x in pairs), "utf-8")
    (place / "texts.txt").write_text("".join(f"{' '.join(x)}\n" for x in pairs), "utf-8")
    found = {"num_envs": 8, **OPTIONS.get(id, {})}
    return {**found, "path": str(place / FILES[id])} if id in FILES else found


def shorter(agent: str) -> dict[str, int]:
    """Fewer lessons, where an agent has a discriminator."""
    return SHORTER if issubclass(AGENTS[agent], AdversarialRounds) else {}


def reason(error: Exception) -> str:
    """Why an agent does not go with a task; other errors are failures."""
    if not any(words in str(error) for words in REASONS):
        raise error
    return str(error)


def stopping_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C comes when the first checkpoint is written."""
    real = checkpoint.save

    def save(*given: Any, **named: Any) -> None:
        real(*given, **named)
        monkeypatch.setattr(checkpoint, "save", real)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(checkpoint, "save", save)


def final(run: Path) -> Any:
    results = json.loads((run / "results.json").read_text("utf-8"))
    assert results["status"] == "finished"
    return results["final"], results["updates"]


def command(
    agent: str, id: str, place: Path, monkeypatch: pytest.MonkeyPatch, *, small: bool = True
) -> str | None:
    """Through `rlseq train`, `evaluate`, `generate`, `report`; returns why the agent is refused, if it is."""
    pairs = [f"{name}={value}" for name, value in options(id, place).items()] if small else []
    words = ["train", agent, "--env", id, *(["--option", *pairs] if pairs else [])]
    words += ["--policy", POLICIES.get(id, "gru"), "hidden=8"] if small else []
    words += ["--budget-tokens", str(BUDGET), "--evaluations", "2", "--texts", "8"]
    words += [part for name, number in shorter(agent).items() for part in (f"--{name}", str(number))]
    whole, stopped = str(place / "whole"), str(place / "stopped")
    status, _, err = typed([*words, "--out", whole])
    if status == 2 and any(part in err for part in REASONS):
        assert not Path(whole).exists()
        return err
    assert status == 0, (words, err)
    with monkeypatch.context() as patch:
        stopping_once(patch)
        assert typed([*words, "--out", stopped])[0] == 130, words
    status, _, err = typed([*words, "--out", stopped])
    assert status == 0, (words, err)
    assert final(Path(whole)) == final(Path(stopped)), words
    status, out, err = typed(["evaluate", stopped, "--texts", "8"])
    assert status == 0, err
    assert float(dict(line.split() for line in out.splitlines())["reward"]) == pytest.approx(
        final(Path(whole))[0]["reward"], abs=1e-4
    )
    line = json.loads(next(Path(stopped, "samples").glob("*.jsonl")).read_text("utf-8").splitlines()[0])
    status, out, err = typed(["generate", stopped, *source_of(line, Path(stopped))])
    assert (status, bool(out)) == (0, True), (words, err)
    status, out, err = typed(["report", stopped])
    assert (status, Path(stopped, "report.html").exists()) == (0, True), err
    return None


def source_of(line: dict[str, Any], run: Path) -> list[str]:
    """A source as it is typed: that of a sample, a file of an image or of features, or none."""
    env = rlseq.load(run).env
    assert env is not None
    if "features" in env.observed:
        np.save(run / "features.npy", env.items["features"][0].numpy() + 1)
        return [str(run / "features.npy")]
    if "image" not in env.observed:
        return [line["source"]] if "source" in line else []
    image = torch.zeros(env.items["image"].shape[1:], dtype=torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(image).save(run / "image.png")
    return [str(run / "image.png")]


def python(agent: str, id: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Through `rlseq.train`, `rlseq.evaluate` and `rlseq.generate`."""

    def trained(out: Path) -> Any:
        torch.manual_seed(0)
        env = tasks.training_env(id, options(id, place), None, 0)
        fresh = tasks.testing_env(id, options(id, place), None)
        policy = rlseq.make_policy(
            POLICIES.get(id, "gru"),
            env,
            hidden=8,
            value=agent in VALUED,
        )
        rlseq.train(
            rlseq.make_agent(agent, policy, **shorter(agent)),
            env,
            4,
            eval_env=fresh,
            eval_every=2,
            eval_texts=8,
            out=out,
        )
        return policy, fresh

    try:
        policy, fresh = trained(place / "whole")
    except (ValueError, TypeError) as error:
        return reason(error)
    with monkeypatch.context() as patch:
        stopping_once(patch)
        with pytest.raises(KeyboardInterrupt):
            trained(place / "stopped")
    trained(place / "stopped")
    assert final(place / "whole") == final(place / "stopped"), (agent, id)
    assert rlseq.evaluate(policy, fresh, limit=8)["reward"] == final(place / "whole")[0]["reward"]
    loaded = rlseq.load(place / "stopped").policy.state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in policy.state_dict().items())
    return None


def comparison(agent: str, id: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Through `rlseq.compare` and its report."""
    try:
        found = rlseq.compare(
            {id: options(id, place)}, {agent: shorter(agent)},
            seeds=1, budget_tokens=200, start=None, evaluations=1, texts=8,
            policy={"name": POLICIES.get(id, "gru"), "hidden": 8}, jobs=1, out=place / "compared",
        )  # fmt: skip
    except (ValueError, TypeError) as error:
        return reason(error)
    assert not found.results["failed"], (agent, id, found.results["failed"])
    assert typed(["report", str(place / "compared")])[0] == 0
    return None


DOORS: list[Callable[..., str | None]] = [command, python, comparison]


@pytest.mark.filterwarnings("ignore:preflight", "ignore:update")
@pytest.mark.parametrize(
    "agent",  # of grpo's variants, which differ from it in one function, one
    [
        n
        for n, c in AGENTS.items()
        if c.writes_texts and (c.__module__ != "rlseq.agents.ratios" or n == "gspo")
    ],
)
def test_every_agent_is_trained_with_defaults_from_the_command_line(
    agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(agent, "rlseq/Copy-v0", tmp_path, monkeypatch, small=False) is None


@pytest.mark.filterwarnings("ignore")
def test_every_agent_on_every_task_through_every_door(
    campaign: Campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents = [name for name, cls in AGENTS.items() if cls.writes_texts]
    if not campaign.whole:  # those with a discriminator take minutes on some tasks
        agents = [name for name in agents if not shorter(name)]
    whole = [
        (door, agent, id) for door in DOORS for agent in agents for id in ids() if id.startswith("rlseq/")
    ]
    random.Random(campaign.seed).shuffle(whole)
    counts: Counter[str] = Counter()
    for number, (door, agent, id) in enumerate(whole[: campaign.trials(share=5, whole=len(whole))]):
        place = tmp_path / str(number)
        place.mkdir()
        refused = door(agent, id, place, monkeypatch)
        counts[f"{door.__name__}_{'refused' if refused else 'passed'}"] += 1
    assert sum(n for name, n in counts.items() if name.endswith("passed")) > sum(counts.values()) / 2
    campaign.record("doors", dict(counts))
