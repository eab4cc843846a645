"""Every estimator against the exact gradient, and agents that learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

import rlseq
from rlseq.agents.reinforce import REINFORCE
from rlseq.engine import rescore
from rlseq.policy_gradient import PolicyGradient
from rlseq.types import Context, Rollout

ROWS, BATCHES = 64, 500
ALPHA = 1e-4  # an honest estimator fails a test this often; the wrong ones below fail it surely


def flat(grads: dict[str, Tensor]) -> Tensor:
    return torch.cat([g.flatten() for g in grads.values()]).double()


def dense(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    """Paid at every token, and dependent on the prefix: what reward-to-go is for."""
    return (tokens.cumsum(1) % 3).float() - 0.5


def setting(reward: Callable[..., Tensor] | None = None) -> tuple[Any, Any]:
    env = rlseq.make("rlseq/Enumerable-v0", num_envs=ROWS, sources=2, length=3, vocab_size=3)
    if reward is not None:
        env.parts = {"dense": reward}
    policy = rlseq.make_policy("lstm", env, hidden=4, embedding=3)
    with torch.no_grad():
        for p in policy.parameters():
            p.mul_(3)  # away from uniform, where mistakes could hide
    return env, policy


def estimates(agent: PolicyGradient, env: Any, batches: int = BATCHES) -> Tensor:
    """Gradients of the objective from independent batches, `[batches, parameters]`."""
    rows = []
    for _ in range(batches):
        agent.policy.zero_grad(set_to_none=False)
        batch = agent.judged(agent.collect(env))
        loss, _ = agent.loss(batch)
        if hasattr(agent.baseline, "learn"):
            agent.baseline.learn(batch.targets, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        rows.append(torch.cat([-p.grad.flatten() for p in agent.policy.parameters()]).double())
    return torch.stack(rows)


def p_value(samples: Tensor, exact: Tensor) -> float:
    """Hotelling's test that the mean is the exact gradient, along the 8 directions that vary most.

    The statistic is n·δᵀΣ⁻¹δ, which is χ²(8) for an unbiased estimator; the directions come from one half of
    the batches, the test from the other.
    """
    half = len(samples) // 2
    _, _, directions = torch.linalg.svd(samples[:half] - samples[:half].mean(0), full_matrices=False)
    exact_direction = exact / exact.norm()
    basis = torch.linalg.qr(torch.cat([exact_direction.unsqueeze(0), directions[:7]]).t())[0]
    error = (samples[half:] - exact) @ basis
    statistic = half * error.mean(0) @ torch.linalg.solve(error.t().cov(), error.mean(0))
    return float(chi2.sf(float(statistic), basis.shape[1]))


@pytest.mark.parametrize("reward", [None, dense], ids=["terminal", "dense"])
@pytest.mark.parametrize("baseline", ["none", "mean", "moving_average"])
def test_reinforce_estimates_the_exact_gradient(baseline: str, reward: Any) -> None:
    env, policy = setting(reward)
    exact = flat(rlseq.exact.gradient(policy, env))
    samples = estimates(REINFORCE(policy, baseline=baseline), env)
    assert p_value(samples, exact) > ALPHA


def test_reinforce_under_temperature_estimates_the_gradient_of_what_acts() -> None:
    from rlseq.types import Behaviour

    env, policy = setting()
    exact = flat(rlseq.exact.gradient(policy, env, Behaviour(temperature=2.0)))
    samples = estimates(REINFORCE(policy, decode=rlseq.Sample(2.0)), env)
    assert p_value(samples, exact) > ALPHA
    assert p_value(samples, flat(rlseq.exact.gradient(policy, env))) < ALPHA


@dataclass(eq=False)
class ImmediateReward(REINFORCE):
    """Wrong: an action is credited only with what it is paid at once (SCOPE A12)."""

    credit: Any = "immediate"


class WrongSign(REINFORCE):
    """Wrong: goes downhill."""

    def advantages(self, returns: Tensor, batch: Rollout) -> Tensor:
        return -super().advantages(returns, batch)


class ShiftedMask(REINFORCE):
    """Wrong: the last action is forgotten."""

    def loss(self, batch: Rollout) -> Any:
        batch = self.judged(batch)
        return super().loss(replace(batch, weights=batch.weights * ~batch.ends))


class OwnRewardAsBaseline(REINFORCE):
    """Wrong: the baseline has seen the action that it judges."""

    def advantages(self, returns: Tensor, batch: Rollout) -> Tensor:
        return returns - 0.3 * returns.square()


@dataclass(eq=False)
class TokenMean(REINFORCE):
    """Biased: the mean over tokens weighs a text by its batch's length."""

    aggregate: Any = "per_token"


