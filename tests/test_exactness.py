"""The mean gradient of every estimator, over every batch that can be sampled, against the exact gradient.

`rlseq.exact.expected_gradient` leaves no noise, so these are equalities, and what is wrong fails for certain.
That agents sample what is enumerated here is the business of test_collect.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

import rlseq
from rlseq.agents import (
    A2C,
    GRPO,
    PPO,
    REINFORCE,
    RLOO,
    SCST,
    DrGRPO,
    MRTCorrected,
)
from rlseq.policy_gradient.baselines import (
    BASELINES,
    ConstantBaseline,
    Factor,
    GreedyReturn,
    group_mean,
    leave_one_out,
    none,
    past_rewards,
)
from rlseq.policy_gradient.credit import Increments, Lambda, NStep, Stepwise, immediate, reward_to_go
from rlseq.policy_gradient.exact import every_batch, expected_gradient, gradient, mean_gradient
from rlseq.policy_gradient.factors import as_it_is
from rlseq.policy_gradient.losses import per_sequence, per_token
from rlseq.types import Behaviour, Context, Evaluation, LearningBatch, Rollout

EQUAL, WRONG = 1e-4, 0.02  # relative errors: rounding stays below the one, no mistake below the other
OTHERS = ("group_mean", "length_weighted", "optimal_token", "optimal_value")  # biased: they hold the text
ELSEWHERE = ("completed_value",)  # needs completions: test_variants.py


def dense(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    """Paid at every token, and dependent on the prefix: what reward-to-go is for."""
    return ((tokens.cumsum(1) % 3).float() - 0.5) * mask


def taught(agent: Any, env: Any) -> Any:
    """An agent whose baseline has learned from a batch, where it can."""
    if isinstance(agent.baseline, Factor):
        batch = agent.with_advantages(agent.collect(env))
        agent.baseline.learn(batch.targets, batch)
    return agent


# ── the score function: any baseline, any credit that says what an action is worth ───────────────────────


@pytest.mark.parametrize("sources", [0, 2])
@pytest.mark.parametrize("reward", [None, dense], ids=["terminal", "dense"])
@pytest.mark.parametrize(
    "baseline", [*(name for name in BASELINES if name not in (*OTHERS, *ELSEWHERE)), ConstantBaseline(0.7)]
)
def test_baselines_leave_the_gradient_alone(tiny: Any, baseline: Any, reward: Any, sources: int) -> None:
    env, policy = tiny(sources=sources)
    env.parts = env.parts if reward is None else {"dense": reward}
    samples = 2 if baseline == "leave_one_out" else 1
    hyper = {"baseline": baseline, "samples": samples, "value_weight": 0.0}
    agent = taught(rlseq.make_agent("reinforce", policy, **hyper), env)
    assert tiny.error(expected_gradient(agent, env, rows=2), gradient(policy, env)) < EQUAL


@pytest.mark.parametrize("reward", [None, dense], ids=["terminal", "dense"])
def test_a_mean_that_holds_the_text_itself_shrinks_the_gradient(tiny: Any, reward: Any) -> None:
    env, policy = tiny(vocab_size=2)
    env.parts = env.parts if reward is None else {"dense": reward}
    for samples in (2, 3):
        agent = REINFORCE(policy, baseline=group_mean, samples=samples)
        share = (samples - 1) / samples
        assert tiny.error(expected_gradient(agent, env), gradient(policy, env), share) < EQUAL


@pytest.mark.parametrize("agent", [SCST, RLOO, DrGRPO, MRTCorrected])
def test_agents_that_follow_the_expected_reward(tiny: Any, agent: Any) -> None:
    """Up to the constants that they state: (K−1)/K where the mean holds the text itself, 1/T in Dr. GRPO."""
    env, policy = tiny(vocab_size=2)
    for samples in (2, 3):
        share = {DrGRPO: (samples - 1) / samples / env.max_len, MRTCorrected: (samples - 1) / samples}
        made = agent(policy, samples=samples)
        assert tiny.error(expected_gradient(made, env), gradient(policy, env), share.get(agent, 1.0)) < EQUAL


def test_several_groups_in_a_batch(tiny: Any) -> None:
    env, policy = tiny(vocab_size=2, length=2)
    assert tiny.error(expected_gradient(RLOO(policy, samples=2), env, rows=4), gradient(policy, env)) < EQUAL


@pytest.mark.parametrize("decode", [rlseq.Sample(2.0), rlseq.Sample(top_k=2), rlseq.Sample(0.8, top_p=0.8)])
def test_the_gradient_is_that_of_the_distribution_that_acts(tiny: Any, decode: Any) -> None:
    env, policy = tiny()
    agent = SCST(policy, decode=decode)
    batch, _ = every_batch(agent, env, 1)
    support = batch.behaviour.support
    exact = gradient(policy, env, Behaviour(decode.temperature, support))
    assert tiny.error(expected_gradient(agent, env), exact) < EQUAL
    assert tiny.error(expected_gradient(agent, env), gradient(policy, env)) > WRONG


@pytest.mark.parametrize("credit", [Lambda(1.0), NStep(3), "reward_to_go"])
@pytest.mark.parametrize("baseline", ["value", "none"])
def test_returns_to_the_end_are_unbiased_whatever_v_says(tiny: Any, credit: Any, baseline: str) -> None:
    env, policy = tiny()
    env.parts = {"dense": dense, "table": env.look_up}
    agent = rlseq.make_agent("a2c", policy, credit=credit, baseline=baseline, value_weight=0.0)
    assert tiny.error(expected_gradient(agent, env), gradient(policy, env)) < EQUAL


@pytest.mark.parametrize("credit", [Lambda(0.0), Lambda(0.95), NStep(1), NStep(2)])
def test_returns_cut_short_by_v_are_as_good_as_v(tiny: Any, credit: Any) -> None:
    env, policy = tiny()
    agent = A2C(policy, credit=credit, value_weight=0.0)
    batch, chance = every_batch(agent, env, 1)
    assert tiny.error(mean_gradient(agent, batch, chance), gradient(policy, env)) > WRONG, "V is no good"
    whole = tiny.whole(policy, env)
    right = replace(batch, values=whole.of(batch, whole.states_worth()))
    assert tiny.error(mean_gradient(agent, right, chance), gradient(policy, env)) < EQUAL, "V is exact"


def test_increments_of_a_metric_pay_its_gradient(tiny: Any) -> None:
    """Φ of the whole text is what the task pays, Φ of prefixes anything."""
    env, policy = tiny()
    potential = torch.randn(env.size, 200, generator=torch.Generator().manual_seed(1))

    def increments(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        code = ((tokens + 1) * mask * 4 ** torch.arange(3)).cumsum(1)
        phi = potential[context["index"].unsqueeze(1), code]
        last = mask.sum(1, keepdim=True) - 1
        phi = phi.scatter(1, last, env.look_up(tokens, mask, context).unsqueeze(1))
        return torch.diff(phi, prepend=torch.zeros(len(tokens), 1)) * mask

    agent = REINFORCE(policy, credit=Increments(increments), baseline=GreedyReturn())
    assert tiny.error(expected_gradient(agent, env), gradient(policy, env)) < EQUAL


def test_a_judge_of_prefixes_that_knows_q_gives_the_gradient(tiny: Any) -> None:
    env, policy = tiny()
    whole = tiny.whole(policy, env)
    worth = whole.actions_worth().detach()

    def scorer(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        same = (tokens.unsqueeze(1) == whole.tokens).all(2)
        same &= context["index"].unsqueeze(1) == whole.index
        known: Tensor = worth[same.int().argmax(1)]
        return known

    agent = REINFORCE(policy, credit=Stepwise(scorer), baseline=none)
    assert tiny.error(expected_gradient(agent, env), gradient(policy, env)) < EQUAL


def test_a_discount_needs_its_weight_to_be_the_gradient_of_anything(tiny: Any) -> None:
    """∇ E Σ γᵗrₜ weighs the action at t by γᵗ; as everybody, agents leave that out (Thomas 2014)."""
    env, policy = tiny()
    env.parts = {"dense": dense}
    gamma = 0.5
    discounted = {"dense": lambda *text: dense(*text) * gamma ** torch.arange(3)}
    agents = [
        REINFORCE(policy, gamma=gamma, baseline=none, aggregate=way)
        for way in (lambda mask: per_sequence(mask) * gamma ** torch.arange(3), per_sequence)
    ]
    with_weight, without = (expected_gradient(agent, env) for agent in agents)
    env.parts = discounted
    assert tiny.error(with_weight, gradient(policy, env)) < EQUAL
    assert tiny.error(without, gradient(policy, env)) > WRONG


@pytest.mark.parametrize(("length", "exact"), [(1, True), (3, False)])
def test_samples_of_an_older_policy(tiny: Any, length: int, exact: bool) -> None:
    """E_old[ρ R ∇log π] = ∇ E_π[R] for one action; of texts, the ratio of prefixes is dropped (SCOPE R12)."""
    env, policy = tiny(length=length, sharp=1.0)
    agent = PPO(policy, baseline=none, credit=reward_to_go, scale=as_it_is, clip=1e9, value_weight=0.0)
    batch, chance = every_batch(agent, env, 1)
    mean_gradient(agent, batch, chance)  # the first ratio is looked at here
    policy.load_state_dict(tiny.policy(env, sharp=2.0, seed=1).state_dict())
    bias = tiny.error(mean_gradient(agent, batch, chance), gradient(policy, env))
    assert bias < EQUAL if exact else bias > WRONG


# ── what is wrong fails ──────────────────────────────────────────────────────────────────────────────────


class WrongSign(RLOO):
    """Goes downhill."""

    def advantages(self, returns: Tensor, batch: Rollout) -> Tensor:
        return -super().advantages(returns, batch)


class ShiftedMask(RLOO):
    """The last action of every text is forgotten, and one before the first is not there."""

    def token_weights(self, batch: Rollout) -> Tensor:
        return per_sequence(batch.mask & ~batch.ends)


class OwnRewardInTheBaseline(RLOO):
    """The baseline has seen the action that it judges."""

    def advantages(self, returns: Tensor, batch: Rollout) -> Tensor:
        return returns - (0.7 * returns[:, :1].view(-1, 2).mean(1).repeat_interleave(2).unsqueeze(1))


class ForgetsWhatIsPaid(RLOO):
    """Reward-to-go is one action late: it misses what the action itself is paid."""

    def advantages(self, returns: Tensor, batch: Rollout) -> Tensor:
        return super().advantages(returns - batch.rewards, batch)


class GradientThroughTheBaseline(A2C):
    """V in the advantage is not held fixed."""

    def surrogate(self, seen: Evaluation, batch: LearningBatch) -> Tensor:
        assert seen.values is not None
        return -(batch.targets - seen.values) * seen.log_probs


class RatioUpsideDown(GRPO):
    """Π_old / π."""

    def surrogate(self, seen: Evaluation, batch: LearningBatch) -> Tensor:
        return -(batch.log_probs - seen.log_probs).exp() * batch.advantages


@dataclass(eq=False)
class TokenMean(RLOO):
    """The mean over tokens weighs a text by its batch's length."""

    aggregate: Any = per_token


