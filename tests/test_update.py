"""Whole updates: what is judged before it is learned, which rows count, in which order they are learned."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import rlseq
from rlseq.agents import DAPO, GRPO, PPO, REINFORCE, SCST
from rlseq.agents.ppo import AdaptiveKL
from rlseq.engine.decode import Greedy
from rlseq.engine.rollout import rollout
from rlseq.policy_gradient.baselines import MovingAverage, Regression, none
from rlseq.policy_gradient.credit import Completions
from rlseq.policy_gradient.losses import per_token
from rlseq.utils.masks import at_last


def weights(policy: Any) -> Any:
    return torch.cat([p.detach().flatten() for p in policy.parameters()])


@pytest.mark.parametrize("baseline", ["moving_average", "regression"])
def test_a_batch_is_judged_before_its_baseline_learns_from_it(tiny: Any, baseline: str) -> None:
    env, policy = tiny(rows=16)
    agent: Any = rlseq.make_agent("reinforce", policy, baseline=baseline, lr=1e-9)
    seen: list[Any] = []
    honest: Any = agent.loss
    agent.loss = lambda batch: seen.append(batch.advantages.clone()) or honest(batch)  # type: ignore
    first, second = agent.collect(env), agent.collect(env)
    agent.update(first)
    assert torch.equal(seen[0], first.rewards.flip(1).cumsum(1).flip(1)), "nothing was known before"
    known = agent.baseline(second.rewards, second)
    agent.update(second)
    returns = second.rewards.flip(1).cumsum(1).flip(1)
    torch.testing.assert_close(seen[1], returns - known)


def test_a_moving_average_is_the_mean_of_earlier_batches(tiny: Any) -> None:
    env, policy = tiny(rows=16)
    agent = REINFORCE(policy, baseline=MovingAverage(0.5), lr=1e-9)
    means = []
    for _ in range(2):
        batch = agent.collect(env)
        agent.update(batch)
        returns = batch.rewards.flip(1).cumsum(1).flip(1)
        means.append(float(returns[batch.mask].mean()))
    now = agent.baseline(batch.rewards, batch)
    assert float(now[0, 0]) == pytest.approx((means[0] / 3 + 2 * means[1] / 3), rel=1e-5)


def test_dapo_leaves_groups_out_whose_texts_earn_the_same(tiny: Any) -> None:
    """Of four groups two differ: the gradient is that of a mean over the tokens of these two."""
    env, policy = tiny(rows=16)
    agent = DAPO(policy, samples=4)
    batch = agent.collect(env)
    paid = torch.tensor([1.0, 0, 0, 2] + [1.0] * 4 + [0.0, 0, 1, 0] + [0.0] * 4)
    batch = agent.with_advantages(replace(batch, rewards=at_last(paid, batch.mask)))
    differ = torch.tensor([1.0] * 4 + [0.0] * 4 + [1.0] * 4 + [0.0] * 4).unsqueeze(1)
    wanted = batch.mask * differ / (batch.mask * differ).sum()
    torch.testing.assert_close(batch.weights, wanted)
    plain = GRPO(policy, samples=4, aggregate=per_token, kl=0.0).with_advantages(batch)
    torch.testing.assert_close(plain.weights, batch.mask / batch.mask.sum())


def test_every_epoch_has_an_order_of_its_own(tiny: Any) -> None:
    env, policy = tiny(rows=16)
    agent = PPO(policy, epochs=3, minibatches=2)
    batch = agent.collect(env)
    marks = batch.log_probs.sum(1) + 10 * batch.context["index"]
    order: list[Any] = []
    honest: Any = agent.loss
    agent.loss = lambda part: order.append(part.log_probs.sum(1)) or honest(part)  # type: ignore
    agent.update(batch)
    epochs = [torch.cat(order[2 * n : 2 * n + 2]) for n in range(3)]
    assert all(len(epoch) == len(marks) for epoch in epochs)
    for a, b in ((0, 1), (1, 2), (0, 2)):
        assert not torch.equal(epochs[a], epochs[b])
        torch.testing.assert_close(epochs[a].sort().values, epochs[b].sort().values)


def test_an_update_of_plain_descent_follows_the_gradient_clipped(tiny: Any) -> None:
    env, policy = tiny(rows=16)
    for clip_norm in (1e9, 1e-3):
        agent = REINFORCE(policy, baseline=none, clip_norm=clip_norm)
        agent.optimizer = torch.optim.SGD(policy.parameters(), 0.5)
        batch = agent.collect(env)
        log_probs = policy.evaluate(batch.actions, batch.context).log_probs
        returns = batch.rewards.flip(1).cumsum(1).flip(1)
        loss = -(returns * log_probs * batch.mask).sum() / 16
        grads = torch.autograd.grad(loss, list(policy.parameters()), allow_unused=True)
        slopes = [
            torch.zeros_like(p) if g is None else g for g, p in zip(grads, policy.parameters(), strict=True)
        ]
        slope = torch.cat([g.flatten() for g in slopes])
        before = weights(policy)
        agent.update(batch)
        scale = min(1.0, clip_norm / float(slope.norm()))
        torch.testing.assert_close(weights(policy) - before, -0.5 * scale * slope, rtol=1e-3, atol=2e-7)


def test_each_text_is_compared_with_the_greedy_text_of_its_own_context(tiny: Any) -> None:
    env, policy = tiny(rows=16)
    agent = SCST(policy, samples=4)
    for _ in range(4):
        batch = agent.collect(env)
        items = batch.context["index"]
        best = rollout(policy, env.replace(), decode=Greedy(), index=items).returns
        assert batch.greedy is not None
        torch.testing.assert_close(batch.greedy, best)
        if len(set(items.tolist())) > 1 and len(set(best.tolist())) > 1:
            return
    pytest.fail("all contexts were alike")


def test_a_regression_comes_nearer_to_the_returns_that_it_has_seen(tiny: Any) -> None:
    env, policy = tiny(rows=64)
    agent = REINFORCE(policy, baseline=Regression(), lr=1e-9)
    batch = agent.collect(env)
    returns = batch.rewards.flip(1).cumsum(1).flip(1)
    errors = []
    for _ in range(10):
        gap = (agent.baseline(returns, batch) - returns)[batch.mask]
        errors.append(float(gap.square().mean()))
        agent.update(batch)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0]


def test_completions_credit_an_action_only_with_what_comes_from_it_on(tiny: Any) -> None:
    """Where every token is paid, the last action is worth its own reward, not that of the whole text."""
    env, policy = tiny(rows=16)
    env.parts = {"dense": lambda tokens, mask, context: (tokens + 1.0) * mask}
    batch = REINFORCE(policy, credit=Completions(2), baseline=none).collect(env)
    assert batch.credit is not None
    assert (batch.lengths > 1).any()
    torch.testing.assert_close(batch.credit[batch.ends], batch.rewards[batch.ends])


@pytest.mark.parametrize(("moved", "factor"), [(0.1, 2.0), (0.01, 1.0), (0.001, 0.5)])
def test_the_price_of_ppo_kl_rises_where_the_policy_went_too_far(moved: float, factor: float) -> None:
    price = AdaptiveKL(target=0.01, beta=3.0)
    price.learn(torch.tensor(moved))
    assert price.beta.item() == 3.0 * factor
