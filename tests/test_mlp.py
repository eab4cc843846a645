"""The policy without memory: π and V of an observation, for choices and for vectors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, Normal, kl_divergence

import rlseq
from rlseq.adapters.gym_env import GymEnv
from rlseq.engine.rollout import evaluate_actions
from rlseq.policies.mlp import MLP, ControlSpec, Trunks
from rlseq.policies.normalize import RunningNorm
from rlseq.policy_gradient.penalties import full_kl, l2_logits
from rlseq.types import Behaviour

CHOICES, VECTORS = ControlSpec(3, 4, False), ControlSpec(3, 2, True)
OBSERVED = torch.randn(5, 6, 3, generator=torch.Generator().manual_seed(1))


def strong(policy: MLP) -> MLP:
    """Away from uniform and from σ = 1, where mistakes could hide."""
    with torch.no_grad():
        policy.actor.weight.mul_(300)
        for name, p in policy.actor.named_parameters():
            if name != "weight":
                p.uniform_(-1, 1)
    return policy


def actions_of(signals: ControlSpec) -> Tensor:
    if signals.continuous:
        return torch.randn(5, 6, signals.actions)
    return torch.randint(signals.actions, (5, 6))


def distribution(policy: MLP, temperature: float = 1.0) -> Any:
    """By torch.distributions, from `step`."""
    said = policy.step(OBSERVED.flatten(0, 1), ())[0].unflatten(0, (5, 6))  # type: ignore[no-untyped-call]
    if said.ndim == 3:
        return Categorical(logits=said / temperature)
    mean, log_std = said.unbind(2)
    return Independent(Normal(mean, log_std.exp() * temperature**0.5), 1)


@pytest.mark.parametrize("signals", [CHOICES, VECTORS])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_evaluate_scores_what_step_says(signals: ControlSpec, temperature: float) -> None:
    policy, actions = strong(MLP(signals, value=True)), actions_of(signals)
    seen = policy.evaluate(actions, {"observation": OBSERVED}, Behaviour(temperature))
    wanted = distribution(policy, temperature)
    torch.testing.assert_close(seen.log_probs, wanted.log_prob(actions))
    torch.testing.assert_close(seen.entropy, wanted.entropy())
    assert seen.values is not None
    assert seen.values.shape == (5, 6)
    if not signals.continuous:
        assert seen.top is not None
        torch.testing.assert_close(seen.top, wanted.probs.amax(-1))


@pytest.mark.parametrize("signals", [CHOICES, VECTORS])
def test_divergence_has_a_closed_form(signals: ControlSpec) -> None:
    a, b = strong(MLP(signals)), strong(MLP(signals))
    actions = actions_of(signals)
    one, other = (policy.evaluate(actions, {"observation": OBSERVED}) for policy in (a, b))
    wanted = kl_divergence(distribution(a), distribution(b))
    assert wanted.min() > 0.01
    torch.testing.assert_close(full_kl(one, other), wanted)
    full_kl(one, other).sum().backward()  # type: ignore[no-untyped-call]
    assert a.actor.weight.grad is not None


def test_what_a_gaussian_cannot_say_is_refused() -> None:
    seen = MLP(VECTORS).evaluate(actions_of(VECTORS), {"observation": OBSERVED})
    with pytest.raises(TypeError, match="closed forms"):
        l2_logits(seen)
    other = MLP(CHOICES).evaluate(actions_of(CHOICES), {"observation": OBSERVED})
    with pytest.raises(TypeError, match="different kinds"):
        full_kl(seen, other)
    with pytest.raises(TypeError, match="different kinds"):
        full_kl(other, seen)


def test_logits_can_be_looked_at() -> None:
    policy = strong(MLP(CHOICES))
    seen = policy.evaluate(actions_of(CHOICES), {"observation": OBSERVED})
    logits = policy.step(OBSERVED.flatten(0, 1), ())[0]
    torch.testing.assert_close(l2_logits(seen).flatten(), logits.square().mean(1))


def test_trunks_are_perceptrons_side_by_side() -> None:
    trunks, x = Trunks(2, 3, 8, 2), torch.randn(10, 3)
    for k, got in enumerate(trunks(x)):
        alone = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())
        with torch.no_grad():
            for layer in (0, 1):
                weight, bias = (trunks.get_parameter(f"{layer}.{name}") for name in ("weight", "bias"))
                bias.uniform_(-1, 1)
                alone.get_parameter(f"{2 * layer}.weight").copy_(weight[k].t())
                alone.get_parameter(f"{2 * layer}.bias").copy_(bias[k, 0])
        torch.testing.assert_close(trunks(x)[k], alone(x))
        assert got.shape == (10, 8)


@pytest.mark.parametrize("shared", [True, False])
def test_trunks_are_shared_when_asked(shared: bool) -> None:
    policy = strong(MLP(CHOICES, value=True, shared=shared))

    def values() -> Tensor:
        seen = policy.evaluate(actions_of(CHOICES), {"observation": OBSERVED}).values
        assert seen is not None
        return seen

    before = values()
    seen = policy.evaluate(actions_of(CHOICES), {"observation": OBSERVED})
    seen.log_probs.sum().backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for p in policy.trunks.parameters():
            p.sub_(torch.zeros_like(p) if p.grad is None else 0.1 * p.grad)
    assert torch.allclose(values(), before) is not shared


def test_a_standard_of_parts_is_that_of_the_whole() -> None:
    x, standard = 3 + 2 * torch.randn(100, 4), RunningNorm(4)
    torch.testing.assert_close(standard(x[:1]), x[:1].clamp(-10, 10))  # before it has seen anything
    for part in (x[:1], x[1:31], x[31:]):
        standard.update_statistics(part)
    standard.update_statistics(x[:0])
    torch.testing.assert_close(standard.mean.float(), x.mean(0))
    torch.testing.assert_close(standard(x).std(0, correction=0), torch.ones(4))
    assert standard(x + 1e6).max() == 10


def test_the_scale_moves_after_an_update_and_is_kept() -> None:
    env = GymEnv("Pendulum-v1", 4, steps=20)
    policy = rlseq.make_policy("mlp", env, value=True, standardise=True)
    agent = rlseq.make_agent("ppo", policy, epochs=3, lr=1e-9)
    for _ in range(3):
        batch = agent.collect(env)
        before = evaluate_actions(policy, batch).log_probs
        torch.testing.assert_close(before, batch.log_probs, atol=1e-5, rtol=0)  # the first ratio is 1
        metrics = agent.update(batch)
        assert metrics["ratio_max"] < 1 + 1e-4  # and none moves but by learning
    assert policy.scale.count == 240
    assert not torch.allclose(evaluate_actions(policy, batch).log_probs, before, atol=1e-4)
    other = rlseq.make_policy("mlp", env, value=True, standardise=True)
    other.load_state_dict(policy.state_dict())
    seen = evaluate_actions(other, batch)
    assert torch.equal(seen.log_probs, evaluate_actions(policy, batch).log_probs)


def test_an_evaluation_leaves_the_scale_alone() -> None:
    env = GymEnv("CartPole-v1", 4, steps=20)
    policy = rlseq.make_policy("mlp", env, standardise=True)
    rlseq.evaluate(policy, env, limit=4)
    rlseq.rollout(policy, env)
    assert policy.scale.count == 0


def test_seeds_make_the_same_weights_whatever_is_drawn_beside() -> None:
    env = GymEnv("CartPole-v1", seed=3)
    one, other = (rlseq.make_policy("mlp", env, value=True) for _ in range(2))
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_sizes_are_checked() -> None:
    env = GymEnv("CartPole-v1")
    with pytest.raises(TypeError, match="did you mean 'standardise'"):
        rlseq.make_policy("mlp", env, standardize=True)
    with pytest.raises(ValueError, match="layers"):
        rlseq.make_policy("mlp", env, layers=0)
