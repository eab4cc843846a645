"""Checkpoints are whole or not there, and remember everything."""

from __future__ import annotations

import errno
import os
import random
import re
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rlseq
from rlseq.agents.ppo import AdaptiveKL
from rlseq.discriminators.adversary import Adversary
from rlseq.discriminators.ranker import Ranker
from rlseq.policy_gradient.baselines import MovingAverage
from rlseq.policy_gradient.credit import Stepwise
from rlseq.policy_gradient.factors import Shuffle
from rlseq.training import checkpoint
from rlseq.utils.files import Damaged
from rlseq.utils.stateful import UpdateCounter

SHORT = {"pretraining": 2, "d": 1, "k": 1}  # adversarial agents begin with many updates of their judge
SHORT |= {"draws": 3, "overlong": 2}  # options of one agent that write more texts, and change what they earn


def tree(seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "tensor": torch.randn(3, 2, generator=generator),
        "nested": {0: [torch.tensor(True), (1, 2.5, None)], "text": "ä", "empty": torch.zeros(0, 2)},
        "float": 0.1 + 0.2,
    }


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def test_a_tree_comes_back_as_it_was(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 7, tree())
    found = checkpoint.load(tmp_path)
    assert found is not None
    assert found[0] == 7
    assert same(found[1], tree())


def test_tied_weights_are_no_obstacle(tmp_path: Path) -> None:
    weight = torch.ones(2, 2)
    checkpoint.save(tmp_path, 1, {"a": weight, "b": weight, "view": weight[0]})
    state = checkpoint.read(tmp_path, 1)
    assert same(state, {"a": weight, "b": weight, "view": weight[0]})


def test_what_is_no_tree_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"got <class 'object'> at state\.a\.1"):
        checkpoint.save(tmp_path, 1, {"a": [1, object()]})
    assert checkpoint.steps(tmp_path) == []


def test_the_last_two_and_those_to_keep_stay(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        checkpoint.save(tmp_path, step, tree(step), keep=[1])
    assert checkpoint.steps(tmp_path) == [1, 3, 4]
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.parametrize("suffix", ["safetensors", "json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_damage_is_noticed_and_the_one_before_is_used(tmp_path: Path, suffix: str, damage: str) -> None:
    checkpoint.save(tmp_path, 1, tree(1))
    checkpoint.save(tmp_path, 2, tree(2))
    path = tmp_path / f"00000002.{suffix}"
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[:-5])
    elif damage == "flip":
        at = len(data) - 8 if suffix == "safetensors" else data.index(b"0.30000000000000004") + 2
        data[at] = data[at] ^ 1
        path.write_bytes(data)
    else:
        path.unlink()
    if damage == "gone" and suffix == "json":  # then it was never finished
        found = checkpoint.load(tmp_path)
    else:
        with pytest.warns(UserWarning, match=rf"00000002\.{suffix} .*; the checkpoint before it is used"):
            found = checkpoint.load(tmp_path)
    assert found is not None
    assert found[0] == 1
    assert same(found[1], tree(1))
    checkpoint.save(tmp_path, 2, tree(3))  # going on from 1 replaces the damaged one
    assert same(checkpoint.read(tmp_path, 2), tree(3))


def test_a_newer_damaged_one_does_not_push_out_an_intact_one(tmp_path: Path) -> None:
    for step in (1, 9):
        checkpoint.save(tmp_path, step, tree(step))
    (tmp_path / "00000009.json").write_text("{", encoding="utf-8")
    checkpoint.save(tmp_path, 2, tree(2))
    assert checkpoint.steps(tmp_path) == [1, 2]


def test_without_any_intact_one_it_says_so(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path) is None
    checkpoint.save(tmp_path, 1, tree())
    (tmp_path / "00000001.safetensors").write_bytes(b"")
    with pytest.raises(
        Damaged, match=r"00000001\.safetensors was changed .*no other checkpoint in .* is intact"
    ):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("fails", [0, 1, 2, 3])
def test_a_full_disk_leaves_the_last_one_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    """The write fails at the first, second, third or fourth synchronisation or renaming of a file."""
    checkpoint.save(tmp_path, 1, tree(1))
    calls = 0

    def failing(real: Any) -> Any:
        def call(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > fails:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*arguments)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(os.fsync))
        with pytest.raises(
            OSError, match=re.escape("update 2 could not be written (No space left on device)")
        ):
            checkpoint.save(tmp_path, 2, tree(2))
    found = checkpoint.load(tmp_path)
    assert found is not None
    assert found[0] in ((1, 2) if fails == 3 else (1,))  # the last synchronisation follows the last renaming
    assert same(found[1], tree(found[0]))
    assert not list(tmp_path.glob(".*"))


def test_a_crash_between_the_two_files_leaves_the_last_one_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path, 1, tree(1))

    def killed(self: Path, target: Path) -> Path:
        if target.suffix == ".json":
            raise KeyboardInterrupt
        os.replace(self, target)
        return target

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(tmp_path, 2, tree(2))
    found = checkpoint.load(tmp_path)
    assert found is not None
    assert found[0] == 1
    checkpoint.save(tmp_path, 3, tree(3))
    assert not list(tmp_path.glob(".*"))
    assert not (tmp_path / "00000002.safetensors").exists()