@dataclass(eq=False)
class ImmediateReward(RLOO):
    """An action is credited only with what it is paid at once (SCOPE A12)."""

    credit: Any = immediate


@dataclass(eq=False)
class WholeEpisodeIsNotWrong(RLOO):
    """All of R for every action, what was paid before it too: not wrong, only noisier."""

    def advantages(self, returns: Tensor, batch: Rollout) -> Tensor:
        return super().advantages(returns, batch) + past_rewards(batch)


@pytest.mark.parametrize(
    ("agent", "wrong"),
    [
        (WrongSign, True),
        (ShiftedMask, True),
        (OwnRewardInTheBaseline, True),
        (ForgetsWhatIsPaid, True),
        (GradientThroughTheBaseline, True),
        (RatioUpsideDown, True),
        (TokenMean, True),
        (ImmediateReward, True),
        (WholeEpisodeIsNotWrong, False),
    ],
)
def test_a_wrong_estimator_fails(tiny: Any, agent: Any, wrong: bool) -> None:
    env, policy = tiny()
    env.parts = {"dense": dense, "table": env.look_up}
    hyper: dict[str, Any] = {"samples": 2, "value_weight": 0.0}
    if agent is GradientThroughTheBaseline:
        hyper |= {"samples": 1, "lam": 1.0}
    if agent is RatioUpsideDown:
        hyper |= {"kl": 0.0, "scale": as_it_is, "aggregate": per_sequence, "baseline": leave_one_out}
    bias = tiny.error(expected_gradient(agent(policy, **hyper), env), gradient(policy, env))
    assert bias > WRONG if wrong else bias < EQUAL


@pytest.mark.parametrize(
    "hyper", [{"entropy": 0.3}, {"l2": 0.3}, {"kl": 0.3}, {"kl_reward": 0.3}, {"mle": 0.3}], ids=str
)
def test_a_penalty_that_is_forgotten_is_missed(tiny: Any, hyper: Any) -> None:
    """Each changes the gradient by far more than tests allow, so that none could be lost."""
    env, policy = tiny()
    if set(hyper) & {"kl", "kl_reward"}:
        hyper = {"reference": tiny.policy(env, seed=1).requires_grad_(False), **hyper}
    without = expected_gradient(REINFORCE(policy), env)
    assert tiny.error(expected_gradient(REINFORCE(policy, **hyper), env), without) > WRONG


def test_what_cannot_be_enumerated_is_refused(tiny: Any) -> None:
    env, policy = tiny()
    with pytest.raises(ValueError, match=r"1,518,750 batches of 5 rows.*take fewer"):
        expected_gradient(RLOO(policy, samples=5), env)
    with pytest.raises(ValueError, match="in groups of 2 cannot be enumerated"):
        expected_gradient(RLOO(policy, samples=2), env, rows=3)