@pytest.mark.parametrize("wrong", [ImmediateReward, WrongSign, ShiftedMask, OwnRewardAsBaseline, TokenMean])
def test_a_wrong_estimator_fails_the_same_test(wrong: type[REINFORCE]) -> None:
    env, policy = setting()
    exact = flat(rlseq.exact.gradient(policy, env))
    assert p_value(estimates(wrong(policy, baseline="none"), env), exact) < ALPHA


def test_baselines_lower_the_variance() -> None:
    env, policy = setting()
    env.parts = {"shifted": lambda t, m, c: env.look_up(t, m, c) + 5}
    variance = {
        name: float(estimates(REINFORCE(policy, baseline=name), env, 200).var(0).sum())
        for name in ("none", "mean", "moving_average")
    }
    assert variance["mean"] < 0.2 * variance["none"]
    assert variance["moving_average"] < 0.2 * variance["none"]


def test_a_policy_whose_second_look_disagrees_is_stopped() -> None:
    env, policy = setting()
    honest = policy.evaluate
    policy.evaluate = lambda actions, *rest: honest(actions.roll(1, 1), *rest)
    agent = rlseq.make_agent("reinforce", policy)
    before = flat(dict(policy.named_parameters()))
    with pytest.raises(RuntimeError, match="`evaluate` disagrees with its `step`"):
        agent.update(agent.collect(env))
    assert torch.equal(flat(dict(policy.named_parameters())), before)


def test_the_entropy_bonus_raises_entropy() -> None:
    env, policy = setting()
    env.parts = {"nothing": lambda t, m, c: torch.zeros(len(t))}

    def entropy() -> float:
        batch = rlseq.rollout(policy, env)
        return float(rescore(policy, batch).entropy.detach()[batch.mask].mean())

    before = entropy()
    rlseq.train(rlseq.make_agent("reinforce", policy, lr=1e-2, entropy=0.1), env, updates=60)
    assert entropy() > before + 0.1


def test_reinforce_climbs_the_exact_objective() -> None:
    env, policy = setting()
    before = float(rlseq.exact.objective(policy, env))
    rlseq.train(rlseq.make_agent("reinforce", policy, lr=2e-2), env, updates=150)
    best = float(env.table.max(1).values.mean())
    assert before < 0.5 * best
    assert float(rlseq.exact.objective(policy, env)) > 0.8 * best


def test_mle_learns_to_copy() -> None:
    env = rlseq.make("rlseq/Copy-v0", num_envs=128, vocab_size=5, length=3)
    policy = rlseq.make_policy("gru", env, hidden=32, embedding=16)
    agent = rlseq.make_agent("mle", policy, lr=5e-3)
    history = rlseq.train(agent, env, updates=200)
    assert history[-1]["nll"] < 0.1 * history[0]["nll"]
    assert rlseq.evaluate(policy, env, limit=500)["reward"] > 0.95


@pytest.mark.parametrize(
    ("name", "hyper", "error", "message"),
    [
        ("reinforc", {}, ValueError, "unknown agent 'reinforc'; did you mean 'reinforce'"),
        ("reinforce", {"entropi": 1}, TypeError, "no option 'entropi'; did you mean 'entropy'"),
        ("reinforce", {"baseline": "meen"}, ValueError, "unknown baseline 'meen'; did you mean 'mean'"),
        ("mle", {"lr": 0.0}, ValueError, "lr and clip_norm must be > 0"),
    ],
)
def test_mistakes_in_making_an_agent(name: str, hyper: Any, error: Any, message: str) -> None:
    _, policy = setting()
    with pytest.raises(error, match=message):
        rlseq.make_agent(name, policy, **hyper)


@pytest.mark.parametrize("decode", [rlseq.Beam(3), "sample"])
def test_only_samples_may_train(decode: Any) -> None:
    _, policy = setting()
    with pytest.raises(TypeError, match="no samples of the policy"):
        rlseq.make_agent("reinforce", policy, decode=decode)


def test_a_policy_that_cannot_score_what_acted_is_told_so() -> None:
    env, policy = setting()
    honest = policy.evaluate
    policy.evaluate = lambda actions, context: honest(actions, context)
    agent = rlseq.make_agent("reinforce", policy)
    agent.update(agent.collect(env))
    tempered = rlseq.make_agent("reinforce", policy, decode=rlseq.Sample(0.5))
    with pytest.raises(TypeError, match="let it take `behaviour` too"):
        tempered.update(tempered.collect(env))