def agents() -> list[str]:
    """All, but of the adversarial ones, which share their judge and take long, the quickest."""
    parts = {
        name: {f.name for f in fields(cls)} for name, cls in rlseq.agents.AGENTS.items() if cls.writes_texts
    }
    return sorted(name for name, has in parts.items() if "adversary" not in has or name == "regs")


@pytest.mark.parametrize("name", agents())
def test_every_agent_goes_on_as_if_nothing_had_been(name: str, tmp_path: Path) -> None:
    """Policy, optimiser, baselines, critics, schedules and every random number."""

    def start() -> tuple[Any, Any]:
        reward: Any = rlseq.metrics.Shuffled(rlseq.rewards.accuracy, seed=3)
        if name == "a3c":  # its workers refuse a reward with a state
            reward = rlseq.rewards.accuracy
        env = rlseq.make("rlseq/Copy-v0", num_envs=40, items=50, length=3, reward=reward)
        policy = rlseq.make_policy("gru", env, hidden=8, embedding=4, value=True)
        names = {f.name for f in fields(rlseq.agents.AGENTS[name])}
        return rlseq.make_agent(name, policy, **{k: v for k, v in SHORT.items() if k in names}), env

    def go(agent: Any, env: Any, updates: int) -> list[Any]:
        return [
            {key: float(value) for key, value in agent.update(agent.collect(env)).items()}
            for _ in range(updates)
        ]

    agent, env = start()
    go(agent, env, 2)
    checkpoint.save(tmp_path, 2, checkpoint.state_of(agent, env))
    drawn = random.random(), np.random.rand(), torch.rand(())
    wanted = go(agent, env, 2)
    agent, env = start()
    checkpoint.restore(agent, env, checkpoint.read(tmp_path, 2))
    assert (random.random(), np.random.rand(), torch.rand(())) == drawn
    assert go(agent, env, 2) == wanted


