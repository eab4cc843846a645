"""Batches that a thread writes while an agent learns: of the weights before, and the same in every run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import rlseq
from rlseq.envs.wrappers.curriculum import ReverseCurriculum
from rlseq.policy_gradient import worker
from rlseq.policy_gradient.algorithm import frozen_copy
from rlseq.utils.ranks import Rank


def made(agent: str, **hyper: Any) -> tuple[Any, Any]:
    env = rlseq.make("rlseq/Copy-v0", length=3, vocab_size=5, items=64, num_envs=16, seed=3)
    policy = rlseq.make_policy("lstm", env, hidden=8, embedding=4, value=True, seed=1)
    return rlseq.make_agent(agent, policy, lr=1e-2, **hyper), env


@pytest.mark.parametrize("agent", ["ppo", "grpo", "ppo_kl"])
def test_a_batch_is_of_the_weights_before_the_last_update(agent: str) -> None:
    learner, env = made(agent, overlap=True)
    earlier = [frozen_copy(learner.policy)]
    for update in range(3):
        batch = learner.collect(env)
        writer = earlier[max(0, update - 1)]  # the first two batches are both of the first weights
        found = writer.evaluate(batch.actions, batch.context).log_probs
        torch.testing.assert_close(found.where(batch.mask, 0.0), batch.log_probs, atol=1e-5, rtol=0)
        learner.update(batch)
        earlier.append(frozen_copy(learner.policy))
    assert env.counts.as_dict()["episodes"] == 48  # of the batches that were learned from


def test_runs_are_equal_and_resume_bit_by_bit(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"eval_every": 2, "alarms": "ignore", "quiet": True}
    whole = rlseq.train(*made("ppo", overlap=True), 4, out=tmp_path / "whole", **settings)
    again = rlseq.train(*made("ppo", overlap=True), 4, **settings)
    for updates in (2, 4):
        parts = rlseq.train(*made("ppo", overlap=True), updates, out=tmp_path / "parts", **settings)
    assert whole == again == parts
    assert whole != rlseq.train(*made("ppo"), 4, **settings)


def test_an_error_in_a_thread_reaches_the_training() -> None:
    learner, env = made("ppo", overlap=True)
    learner.collect(env)

    def broken(*arguments: Any) -> Any:
        raise RuntimeError("no reward")

    learner.ahead.work = broken
    learner.collect(env)  # this batch was begun before
    with pytest.raises(RuntimeError, match="no reward"):
        learner.collect(env)


def test_agents_and_tasks_that_cannot_overlap_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match="RLOO has no option 'overlap'"):
        made("rloo", overlap=True)
    learner, env = made("ppo", overlap=True)
    with pytest.raises(ValueError, match="overlap works on the next batch already, and the curriculum"):
        learner.check(ReverseCurriculum(env))
    monkeypatch.setattr(worker, "this_rank", lambda: Rank(0, 2))
    with pytest.raises(ValueError, match="overlap uses threads of one process; start it without torchrun"):
        learner.check(env)


def test_a3c_with_one_worker_is_a2c() -> None:
    settings: dict[str, Any] = {"alarms": "ignore", "quiet": True, "probe": False}
    trained = []
    for agent, hyper in (("a3c", {"workers": 1}), ("a2c", {})):
        learner, env = made(agent, **hyper)
        env.generator.manual_seed(0)
        if agent == "a2c":  # which draws from the seed that the worker has drawn
            learner.gather = on_seeds(learner.gather)
        rlseq.train(learner, env, 2, **settings)
        trained.append(torch.cat([p.detach().flatten() for p in learner.policy.parameters()]))
    torch.testing.assert_close(*trained, atol=1e-6, rtol=0)


def on_seeds(gather: Any) -> Any:
    """Return a way to gather a batch with random numbers of a seed that the task draws."""

    def gathered(env: Any) -> Any:
        seed = int(torch.randint(2**62, (), generator=env.generator))
        return gather(env.replace(generator=torch.Generator().manual_seed(seed)))

    return gathered


def test_gradients_of_a3c_are_those_of_weights_one_update_before() -> None:
    learner, env = made("a3c", workers=2, clip_norm=1e6)
    earlier = [frozen_copy(learner.policy)]
    for update in range(4):
        batch = learner.collect(env)
        other, _ = made("a2c")
        other.policy.load_state_dict(earlier[max(0, update - 1)].state_dict())
        other.loss(batch)[0].backward()
        wanted = [p.grad for p in other.policy.parameters()]
        for gradient, known in zip(learner.given.gradients, wanted, strict=True):
            torch.testing.assert_close(gradient, known)
        learner.update(batch)
        earlier.append(frozen_copy(learner.policy))


def test_a3c_resumes_bit_by_bit(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"eval_every": 3, "alarms": "ignore", "quiet": True}
    whole = rlseq.train(*made("a3c", workers=3), 6, out=tmp_path / "whole", **settings)
    for updates in (3, 6):
        parts = rlseq.train(*made("a3c", workers=3), updates, out=tmp_path / "parts", **settings)
    assert whole == parts
