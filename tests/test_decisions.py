"""Toy decisions: their values are those that are worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import rlseq
from rlseq.envs.decisions import monte_carlo_values, td_values
from rlseq.policy_gradient.exact import objective
from rlseq.policy_gradient.losses import score_function
from rlseq.policy_gradient.returns import reward_to_go

TOYS = ("Bandit", "CreditChain", "PlayOrStudy", "TwoStates")


def made(name: str, rows: int = 4, **options: Any) -> tuple[Any, Any]:
    env = rlseq.make(f"rlseq/{name}-v0", num_envs=rows, **options)
    return env, rlseq.make_policy("gru", env, hidden=8, embedding=4, seed=0)


def paid(env: Any, *texts: str) -> torch.Tensor:
    """The rewards of texts, step by step."""
    tokens = torch.tensor([env.vocab.encode(text) for text in texts])
    context = env.contexts(torch.zeros(len(texts), dtype=torch.int64))
    rewards: torch.Tensor = env.total_reward(tokens, torch.ones_like(tokens, dtype=torch.bool), context)
    return rewards


def test_credit_goes_to_the_first_step_alone_by_reward_to_go() -> None:
    env, _ = made("CreditChain")
    rewards = paid(env, "well well badly", "badly well well")
    assert rewards.tolist() == [[5, 0, -2], [-5, 0, -2]]
    ends = torch.tensor([[False, False, True]] * 2)
    assert reward_to_go(rewards, ends).tolist() == [[3, -2, -2], [-7, -2, -2]]


def test_the_exact_objective_of_a_uniform_policy_is_the_mean() -> None:
    for name, mean in (("CreditChain", -2.0), ("Bandit", 2.0)):
        env, policy = made(name)
        for parameter in policy.head.parameters():
            torch.nn.init.zeros_(parameter)
        assert float(objective(policy, env)) == pytest.approx(mean)


@pytest.mark.parametrize(
    ("gamma", "delay", "studies"), [(0.9, 20, True), (0.9, 100, False), (0.99, 100, True), (0.7, 20, False)]
)
def test_the_discount_decides_whether_to_study(gamma: float, delay: int, studies: bool) -> None:
    env, _ = made("PlayOrStudy", delay=delay)
    rewards = paid(env, "play" + " wait" * delay, "study" + " wait" * delay)
    value = (rewards * gamma ** torch.arange(delay + 1)).sum(1)
    assert value.tolist() == pytest.approx([1 - 100 * gamma**delay, -1 + 100 * gamma**delay], rel=1e-4)
    assert bool(value[1] > value[0]) == studies == (gamma**delay > 0.01)


def test_after_the_choice_a_policy_can_only_wait() -> None:
    env, policy = made("PlayOrStudy", delay=3, rows=50)
    batch = rlseq.rollout(policy, env)
    assert set(batch.actions[:, 0].tolist()) == {0, 1}
    assert (batch.actions[:, 1:] == 2).all()
    assert batch.log_probs[:, 1:].eq(0).all()


def test_monte_carlo_and_temporal_differences_differ_on_the_eight_episodes() -> None:
    env, policy = made("TwoStates", rows=8)
    batch = rlseq.rollout(policy, env, index=torch.arange(8))
    assert env.texts(batch.actions, batch.mask) == ["on"] + [""] * 7
    states = batch.context["source"] - 1 + torch.arange(2)
    assert monte_carlo_values(states, batch.rewards, batch.mask).tolist() == [0.0, 0.75]
    assert td_values(states, batch.rewards, batch.mask).tolist() == pytest.approx([0.75, 0.75])


def test_an_arm_that_was_not_sampled_loses_only_without_a_baseline() -> None:
    """The best arm, a, is not in the batch; its logit has the gradient −p(a) Σ (r − b)."""
    env, _ = made("Bandit")
    arms = torch.tensor([[1], [2], [1], [2]])
    rewards = env.total_reward(arms, torch.ones_like(arms, dtype=torch.bool), {})
    moved = []
    for baseline in (0.0, rewards.mean()):
        logits = torch.zeros(3, requires_grad=True)
        loss = score_function(logits.log_softmax(0)[arms], rewards - baseline).mean()
        moved.append((-torch.autograd.grad(loss, logits)[0]).tolist())
    assert moved[0] == pytest.approx([-0.5, 0.5, 0.0], abs=1e-6)
    assert moved[1] == pytest.approx([0.0, 0.25, -0.25], abs=1e-6)


def test_a_bandit_needs_two_arms() -> None:
    with pytest.raises(ValueError, match=r"at least two arms, got \[1.0\]"):
        rlseq.make("rlseq/Bandit-v0", rewards=[1.0])


@pytest.mark.parametrize("name", TOYS)
def test_a_toy_is_learned_by_name(name: str) -> None:
    env, policy = made(name, rows=32, **({"delay": 3} if name == "PlayOrStudy" else {}))
    agent = rlseq.make_agent("reinforce", policy, lr=5e-2)
    rlseq.train(agent, env, updates=20, alarms="ignore")
    best = {"Bandit": 3.0, "CreditChain": 3.0, "PlayOrStudy": 99.0, "TwoStates": 0.75}[name]
    assert rlseq.evaluate(policy, env)["reward"] == pytest.approx(best)