class Noise:
    """A reward with random numbers of its own, and their state."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng(0)

    def __call__(self, tokens: Any, mask: Any, context: Any) -> Any:
        return torch.from_numpy(self.generator.random(len(tokens)))

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.bit_generator.state = state["generator"]


def learner(**options: Any) -> tuple[Any, Any]:
    env: Any = rlseq.make("rlseq/Copy-v0", num_envs=2, items=10, **options)
    return rlseq.make_agent("reinforce", rlseq.make_policy("gru", env, hidden=4, embedding=4)), env


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda noise: noise,
        lambda noise: rlseq.metrics.WeightedSum([(0.5, noise), (2.0, rlseq.metrics.LengthPenalty(1.0))]),
        lambda noise: rlseq.metrics.Shuffled(rlseq.metrics.WeightedSum([(1.0, noise)]).clip(0, 1), seed=3),
    ],
)
def test_a_reward_says_what_state_it_has(wrapped: Any, tmp_path: Path) -> None:
    """However deep it stands in a sum, a function or a control."""
    noise = Noise()
    agent, env = learner(reward=wrapped(noise))
    checkpoint.check_saved(agent, env)
    texts = torch.zeros(8, 5, dtype=torch.int64), torch.ones(8, 5, dtype=torch.bool)

    def scores() -> Any:
        return env.reward_parts(*texts, {"index": torch.arange(8), "source": texts[0]})

    checkpoint.save(tmp_path, 1, checkpoint.state_of(agent, env))
    wanted = [scores() for _ in range(2)]
    checkpoint.restore(agent, env, checkpoint.read(tmp_path, 1))
    assert same([scores() for _ in range(2)], wanted)
    env.parts = {"other": rlseq.rewards.accuracy}
    with pytest.raises(ValueError, match="the checkpoint does not fit this task's rewards"):
        checkpoint.restore(agent, env, checkpoint.read(tmp_path, 1))


class Forgets:
    """A reward, a schedule or anything with random numbers that it does not give away."""

    def __init__(self, generator: Any) -> None:
        self.generator = generator

    def __call__(self, *inputs: Any) -> Any:
        return torch.zeros(len(inputs[0]))


def test_a_state_that_checkpoints_would_lose_is_refused_by_name(tmp_path: Path) -> None:
    generator = torch.Generator()

    def drawn(tokens: Any, mask: Any, context: Any) -> Any:
        return torch.rand(len(tokens), generator=generator)

    forgets: Any = Forgets(None)
    given = partial(forgets, generator=generator)
    for reward in (Forgets(random.Random(0)), Forgets(generator).__call__, drawn, given):
        agent, env = learner(reward={"mine": rlseq.metrics.WeightedSum([(2.0, reward)])})
        with pytest.raises(TypeError, match=r"the reward 'mine': .*: generator is a random generator"):
            rlseq.train(agent, env, 1, out=tmp_path / "run")
        assert not (tmp_path / "run").exists()
    agent, env = learner()
    checkpoint.check_saved(agent, rlseq.envs.wrappers.SelfCritical(env, agent.policy))
    agent.schedule = Forgets(np.random.default_rng(0))
    with pytest.raises(TypeError, match="the agent's schedule: generator is a random generator"):
        checkpoint.check_saved(agent, env)
    agent, env = learner()
    agent.credit = Stepwise(Forgets(generator))
    with pytest.raises(TypeError, match="the agent's credit: scorer: generator is a random generator"):
        checkpoint.check_saved(agent, env)
    agent, env = learner()
    agent.critic = torch.nn.Linear(1, 1)
    with pytest.raises(TypeError, match=r"the agent's critic has a state .*`stateful_parts`"):
        checkpoint.check_saved(agent, env)
    agent, env = learner()
    env.draws = np.random.default_rng(0)
    with pytest.raises(TypeError, match="the task: draws is a random generator"):
        checkpoint.check_saved(agent, env)


@pytest.mark.parametrize("part", [MovingAverage(), UpdateCounter(), Shuffle(), AdaptiveKL(0.1, 1.0)])
def test_what_parts_remember_comes_back_on_their_device(part: Any) -> None:
    """A checkpoint is read into the memory of the host; `meta` stands for an accelerator."""
    state = part.state_dict()
    for name, value in state.items():
        setattr(part, name, value.to("meta"))
    part.load_state_dict(state)
    assert {value.device.type for value in part.state_dict().values()} == {"meta"}


def test_texts_that_are_remembered_come_back_on_the_device_of_their_reader() -> None:
    env = rlseq.make("rlseq/Copy-v0", num_envs=8, items=20, length=3)
    for kind in (Adversary, Ranker):
        judge = kind(rlseq.make_discriminator("cnn", env, source=False), memory=16, texts=16)
        judge.learn(rlseq.make_policy("gru", env, hidden=8, embedding=4), env)
        state = judge.state_dict()
        judge.discriminator.to("meta")
        judge.load_state_dict({**state, "discriminator": judge.discriminator.state_dict()})
        found = [texts for texts in (judge.past, getattr(judge, "pool", None)) if texts is not None]
        assert found
        for texts in found:
            tensors = [texts.tokens, texts.mask, *texts.context.values()]
            assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_a_regression_goes_on_on_the_device_of_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no weights before it learns, so its device is known when a batch comes."""
    env = rlseq.make("rlseq/Copy-v0", num_envs=8, items=20, length=3)
    policy = rlseq.make_policy("gru", env, hidden=8, embedding=4)
    agent: Any = rlseq.make_agent("reinforce", policy, baseline="regression")
    agent.update(agent.collect(env))
    batch = agent.with_advantages(agent.collect(env))
    moved = replace(
        batch, **{n: getattr(batch, n).to("meta") for n in ("mask", "features", "rewards", "actions")}
    )
    returns = batch.targets.to("meta")
    assert agent.baseline(returns, moved).device.type == "meta"
    agent.baseline.learn(returns, moved)
    assert agent.baseline.weight.device.type == "meta"


def test_the_state_of_a_generator_of_another_device_is_refused_by_name() -> None:
    env = rlseq.make("rlseq/Copy-v0", num_envs=2, items=10)
    agent = rlseq.make_agent("reinforce", rlseq.make_policy("gru", env, hidden=4, embedding=4))
    state = checkpoint.state_of(agent, env)
    state["env"]["generator"] = torch.zeros(16, dtype=torch.uint8)  # as CUDA's are
    with pytest.raises(ValueError, match=r"random generator does not fit one on cpu"):
        checkpoint.restore(agent, env, state)


def test_only_files_of_checkpoints_are_removed(tmp_path: Path) -> None:
    others = [tmp_path / name for name in ("model.safetensors", "0000000a.safetensors", "notes.json")]
    for other in others:
        other.write_bytes(b"mine")
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, tree(step))
    assert all(other.read_bytes() == b"mine" for other in others)
    assert checkpoint.steps(tmp_path) == [2, 3]


def test_a_checkpoint_under_another_name_is_refused(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, tree(1))
    for suffix in ("json", "safetensors"):
        (tmp_path / f"00000001.{suffix}").rename(tmp_path / f"00000002.{suffix}")
    with pytest.raises(Damaged, match=r"00000002\.json holds step 1"):
        checkpoint.read(tmp_path, 2)
