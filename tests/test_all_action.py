"""The all-action policy gradient: its values, its exactness, and what sampling actions would have added."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import rlseq
from rlseq.adapters import GymEnv
from rlseq.policy_gradient.losses import score_function
from rlseq.policy_gradient.q_estimates import ActionCritic, CompletedActions
from rlseq.utils.vectors import flat


def made(policy: Any, **hyper: Any) -> Any:
    return rlseq.make_agent("all_action", policy, **hyper)


def slope(agent: Any, batch: Any) -> Tensor:
    agent.policy.zero_grad(set_to_none=False)
    agent.loss(batch)[0].backward()
    return flat(torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in agent.policy.parameters())


@pytest.mark.parametrize("options", [{}, {"ends": False}, {"vocab_size": 2, "length": 4, "sources": 1}])
def test_its_expectation_is_the_exact_gradient(tiny: Any, options: dict[str, Any]) -> None:
    env, policy = tiny(**options)
    agent = made(policy, action_values="exact")
    wanted = rlseq.exact.gradient(policy, env)
    assert tiny.error(rlseq.exact.expected_gradient(agent, env), wanted) < 1e-4


def test_exact_values_are_those_of_the_tree(tiny: Any) -> None:
    """Of the words that were written, Q is the mean over all texts that begin so."""
    env, policy = tiny()
    batch = made(policy, action_values="exact").collect(env)
    whole = tiny.whole(policy, env)
    found = batch.action_values.gather(2, batch.actions.unsqueeze(2)).squeeze(2)
    wanted = whole.of(batch, whole.actions_worth())
    torch.testing.assert_close(found * batch.mask, wanted * batch.mask, rtol=1e-4, atol=1e-5)
    mean = (batch.action_values * whole.of(batch, whole.logits.softmax(2))).sum(2)
    torch.testing.assert_close(mean * batch.mask, whole.of(batch, whole.states_worth()) * batch.mask)


def test_in_the_first_state_nothing_is_left_to_chance(tiny: Any) -> None:
    """With one state to visit, a single text gives the exact gradient; REINFORCE's is one sample of it."""
    env, policy = tiny(rows=1, length=1, sources=0)
    wanted = flat(rlseq.exact.gradient(policy, env).values())
    for _ in range(3):
        agent = made(policy, action_values="exact")
        torch.testing.assert_close(-slope(agent, agent.collect(env)), wanted, rtol=1e-4, atol=1e-6)


