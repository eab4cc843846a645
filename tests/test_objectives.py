"""Agents that follow an objective of their own, and penalties: what they follow is enumerated group by group.

What follows the expected reward is in test_exactness.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import rlseq
from rlseq.agents import (
    A2C,
    DAPO,
    GRPO,
    MIXER,
    MRT,
    PPO,
    PPOKL,
    REINFORCE,
)
from rlseq.agents.mixer import _given
from rlseq.engine.rollout import evaluate_actions
from rlseq.policy_gradient import returns
from rlseq.policy_gradient.baselines import Factor, GreedyReturn
from rlseq.policy_gradient.exact import every_batch, expected_gradient, gradient, mean_gradient
from rlseq.policy_gradient.losses import per_sequence
from rlseq.types import Context

EQUAL, WRONG = 1e-4, 0.02  # relative errors: rounding stays below the one, no mistake below the other
Loss = Callable[[list[Tensor], list[float], list[int]], Tensor]


def dense(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    """Paid at every token, and dependent on the prefix: what reward-to-go is for."""
    return ((tokens.cumsum(1) % 3).float() - 0.5) * mask


def nothing(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    return torch.zeros(len(tokens))


def taught(agent: Any, env: Any) -> Any:
    """An agent whose baseline has learned from a batch, where it can."""
    if isinstance(agent.baseline, Factor):
        batch = agent.with_advantages(agent.collect(env))
        agent.baseline.learn(batch.targets, batch)
    return agent


def over_groups(tiny: Any, policy: Any, env: Any, samples: int, objective: Loss) -> dict[str, Tensor]:
    """∇ Σ p(group) · objective(log p of each text, return, length), groups held fixed; one by one."""
    whole = tiny.whole(policy, env)
    log_p, returns = whole.log_p.view(whole.shape), whole.rewards.sum(1).view(whole.shape).tolist()
    lengths = whole.mask.sum(1).view(whole.shape).tolist()
    total = torch.zeros(())
    for item in range(env.size):
        for group in torch.cartesian_prod(*[torch.arange(whole.shape[1])] * samples).tolist():
            chance = log_p[item, group].detach().sum().exp() / env.size
            total = total + chance * objective(
                [log_p[item, k] for k in group],
                [returns[item][k] for k in group],
                [lengths[item][k] for k in group],
            )
    slopes: dict[str, Tensor] = whole.slopes(policy, total)
    return slopes


# ── objectives of their own ──────────────────────────────────────────────────────────────────────────────


def standardised(rewards: list[float]) -> list[float]:
    mean = sum(rewards) / len(rewards)
    spread = (sum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1)) ** 0.5
    return [(r - mean) / (spread + 1e-4) for r in rewards]


def test_grpo_follows_its_advantage_over_what_it_was_per_token(tiny: Any) -> None:
    env, policy = tiny(vocab_size=2)

    def objective(log_p: list[Tensor], rewards: list[float], lengths: list[int]) -> Tensor:
        scores = standardised(rewards)
        return sum((a * p / n for a, p, n in zip(scores, log_p, lengths, strict=True)), torch.zeros(())) / 3

    agent = GRPO(policy, samples=3, kl=0.0)
    got = expected_gradient(agent, env)
    assert tiny.error(got, over_groups(tiny, policy, env, 3, objective)) < EQUAL
    assert tiny.error(got, gradient(policy, env)) > WRONG


def test_grpo_of_two_texts_follows_the_chance_to_win(tiny: Any) -> None:
    """With K = 2 the standard deviation leaves only the sign: does a text beat an older self?

    √½ · (P(R > R′) − P(R < R′)) with R′ of the policy as it was, once lengths do not count.
    """
    env, policy = tiny()
    whole = tiny.whole(policy, env)
    rewards, old = whole.rewards.sum(1).view(whole.shape), whole.chance.view(whole.shape) * env.size
    beats = (rewards.unsqueeze(2) - rewards.unsqueeze(1)).sign()
    wins = (beats * old.unsqueeze(1)).sum(2)
    objective = (whole.log_p.view(whole.shape).exp() * wins).sum() / env.size * 0.5**0.5
    agent = GRPO(policy, samples=2, kl=0.0, aggregate=per_sequence)
    assert tiny.error(expected_gradient(agent, env), whole.slopes(policy, objective)) < 10 * EQUAL  # s + 10⁻⁴


def test_dapo_leaves_equal_groups_out_of_its_mean_over_tokens(tiny: Any) -> None:
    env, policy = tiny()
    env.parts = {"long": lambda tokens, mask, context: (mask.sum(1) > 1).float()}

    def objective(log_p: list[Tensor], rewards: list[float], lengths: list[int]) -> Tensor:
        if len(set(rewards)) == 1:
            return torch.zeros(())
        scores = standardised(rewards)
        return sum((a * p for a, p in zip(scores, log_p, strict=True)), torch.zeros(())) / sum(lengths)

    agent = DAPO(policy, samples=2)
    assert tiny.error(expected_gradient(agent, env), over_groups(tiny, policy, env, 2, objective)) < EQUAL


@pytest.mark.parametrize("sharpness", [0.005, 1.0])
def test_mrt_follows_the_risk_of_its_samples(tiny: Any, sharpness: float) -> None:
    env, policy = tiny()

    def objective(log_p: list[Tensor], rewards: list[float], lengths: list[int]) -> Tensor:
        weights = [(sharpness * p).exp() for p in log_p]
        return (
            sum((w * r for w, r in zip(weights, rewards, strict=True)), torch.zeros(()))
            / torch.stack(weights).sum()
        )

    agent = MRT(policy, samples=2, sharpness=sharpness)
    got = expected_gradient(agent, env)
    assert tiny.error(got, over_groups(tiny, policy, env, 2, objective)) < EQUAL
    with_baseline = MRT(policy, samples=2, sharpness=sharpness, baseline=GreedyReturn())
    assert tiny.error(expected_gradient(with_baseline, env), got) < EQUAL, "Q sums to 1"
    another = tiny.error(got, gradient(policy, env), sharpness / 2)
    assert another > WRONG if sharpness == 1 else another < EQUAL, (
        "α (K−1)/K of the expected reward's as α → 0"
    )


def test_one_step_of_ppo_follows_whitened_advantages(tiny: Any) -> None:
    """Of each batch Σ (Aₜ − mean) / s ∇log π over its tokens, A = G^λ − V, mean and s over all of them."""
    env, policy = tiny(vocab_size=2)
    whole = tiny.whole(policy, env)
    values = evaluate_actions(policy, every_batch(A2C(policy), env, 1)[0]).values
    assert values is not None
    values = values.detach()
    ends = torch.zeros_like(whole.mask).scatter(1, whole.mask.sum(1, keepdim=True) - 1, True)
    advantages = returns.lambda_return(whole.rewards, values, ends, lam=0.95) - values
    total = torch.zeros(())
    for i in range(len(whole.tokens)):
        for j in range(len(whole.tokens)):
            two, mask = advantages[[i, j]], whole.mask[[i, j]]
            spread = two[mask].std(correction=0)
            scores = (two - two[mask].mean()) / (spread + 1e-8)
            score = (scores * mask * whole.log_probs[[i, j]]).sum() / 2
            total = total + whole.chance[i] * whole.chance[j] * score
    for agent in (PPO(policy, value_weight=0.0), PPOKL(policy, value_weight=0.0)):
        assert tiny.error(expected_gradient(agent, env, rows=2), whole.slopes(policy, total)) < EQUAL


@pytest.mark.parametrize("given", [0, 1, 2, 3])
def test_mixer_mixes_likelihood_and_reward_at_every_s(tiny: Any, given: int) -> None:
    env, policy = tiny()
    agent = MIXER(policy, xent_share=0.25, delta=1, xent_weight=0.3)
    agent.set_progress(0.99)
    agent = taught(agent, env)
    agent.set_progress(0.25 * (3 - given))
    assert int(_given(agent.collect(env)).sum(1).max()) == given
    whole = tiny.whole(policy, env)
    start = torch.arange(3) < given
    reference = env.items["references"][whole.index, 0]
    agrees = ((whole.tokens == reference) | ~start).all(1)
    written = whole.mask & ~start
    on = (whole.log_probs * written).sum(1)
    # What is enumerated stands for what `collect` gathers: the prefix of the reference, and any way to go on.
    batch, _ = every_batch(REINFORCE(policy), env, 1)
    batch = agent.prepare(replace(batch, demonstrations=replace(batch, mask=start & batch.mask)), env)
    got = mean_gradient(agent, batch, agrees * on.detach().exp() / env.size)

    likelihood = (
        (whole.log_probs * start).sum(1)[(whole.tokens == reference).all(1)].sum() / env.size / max(given, 1)
    )
    reward = (agrees * on.exp() * whole.rewards.sum(1)).sum() / env.size
    share = {0: 0.0, 3: 1.0}.get(given, 0.3)
    assert tiny.error(got, whole.slopes(policy, share * likelihood + (1 - share) * reward)) < EQUAL


# ── what keeps a policy in place ─────────────────────────────────────────────────────────────────────────


def penalty(tiny: Any, **hyper: Any) -> tuple[Any, dict[str, Tensor], Any, Any]:
    """The gradient of a penalty alone, where nothing is paid; the policy; and the reference policy."""
    env, policy = tiny()
    env.parts = {"nothing": nothing}
    anchor = tiny.policy(env, sharp=2.0, seed=1).requires_grad_(False)
    reference = {"reference": anchor} if "kl" in str(hyper) else {}
    agent = rlseq.make_agent("reinforce", policy, baseline="none", **reference, **hyper)
    return policy, expected_gradient(agent, env), tiny.whole(policy, env), tiny.whole(anchor, env)


def per_state(whole: Any, values: Tensor) -> Tensor:
    """Σₜ of a function of states, over texts held fixed."""
    total: Tensor = (whole.chance.unsqueeze(1) * whole.mask * values).sum()
    return total


def divergence(p: Any, q: Any) -> Tensor:
    """KL(p ‖ q) in every state."""
    log_p, log_q = p.logits.log_softmax(2), q.logits.log_softmax(2)
    apart: Tensor = (log_p.exp() * (log_p - log_q)).sum(2)
    return apart


def test_the_entropy_bonus_is_of_the_states_visited(tiny: Any) -> None:
    policy, got, ours, _ = penalty(tiny, entropy=0.3)
    log_p = ours.logits.log_softmax(2)
    assert tiny.error(got, ours.slopes(policy, 0.3 * per_state(ours, -(log_p.exp() * log_p).sum(2)))) < EQUAL


def test_the_penalty_on_logits(tiny: Any) -> None:
    policy, got, ours, _ = penalty(tiny, l2=0.3)
    assert tiny.error(got, ours.slopes(policy, -0.3 * per_state(ours, ours.logits.square().mean(2)))) < EQUAL


@pytest.mark.parametrize("estimate", ["full_kl", "k2"])
def test_the_divergence_in_the_loss_is_of_the_states_visited(tiny: Any, estimate: str) -> None:
    policy, got, ours, anchor = penalty(tiny, kl=0.3, divergence=estimate)
    assert tiny.error(got, ours.slopes(policy, -0.3 * per_state(ours, divergence(ours, anchor)))) < EQUAL


def test_k3_in_the_loss_is_the_other_divergence(tiny: Any) -> None:
    policy, got, ours, anchor = penalty(tiny, kl=0.3, divergence="k3")
    assert tiny.error(got, ours.slopes(policy, -0.3 * per_state(ours, divergence(anchor, ours)))) < EQUAL
    assert tiny.error(got, ours.slopes(policy, -0.3 * per_state(ours, divergence(ours, anchor)))) > WRONG


def test_k1_in_the_loss_does_nothing(tiny: Any) -> None:
    _, got, _, _ = penalty(tiny, kl=0.3, divergence="k1")
    assert max(float(grad.abs().max()) for grad in got.values()) < 1e-6


def test_k1_in_the_reward_is_the_divergence_of_whole_texts(tiny: Any) -> None:
    policy, got, ours, anchor = penalty(tiny, kl_reward=0.3)
    whole = (ours.log_p.exp() * (ours.log_p - anchor.log_p)).sum() / 2
    assert tiny.error(got, ours.slopes(policy, -0.3 * whole)) < EQUAL
    _, in_the_loss, _, _ = penalty(tiny, kl=0.3)
    assert tiny.error(in_the_loss, got) > WRONG, "which counts where the policy goes, too"


def test_a_share_of_likelihood(tiny: Any) -> None:
    env, policy = tiny()
    agent = REINFORCE(policy, mle=0.3, baseline=GreedyReturn())
    whole = tiny.whole(policy, env)
    told = (whole.tokens == env.items["references"][whole.index, 0]).all(1)
    reward = (whole.log_p.exp() * whole.rewards.sum(1)).sum() / env.size
    objective = reward + 0.3 * whole.log_p[told].sum() / (3 * env.size)  # a mean over tokens
    assert tiny.error(expected_gradient(agent, env), whole.slopes(policy, objective)) < EQUAL


def test_v_learns_the_return(tiny: Any) -> None:
    """−½ E Σₜ (V − Gₜ)², at states held fixed; it reaches the trunk, too."""
    env, policy = tiny()
    env.parts = {"dense": dense}
    batch, chance = every_batch(A2C(policy, lam=1.0), env, 1)
    values = evaluate_actions(policy, batch).values
    assert values is not None
    to_go = batch.rewards.flip(1).cumsum(1).flip(1)
    loss = (chance.unsqueeze(1) * batch.mask * (values - to_go).square() / 2).sum()
    wanted = tiny.whole(policy, env).slopes(policy, -0.7 * loss)
    with_v, without = (
        expected_gradient(A2C(policy, lam=1.0, value_weight=weight), env) for weight in (0.7, 0.0)
    )
    assert tiny.error({name: with_v[name] - without[name] for name in with_v}, wanted) < EQUAL
