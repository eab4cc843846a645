"""The closer look: against the exact objective, hand-made gradients, and a policy that has not moved."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import rlseq
from rlseq.training.probe import PolicyProbe


def setting(name: str = "rloo", **hyper: Any) -> tuple[Any, Any]:
    env = rlseq.make("rlseq/Enumerable-v0", num_envs=64, sources=2)
    return env, rlseq.make_agent(name, rlseq.make_policy("gru", env, hidden=8, embedding=4), **hyper)


def test_everything_is_left_as_it_was_found() -> None:
    env, agent = setting()
    env.begin()
    kept = env.generator.get_state(), env.context["index"].clone(), env.counts.as_dict()
    weights = [p.clone() for p in agent.policy.parameters()]
    PolicyProbe(agent, env)()
    assert torch.equal(env.generator.get_state(), kept[0])
    assert torch.equal(env.context["index"], kept[1])
    assert env.counts.as_dict() == kept[2]
    assert all(torch.equal(a, b) for a, b in zip(weights, agent.policy.parameters(), strict=True))
    assert all(p.grad is None for p in agent.policy.parameters())


def test_the_truth_is_the_exact_objective() -> None:
    env, agent = setting()
    assert PolicyProbe(agent, env)()["objective"] == rlseq.exact.objective(agent.policy, env)
    big = rlseq.make("rlseq/Copy-v0", num_envs=8, vocab_size=30, length=10)
    policy = rlseq.make_policy("gru", big, hidden=8, embedding=4)
    assert "objective" not in PolicyProbe(rlseq.make_agent("reinforce", policy), big)()


def test_it_knows_how_far_the_policy_has_moved() -> None:
    env, agent = setting(lr=1e-2)
    look = PolicyProbe(agent, env)
    assert float(look()["kl_start"]) == pytest.approx(0, abs=1e-6)
    rlseq.train(agent, env, updates=30)
    moved = look()
    assert float(moved["kl_start"]) > 0.01
    assert float(moved["greedy_reward"]) > 0


def test_the_noise_is_the_variance_between_parts() -> None:
    env, agent = setting(samples=2)
    look = PolicyProbe(agent, env, parts=4)
    batch = agent.collect(env)
    whole = agent.with_advantages(batch)
    gradients = []
    for rows in range(0, 64, 16):
        agent.policy.zero_grad()
        part = replace(whole.take(slice(rows, rows + 16)), weights=None)
        weights = part.mask / 16
        agent.loss(replace(part, weights=weights))[0].backward()
        gradients.append(
            torch.cat([p.grad.flatten() for p in agent.policy.parameters() if p.grad is not None])
        )
    wanted = torch.stack(gradients).var(0).sum()
    assert float(look.noise(batch)["grad_variance"]) == pytest.approx(float(wanted), rel=1e-4)


@pytest.mark.parametrize(("rows", "told"), [(4, False), (8, True), (12, True)])
def test_few_groups_are_compared_as_far_as_they_go(rows: int, told: bool) -> None:
    """rloo writes 4 texts for each source: 1, 2 and 3 groups."""
    env = rlseq.make("rlseq/Enumerable-v0", num_envs=rows, sources=2)
    agent = rlseq.make_agent("rloo", rlseq.make_policy("gru", env, hidden=8, embedding=4))
    seen = PolicyProbe(agent, env)()
    assert ("grad_variance" in seen) == ("grad_noise" in seen) == told
    assert all(torch.as_tensor(value).isfinite() for value in seen.values())


def test_texts_that_all_differ_and_texts_that_are_alike() -> None:
    env, agent = setting()
    batch = agent.collect(env)
    same = replace(batch, actions=torch.ones_like(batch.actions), mask=torch.ones_like(batch.mask))
    figures = PolicyProbe(agent, env).texts(same)
    assert float(figures["distinct_1"]) == pytest.approx(1 / same.actions.numel())
    assert float(figures["eos_rate"]) == 0.0


def test_one_part_cannot_be_compared() -> None:
    env, agent = setting()
    with pytest.raises(ValueError, match="parts must be ≥ 2"):
        PolicyProbe(agent, env, parts=1)
