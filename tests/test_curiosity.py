"""Curiosity: high where nothing was seen, low after learning, and blind to what actions cannot change."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import rlseq
from rlseq.envs.wrappers.curiosity import Curiosity
from rlseq.training import checkpoint


def task(**options: Any) -> Any:
    sizes = {"vocab_size": 6, "length": 4, "items": 100}
    return Curiosity(rlseq.make("rlseq/Copy-v0", num_envs=32, **{**sizes, **options}), weight=1.0, lr=1e-2)


def test_what_was_often_written_surprises_less_than_what_was_not() -> None:
    env = task()
    policy = rlseq.make_policy("gru", env, hidden=8, embedding=4)
    often, new = torch.full((32, 5), 2), torch.full((32, 5), 4)
    reward: Any = env.parts["curiosity"]
    before: list[float] = []
    after: list[float] = []
    for surprises in (before, after):
        for words in (often, new):
            batch = rlseq.rollout(policy, env, forced=words)
            surprises.append(float(reward(batch.actions, batch.mask, batch.context).mean()))
        for _ in range(60 if surprises is before else 0):
            env.learn(rlseq.rollout(policy, env, forced=often))
    assert after[0] < 0.1 * before[0]
    assert after[1] > 3 * after[0]


def test_it_is_fixed_while_texts_are_written_and_learns_after_an_update() -> None:
    env = task()
    policy = rlseq.make_policy("gru", env, hidden=8, embedding=4)
    model: Any = env.parts["curiosity"].model
    weights = [p.detach().clone() for p in model.parameters()]
    batch = rlseq.rollout(policy, env)
    assert all(map(torch.equal, weights, model.parameters()))
    own = rlseq.rewards.accuracy(batch.actions, batch.mask, batch.context)
    assert bool((batch.returns > own).all())
    rlseq.train(rlseq.make_agent("reinforce", policy), env, updates=1, alarms="ignore")
    names = [name for name, _ in model.named_parameters()]
    moved = {
        n.split(".")[0]
        for n, p, was in zip(names, model.parameters(), weights, strict=True)
        if (p != was).any()
    }
    assert moved == {n.split(".")[0] for n in names}, "features and both models learn"


def test_only_the_inverse_model_trains_the_features() -> None:
    env = task()
    model: Any = env.parts["curiosity"].model
    batch = rlseq.rollout(rlseq.make_policy("gru", env, hidden=8, embedding=4), env)
    features = model.features(batch.actions, batch.context)
    readers = list(model.reader.parameters())
    surprise = model.surprise(features, batch.actions).sum()
    assert all(
        g is None for g in torch.autograd.grad(surprise, readers, allow_unused=True, retain_graph=True)
    )
    inverse = model.inverse_loss(features, batch.actions).sum()
    assert any(bool(g.any()) for g in torch.autograd.grad(inverse, readers))


def test_training_goes_on_from_a_checkpoint_bit_by_bit(tmp_path: Any) -> None:
    def go(agent: Any, env: Any) -> list[Tensor]:
        for _ in range(3):
            batch = agent.collect(env)
            agent.update(batch)
            env.learn(batch)
        return [p.detach().clone() for p in agent.policy.parameters()]

    def start() -> tuple[Any, Any]:
        env = task()
        return rlseq.make_agent(
            "reinforce", rlseq.make_policy("gru", env, hidden=8, embedding=4), lr=1e-2
        ), env

    agent, env = start()
    go(agent, env)
    checkpoint.save(tmp_path, 3, checkpoint.state_of(agent, env))
    wanted = go(agent, env)
    agent, env = start()
    checkpoint.restore(agent, env, checkpoint.read(tmp_path, 3))
    assert all(map(torch.equal, go(agent, env), wanted))