def test_an_action_that_is_not_sampled() -> None:
    """All rewards are positive, and the first of three actions is not sampled: its probability falls, unless
    the expected reward is subtracted; with all actions it need not be sampled."""
    rewards = torch.tensor([4.0, 3.0, 5.0])

    def rise(loss: Callable[[Tensor], Tensor]) -> Tensor:
        z = torch.zeros(3, requires_grad=True)
        (grad,) = torch.autograd.grad(loss(z), z)
        return (z - 0.1 * grad).softmax(0).detach() - 1 / 3

    sampled = torch.tensor([1, 2])
    plain = rise(lambda z: score_function(z.log_softmax(0)[sampled], rewards[sampled]).mean())
    compared = rise(lambda z: score_function(z.log_softmax(0)[sampled], rewards[sampled] - 4.0).mean())
    every = rise(lambda z: -(z.softmax(0) * rewards).sum())
    assert float(plain[0]) < -0.01
    torch.testing.assert_close(compared[0], torch.tensor(0.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(every, compared * 2 / 3, atol=1e-3, rtol=0)


def test_its_variance_is_below_that_of_sampled_actions(tiny: Any) -> None:
    env, policy = tiny(rows=4)
    noise = {}
    for name, hyper in (("all_action", {"action_values": "exact"}), ("reinforce", {})):
        agent = rlseq.make_agent(name, policy, **hyper)
        found = torch.stack([slope(agent, agent.collect(env)) for _ in range(60)])
        noise[name] = float(found.var(0).sum())
    assert noise["all_action"] < 0.3 * noise["reinforce"]


@pytest.mark.parametrize("dense", [False, True])
def test_completions_find_the_values_of_all_words(tiny: Any, dense: bool) -> None:
    """Also where rewards are paid along the way: those before a word are no part of its value."""
    env, policy = tiny(rows=4)
    if dense:
        env.parts = {"dense": lambda tokens, mask, context: (tokens + 1.0) * mask}
    batch = made(policy, action_values="exact").collect(env)
    own = batch.action_values.gather(2, batch.actions.unsqueeze(2)).squeeze(2)
    torch.testing.assert_close(
        own[batch.ends], batch.rewards[batch.ends]
    )  # nothing comes after the last word
    before = env.counts.as_dict()["generated_tokens"]
    found = CompletedActions(samples=1500)(batch, policy, env, rlseq.Sample())
    torch.testing.assert_close(found, batch.action_values, rtol=0, atol=0.2)
    assert float((found - batch.action_values).mean().abs()) < 0.02
    written = env.counts.as_dict()["generated_tokens"] - before
    assert 0 < written <= 1500 * int(batch.mask.sum()) * len(env.vocab) * env.max_len


def test_words_that_are_not_allowed_are_not_completed(tiny: Any) -> None:
    env, policy = tiny(rows=16)
    agent = made(policy, decode=rlseq.Sample(top_k=2))
    batch = agent.collect(env)
    left_out = batch.mask.unsqueeze(2) & ~batch.behaviour.support
    assert left_out.any()
    agent.update(batch)
    with pytest.raises(ValueError, match=r'samples from all words.*action_values="completions"'):
        made(policy, action_values="exact", decode=rlseq.Sample(top_k=2)).collect(env)


def test_a_critic_learns_what_actions_earn(tiny: Any) -> None:
    """With one state, Q is one number for every word, and the critic finds it."""
    env, policy = tiny(rows=256, length=1, sources=0)
    agent = made(policy, action_values="critic", lr=1e-9)
    for _ in range(150):
        agent.update(agent.collect(env))
    found = agent.collect(env).action_values[0, 0]
    torch.testing.assert_close(found, env.table[0], rtol=0, atol=0.05)


def test_the_state_of_a_critic_is_kept(tiny: Any) -> None:
    env, policy = tiny(rows=16)
    agent, other = made(policy, action_values="critic"), made(policy, action_values="critic")
    agent.update(agent.collect(env))
    other.load_state_dict(agent.state_dict())
    assert agent.action_values.weight.any()
    assert torch.equal(agent.action_values.weight, other.action_values.weight)


def test_it_climbs_the_exact_objective(tiny: Any) -> None:
    env, policy = tiny(rows=16)
    rlseq.train(made(policy, lr=2e-2), env, updates=80, alarms="ignore")
    assert float(rlseq.exact.objective(policy, env)) > 0.8 * float(env.table.max(1).values.mean())


def test_a_critic_acts_on_cartpole() -> None:
    env = GymEnv("CartPole-v1", 4, steps=16)
    policy = rlseq.make_policy("mlp", env, hidden=8)
    agent = made(policy, action_values=ActionCritic(), gamma=0.9)
    history = rlseq.train(agent, env, updates=3, alarms="ignore")
    assert len(history) == 3
    assert agent.action_values.weight.shape == (2, 9)


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"baseline": "mean"}, "so that baseline has nothing to do; leave baseline out"),
        ({"scale": "by_batch"}, "so that scale has nothing to do"),
        ({"gamma": 0.9}, "undiscounted rewards.*got gamma=0.9"),
        ({"kl_reward": 0.1}, 'use kl, or take action_values="critic"'),
        ({"action_values": "completed"}, "takes a function, got 'completed'|unknown action_values"),
    ],
)
def test_settings_that_are_refused(tiny: Any, hyper: dict[str, Any], message: str) -> None:
    _, policy = tiny()
    with pytest.raises((ValueError, TypeError), match=message):
        made(policy, **hyper)


def test_tasks_that_are_refused(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    env = GymEnv("CartPole-v1", 2, steps=4)
    policy = rlseq.make_policy("mlp", env, hidden=4)
    with pytest.raises(ValueError, match='pass action_values="critic"'):
        made(policy).collect(env)
    vectors = GymEnv("Pendulum-v1", 2, steps=4)
    with pytest.raises(ValueError, match=r"got Box.*as a2c"):
        made(rlseq.make_policy("mlp", vectors, hidden=4), action_values="critic").collect(vectors)
    texts, writer = tiny(rows=8)
    monkeypatch.setattr("rlseq.utils.memory.memory", lambda: 1000)
    with pytest.raises(
        ValueError, match=r"num_envs=8, words=3 would need .* or take action_values=\"critic\""
    ):
        made(writer).check(texts)
