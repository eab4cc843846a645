"""Every agent trains an encoder–decoder and a causal model; compare and sharded weights work, too."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

import rlseq
from rlseq.agents import AGENTS
from rlseq.agents.adversarial import AdversarialRounds
from rlseq.cli import main
from tests.pretrained.conftest import Folder
from tests.pretrained.tiny import auto_class, with_weights

transformers: Any = pytest.importorskip("transformers")
ROWS = 8
SETTINGS: dict[str, dict[str, Any]] = {
    "all_action": {"action_values": "critic"},  # completions of every word take minutes
    "dagger": {"expert": "by_edit_distance"},  # none is known for the task's reward, BLEU
    "e2e": {"unroll": "two_pass"},  # the steps of a cache that is written in place have no gradient
    **{name: {"samples": 2} for name in ("rloo", "grpo", "dr_grpo")},
    **{name: {"completions": 2} for name in ("seqgan", "maligan", "rankgan")},
}
SHORTER = {"pretraining": 1, "d": 1, "k": 1}  # lessons of a discriminator, which take minutes by default


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.tsv"
    short = ("the dog", "el perro"), ("a car", "the boat"), ("the house", "la casa")  # few tokens, few steps
    lines = (f"{a} {i}\t{b}\n" for i in range(12) for a, b in short)
    path.write_text("".join(lines), "utf-8")
    return path


@pytest.fixture(scope="module")
def models(folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        name: with_weights(folder(name), tmp_path_factory.mktemp(f"{name}-weights"))
        for name in ("t5", "llama")
    }


@pytest.fixture(scope="module")
def tasks(models: dict[str, Path], pairs: Path) -> Callable[[str], tuple[Any, Any]]:
    """`tasks(family)` returns the task of its tokenizer, and that of its test items."""

    def made(family: str) -> tuple[Any, Any]:
        options: dict[str, Any] = {"path": pairs, "tokenizer": models[family], "num_envs": ROWS}
        make = partial(rlseq.make, "rlseq/Parallel-v0", **options)
        return make(split="train"), make(split="test")

    return cache(made)


@pytest.mark.parametrize("family", ["t5", "llama"])
@pytest.mark.parametrize(
    "agent",  # of grpo's variants, which differ from it in one function, one
    [
        n
        for n, c in AGENTS.items()
        if c.writes_texts and (c.__module__ != "rlseq.agents.ratios" or n == "gspo")
    ],
)
def test_an_agent_trains_a_pretrained_model(
    agent: str, family: str, models: dict[str, Path], tasks: Any, tmp_path: Path
) -> None:
    env, test = tasks(family)
    env.reseed(0)
    policy = rlseq.make_policy("hf", env, model=models[family], value=True)
    hyper = SETTINGS.get(agent, {}) | (SHORTER if issubclass(AGENTS[agent], AdversarialRounds) else {})
    learner = rlseq.make_agent(agent, policy, **hyper)
    if agent == "gumbel":  # reads its own relaxed words, which a cache that is written in place cannot be
        with pytest.raises(ValueError, match='or the agent "continuous"'):
            learner.check(env)
        return
    test_options: dict[str, Any] = {"eval_env": test, "eval_every": 2, "eval_texts": 4, "probe": False}
    rlseq.train(learner, env, updates=2, out=tmp_path / "run", alarms="ignore", quiet=True, **test_options)
    model = rlseq.load(tmp_path / "run")
    ((candidate,),) = model.generate("the dog 1", rlseq.Greedy())
    assert isinstance(candidate.text, str)


def test_agents_on_a_pretrained_model_are_compared(
    models: dict[str, Path], pairs: Path, tmp_path: Path
) -> None:
    main(
        [
            *("compare", "--agents", "mle", "reinforce", "--env", "rlseq/Parallel-v0", "--seeds", "2"),
            *("--option", f"path={pairs}", f"num_envs={ROWS}", "--policy", "hf", f"model={models['t5']}"),
            *("--budget-tokens", "300", "--evaluations", "1", "--out", str(tmp_path / "out"), "--quiet"),
        ]
    )
    found = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))
    assert found["failed"] == []
    (task,) = found["tasks"]
    agents = {agent["name"]: agent for agent in task["agents"]}
    assert set(agents) == {"start", "mle", "reinforce"}
    for name in ("mle", "reinforce"):
        assert agents[name]["seeds"] == [0, 1]
        assert 0 <= agents[name]["scores"]["reward"]["estimate"] <= 1
        run = tmp_path / "out" / "runs" / "rlseq_Parallel-v0" / name / "0"
        assert json.loads((run / "results.json").read_text("utf-8"))["tokens"] >= 300


def test_sharded_weights_are_read(models: dict[str, Path], pairs: Path, tmp_path: Path) -> None:
    model = auto_class(transformers.AutoConfig.from_pretrained(models["t5"])).from_pretrained(models["t5"])
    model.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len([*tmp_path.glob("*.safetensors")]) > 1
    env = rlseq.make("rlseq/Parallel-v0", path=pairs, tokenizer=models["t5"])
    policies = [rlseq.make_policy("hf", env, model=path) for path in (models["t5"], tmp_path)]
    one, other = (policy.state_dict() for policy in policies)
    assert all((one[name] == other[name]).all() for name in one)
