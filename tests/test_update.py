"""Whole updates: what is judged before it is learned, which rows count, in which order they are learned."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import rlseq
from rlseq.agents import DAPO, GRPO, PPO, REINFORCE, SCST
from rlseq.agents.grpo import returns_differ
from rlseq.agents.ppo import AdaptiveKL
from rlseq.engine.decode import Greedy
from rlseq.engine.rollout import rollout
from rlseq.policy_gradient.baselines import GreedyReturn, MovingAverage, Regression, none
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


def test_dapo_draws_groups_without_a_gradient_again(tiny: Any) -> None:
    """Groups that differ stay as they were; the others are written anew, and all that is written counts."""
    env, policy = tiny(rows=16)
    env.parts = {"ends": lambda tokens, mask, context: (mask.sum(1) == 1).float()}  # many groups are equal
    random = env.generator.get_state()
    first = DAPO(policy, samples=2).collect(env)
    kept = returns_differ(first)
    assert 0 < int(kept.sum()) < 16
    before = env.counts.as_dict()["tokens"]
    env.generator.set_state(random)
    batch = DAPO(policy, samples=2, draws=60).collect(env)
    assert returns_differ(batch).all()
    for name in ("actions", "log_probs", "rewards"):
        assert torch.equal(getattr(batch, name)[kept], getattr(first, name)[kept])
    assert torch.equal(batch.context["index"][::2], batch.context["index"][1::2])
    evaluated = policy.evaluate(batch.actions, batch.context).log_probs * batch.mask
    torch.testing.assert_close(evaluated, batch.log_probs, atol=1e-5, rtol=0)
    written = env.counts.as_dict()["tokens"] - before
    assert written > int(batch.mask.sum())
    assert env.counts.as_dict()["episodes"] > 32


def test_drawing_again_keeps_the_gradient_that_groups_have(tiny: Any) -> None:
    """With p the share of equal groups, D draws give the gradient of one draw times (1 − pᴰ) / (1 − p)."""
    env, policy = tiny(rows=2)
    env.parts = {"ends": lambda tokens, mask, context: (mask.sum(1) == 1).float()}
    gradients, equal, rows = [], 0.0, 4000
    for draws in (1, 3):
        agent: Any = DAPO(policy, samples=2, draws=draws)
        wide = env.replace(num_envs=rows, generator=torch.Generator().manual_seed(draws))
        batch = agent.with_advantages(agent.collect(wide))
        if draws == 1:
            equal = 1 - float(returns_differ(batch).float().mean())
        per_group = replace(batch, weights=batch.mask / (rows / 2))  # a sum over tokens, a mean over groups
        policy.zero_grad()
        loss: Any = agent.loss(per_group)[0]
        loss.backward()
        total = torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])
        gradients.append(total)
    wanted = gradients[0] * (1 - equal**3) / (1 - equal)
    assert 0.2 < equal < 0.8
    assert float((gradients[1] - wanted).norm() / wanted.norm()) < 0.15


@pytest.mark.parametrize("masked", [False, True])
def test_texts_in_place_of_others_keep_what_was_allowed(tiny: Any, masked: bool) -> None:
    env, policy = tiny(rows=4)
    one, two = (rlseq.rollout(policy, env) for _ in range(2))
    support = torch.rand(4, one.mask.shape[1], len(env.vocab)) > 0.3
    if masked:
        two = replace(two, behaviour=two.behaviour._replace(support=support))
    rows = torch.tensor([1, 3])
    found: Any = one.put(rows, two.take(rows))
    assert torch.equal(found.actions[[0, 2]], one.actions[[0, 2]])
    assert torch.equal(found.actions[rows], two.actions[rows])
    assert torch.equal(found.context["index"][rows], two.context["index"][rows])
    if masked:
        assert torch.equal(found.behaviour.support[rows], support[rows])
        assert found.behaviour.support[[0, 2]].all()
    else:
        assert found.behaviour == one.behaviour


def test_dapo_charges_texts_that_come_near_the_longest(tiny: Any) -> None:
    """Yu et al. 2025, eq. 13: 0 up to T − margin, −1 at T, linear between them."""
    env, policy = tiny(rows=16)
    env.parts = {"nothing": lambda tokens, mask, context: torch.zeros(len(tokens))}
    batch = DAPO(policy, samples=2, overlong=2).collect(env)
    over = (batch.lengths - (env.max_len - 2)).clamp(min=0) / 2
    torch.testing.assert_close(batch.returns, -over)
    assert set(env.parts) == {"nothing"}  # the task itself pays what it did
    with pytest.raises(ValueError, match=r"overlong=9 is longer than the task's longest text of \d tokens"):
        DAPO(policy, samples=2, overlong=9).check(env)


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
    """It is written in the batch of the samples, or after them where an agent writes in its own way."""
    env, policy = tiny(rows=16)
    agent = SCST(policy, samples=4)
    for _ in range(4):
        batch = agent.collect(env)
        items = batch.context["index"]
        best = rollout(policy, env.replace(), decode=Greedy(), index=items).returns
        after = GreedyReturn().prepare(replace(batch, greedy=None), policy, env)
        for greedy in (batch.greedy, after.greedy):
            assert greedy is not None
            torch.testing.assert_close(greedy, best)
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
