"""More reward: potentials sum to nothing, costs do not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import rlseq
from rlseq.envs.wrappers import SelfCritical, charged, potential_of, shaped
from rlseq.policy_gradient.returns import reward_to_go
from rlseq.types import Context


def task(**options: Any) -> Any:
    return rlseq.make("rlseq/Copy-v0", num_envs=32, vocab_size=5, length=4, **options)


def policy_for(env: Any) -> Any:
    return rlseq.make_policy("gru", env, hidden=8, embedding=8)


def noise(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    """An arbitrary function of the prefix."""
    return torch.sin(tokens.double().cumsum(1) * 3 + torch.arange(tokens.shape[1])).float()


@pytest.mark.parametrize("gamma", [1.0, 0.7])
def test_a_potential_changes_no_discounted_return(gamma: float) -> None:
    env = shaped(task(), noise, gamma)
    batch = rlseq.rollout(policy_for(env), env)
    parts = env.reward_parts(batch.actions, batch.mask, batch.context)
    discounted = reward_to_go(parts["shaping"], batch.ends, gamma)[:, 0]
    torch.testing.assert_close(discounted, torch.zeros(32), atol=1e-5, rtol=0)
    assert parts["shaping"].abs().sum() > 1
    assert (parts["shaping"][~batch.mask] == 0).all()


def test_a_potential_leaves_the_exact_gradient_as_it_is() -> None:
    env: Any = rlseq.make("rlseq/Enumerable-v0")
    policy = policy_for(env)
    plain, extra = rlseq.exact.gradient(policy, env), rlseq.exact.gradient(policy, shaped(env, noise))
    for name, gradient in plain.items():
        torch.testing.assert_close(extra[name], gradient, atol=1e-6, rtol=1e-4)


def test_shaping_by_hand() -> None:
    env = shaped(task(), lambda tokens, mask, context: torch.tensor([[1.0, 3.0, 7.0, 0.0, 0.0]]))
    mask = torch.tensor([[True, True, True, False, False]])
    ended, goes_on = torch.tensor([[1, 1, 0, 0, 0]]), torch.tensor([[1, 1, 1, 0, 0]])
    assert env.parts["shaping"](ended, mask, {}).tolist() == [[1.0, 2.0, -3.0, 0.0, 0.0]]
    assert env.parts["shaping"](goes_on, mask, {}).tolist() == [[1.0, 2.0, 4.0, 0.0, 0.0]]


def test_the_potential_of_a_metric_pays_early_what_is_due_late() -> None:
    env = task(items=50)
    metric = rlseq.metrics.EditDistance(env.items["references"].tolist(), eos=0)
    env = shaped(task(items=50, reward=metric), potential_of(metric))
    batch = rlseq.rollout(policy_for(env), env)
    torch.testing.assert_close(batch.returns, metric(batch.actions, batch.mask, batch.context))
    gains = metric.increments(batch.actions, batch.mask, batch.context)
    torch.testing.assert_close(batch.rewards[~batch.ends], gains[~batch.ends])


def test_every_token_costs() -> None:
    env = charged(task(), 0.1)
    batch = rlseq.rollout(policy_for(env), env)
    free = env.parts["accuracy"](batch.actions, batch.mask, batch.context)
    torch.testing.assert_close(batch.returns, free - 0.1 * batch.lengths)
    assert set(rlseq.evaluate(policy_for(env), env, limit=8)) >= {"reward", "accuracy", "cost"}


def test_the_task_that_was_given_stays_as_it_was() -> None:
    env = task()
    charged(env, 1.0)
    assert list(env.parts) == ["accuracy"]
    with pytest.raises(ValueError, match="has a reward 'cost' already"):
        charged(charged(env, 1.0), 1.0)
    with pytest.raises(TypeError, match="has no increments"):
        potential_of(noise)


def test_gymnasium_s_view_pays_the_same() -> None:
    env = shaped(task(), noise)
    policy = policy_for(env)
    batch = rlseq.rollout(policy, env)
    env.reset(options={"index": batch.context["index"]})
    total = torch.zeros(32)
    done = torch.zeros(32, dtype=torch.bool)
    for t in range(env.max_len):
        _, reward, ended, _, _ = env.step(batch.actions[:, t])
        total += torch.where(done, 0, reward)
        done |= ended
        if done.all():
            break
    torch.testing.assert_close(total, batch.returns)


def test_self_critical_is_the_reward_less_that_of_the_greedy_text() -> None:
    plain = task(reward="accuracy")
    policy = policy_for(plain)
    batch = rlseq.rollout(policy, SelfCritical(plain, policy), repeat=2)
    judged = plain.reward_parts(batch.actions, batch.mask, batch.context)["accuracy"].sum(1)
    index = batch.context["index"]
    greedy = rlseq.rollout(policy, task(reward="accuracy"), decode=rlseq.Greedy(), index=index).returns
    torch.testing.assert_close(batch.returns, judged - greedy)


def test_self_critical_in_gymnasium_pays_the_same() -> None:
    plain = task()
    policy = policy_for(plain)
    env = SelfCritical(plain, policy)
    batch = rlseq.rollout(policy, env)
    env.reset(options={"index": batch.context["index"]})
    paid, live = torch.zeros(32), torch.ones(32, dtype=torch.bool)
    for t in range(env.max_len):
        _, reward, ended, _, _ = env.step(batch.actions[:, t])
        paid += reward * live  # rows that have ended are on to something else
        live &= ~ended
    torch.testing.assert_close(paid, batch.returns)


def test_a_stock_agent_is_its_own_critic() -> None:
    from stable_baselines3 import PPO

    plain = task()
    reader = {"features_extractor_class": rlseq.sb3.TokenExtractor}
    model = PPO(
        "MultiInputPolicy",
        rlseq.sb3.as_vec_env(plain),
        policy_kwargs=reader,
        n_steps=8,
        batch_size=64,
        device="cpu",
    )
    policy = rlseq.sb3.as_policy(model, plain)
    env = SelfCritical(plain, policy)
    model.set_env(rlseq.sb3.as_vec_env(env))
    model.learn(512)
    batch = rlseq.rollout(policy, env, decode=rlseq.Greedy())
    torch.testing.assert_close(batch.returns, torch.zeros(32), msg="a greedy text is no better than itself")
