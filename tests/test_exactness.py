"""The mean gradient of every estimator, over every batch that can be sampled, against the exact gradient.

`rlseq.exact.expected_gradient` leaves no noise, so these are equalities, and what is wrong fails for certain.
That agents sample what is enumerated here is the business of test_collect.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

import rlseq
from rlseq import returns
from rlseq.agents import (
    A2C,
    DAPO,
    GRPO,
    MIXER,
    MRT,
    PPO,
    PPOKL,
    REINFORCE,
    RLOO,
    SCST,
    DrGRPO,
    MRTCorrected,
)
from rlseq.baselines import Constant, paid
from rlseq.credit import Increments, Lambda, NStep, Stepwise
from rlseq.engine import rescore
from rlseq.exact import every_batch, expected_gradient, gradient, mean_gradient, texts
from rlseq.factors import BASELINES
from rlseq.losses import per_sequence
from rlseq.types import Behaviour, Context, Evaluation, Rollout

EQUAL, WRONG = 1e-4, 0.02  # relative errors: rounding stays below the one, no mistake below the other
Loss = Callable[[list[Tensor], list[float], list[int]], Tensor]


def flat(grads: dict[str, Tensor]) -> Tensor:
    return torch.cat([g.flatten() for g in grads.values()]).double()


def error(got: dict[str, Tensor], wanted: dict[str, Tensor], scale: float = 1.0) -> float:
    """How far a gradient is from `scale` times another, relatively."""
    return float((flat(got) - scale * flat(wanted)).norm() / (scale * flat(wanted)).norm())


def dense(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    """Paid at every token, and dependent on the prefix: what reward-to-go is for."""
    return ((tokens.cumsum(1) % 3).float() - 0.5) * mask


def nothing(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    return torch.zeros(len(tokens))


def taught(agent: Any, env: Any) -> Any:
    """An agent whose baseline has learned from a batch, where it can."""
    if hasattr(agent.baseline, "learn"):
        batch = agent.judged(agent.collect(env))
        agent.baseline.learn(batch.targets, batch)
    return agent


class Whole:
    """Every text of every context, one row each, and what the policy makes of it token by token."""

    def __init__(self, policy: Any, env: Any) -> None:
        words, mask = texts(env)
        self.tokens, self.mask = words.repeat(env.size, 1), mask.repeat(env.size, 1)
        self.index = torch.arange(env.size).repeat_interleave(len(words))
        self.context = {**env.contexts(self.index), "index": self.index}
        self.shape = env.size, len(words)
        self.rewards = torch.stack(list(env.judge(self.tokens, self.mask, self.context).values())).sum(0)
        self.logits = self.walk(policy, env)
        self.log_probs = self.logits.log_softmax(2).gather(2, self.tokens.unsqueeze(2)).squeeze(2) * self.mask
        self.log_p = self.log_probs.sum(1)
        self.chance = self.log_p.detach().exp() / env.size

    def walk(self, policy: Any, env: Any) -> Tensor:
        """Logits `[B, T, V]`, by `step`."""
        state, token, all_logits = policy.start(self.context), torch.full_like(self.index, env.vocab.bos), []
        for t in range(env.max_len):
            logits, state = policy.step(token, state)
            all_logits.append(logits)
            token = self.tokens[:, t]
        return torch.stack(all_logits, 1)

    def actions_worth(self) -> Tensor:
        """Q(y₍₁…ₜ₋₁₎, yₜ) `[B, T]` of terminal rewards: the mean over all texts that begin so."""
        rows = []
        for i in range(len(self.tokens)):
            same = (self.tokens == self.tokens[i]).cumprod(1) * (self.index == self.index[i]).unsqueeze(1)
            weight = same * self.chance.unsqueeze(1)
            rows.append((weight * self.rewards.sum(1, keepdim=True)).sum(0) / weight.sum(0))
        return torch.stack(rows)

    def states_worth(self) -> Tensor:
        """V(y₍₁…ₜ₋₁₎) `[B, T]`."""
        first = (self.chance * self.rewards.sum(1)).view(self.shape).sum(1) * self.shape[0]
        return torch.cat([first[self.index].unsqueeze(1), self.actions_worth()[:, :-1]], 1)

    def of(self, batch: Rollout, values: Tensor) -> Tensor:
        """Values of these texts, for the texts of a batch."""
        same = (batch.actions.unsqueeze(1) == self.tokens).all(2)
        same &= batch.context["index"].unsqueeze(1) == self.index
        return values[same.int().argmax(1)]

    def slopes(self, policy: Any, objective: Tensor) -> dict[str, Tensor]:
        """Its gradient."""
        named = dict(policy.named_parameters())
        grads = torch.autograd.grad(objective, list(named.values()), retain_graph=True, allow_unused=True)
        pairs = zip(named.items(), grads, strict=True)
        return {name: torch.zeros_like(p) if grad is None else grad for (name, p), grad in pairs}


def over_groups(policy: Any, env: Any, samples: int, objective: Loss) -> dict[str, Tensor]:
    """∇ Σ p(group) · objective(log p of each text, return, length), groups held fixed; one by one."""
    whole = Whole(policy, env)
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
    return whole.slopes(policy, total)


# ── the score function: any baseline, any credit that says what an action is worth ───────────────────────


@pytest.mark.parametrize("sources", [0, 2])
@pytest.mark.parametrize("reward", [None, dense], ids=["terminal", "dense"])
@pytest.mark.parametrize("baseline", [*(name for name in BASELINES if name != "group_mean"), Constant(0.7)])
def test_baselines_leave_the_gradient_alone(tiny: Any, baseline: Any, reward: Any, sources: int) -> None:
    env, policy = tiny(sources=sources)
    env.parts = env.parts if reward is None else {"dense": reward}
    samples = 2 if baseline == "leave_one_out" else 1
    agent = taught(REINFORCE(policy, baseline=baseline, samples=samples, value_weight=0.0), env)
    assert error(expected_gradient(agent, env, rows=2), gradient(policy, env)) < EQUAL


@pytest.mark.parametrize("reward", [None, dense], ids=["terminal", "dense"])
def test_a_mean_that_holds_the_text_itself_shrinks_the_gradient(tiny: Any, reward: Any) -> None:
    env, policy = tiny(vocab_size=2)
    env.parts = env.parts if reward is None else {"dense": reward}
    for samples in (2, 3):
        agent = REINFORCE(policy, baseline="group_mean", samples=samples)
        share = (samples - 1) / samples
        assert error(expected_gradient(agent, env), gradient(policy, env), share) < EQUAL


@pytest.mark.parametrize("agent", [SCST, RLOO, DrGRPO, MRTCorrected])
def test_agents_that_follow_the_expected_reward(tiny: Any, agent: Any) -> None:
    """Up to the constants that they state: (K−1)/K where the mean holds the text itself, 1/T in Dr. GRPO."""
    env, policy = tiny(vocab_size=2)
    for samples in (2, 3):
        share = {DrGRPO: (samples - 1) / samples / env.max_len, MRTCorrected: (samples - 1) / samples}
        made = agent(policy, samples=samples)
        assert error(expected_gradient(made, env), gradient(policy, env), share.get(agent, 1.0)) < EQUAL


def test_several_groups_in_a_batch(tiny: Any) -> None:
    env, policy = tiny(vocab_size=2, length=2)
    assert error(expected_gradient(RLOO(policy, samples=2), env, rows=4), gradient(policy, env)) < EQUAL


@pytest.mark.parametrize("decode", [rlseq.Sample(2.0), rlseq.Sample(top_k=2), rlseq.Sample(0.8, top_p=0.8)])
def test_the_gradient_is_that_of_the_distribution_that_acts(tiny: Any, decode: Any) -> None:
    env, policy = tiny()
    agent = SCST(policy, decode=decode)
    batch, _ = every_batch(agent, env, 1)
    support = batch.behaviour.support
    exact = gradient(policy, env, Behaviour(decode.temperature, support))
    assert error(expected_gradient(agent, env), exact) < EQUAL
    assert error(expected_gradient(agent, env), gradient(policy, env)) > WRONG


@pytest.mark.parametrize("credit", [Lambda(1.0), NStep(3), "reward_to_go"])
@pytest.mark.parametrize("baseline", ["value", "none"])
def test_returns_to_the_end_are_unbiased_whatever_v_says(tiny: Any, credit: Any, baseline: str) -> None:
    env, policy = tiny()
    env.parts = {"dense": dense, "table": env.look_up}
    agent = A2C(policy, credit=credit, baseline=baseline, value_weight=0.0)
    assert error(expected_gradient(agent, env), gradient(policy, env)) < EQUAL


@pytest.mark.parametrize("credit", [Lambda(0.0), Lambda(0.95), NStep(1), NStep(2)])
def test_returns_cut_short_by_v_are_as_good_as_v(tiny: Any, credit: Any) -> None:
    env, policy = tiny()
    agent = A2C(policy, credit=credit, value_weight=0.0)
    batch, chance = every_batch(agent, env, 1)
    assert error(mean_gradient(agent, batch, chance), gradient(policy, env)) > WRONG, "V is no good"
    whole = Whole(policy, env)
    right = replace(batch, values=whole.of(batch, whole.states_worth()))
    assert error(mean_gradient(agent, right, chance), gradient(policy, env)) < EQUAL, "V is exact"


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

    agent = REINFORCE(policy, credit=Increments(increments), baseline="greedy")
    assert error(expected_gradient(agent, env), gradient(policy, env)) < EQUAL


def test_a_judge_of_prefixes_that_knows_q_gives_the_gradient(tiny: Any) -> None:
    env, policy = tiny()
    whole = Whole(policy, env)
    worth = whole.actions_worth().detach()

    def scorer(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        same = (tokens.unsqueeze(1) == whole.tokens).all(2)
        same &= context["index"].unsqueeze(1) == whole.index
        return worth[same.int().argmax(1)]

    agent = REINFORCE(policy, credit=Stepwise(scorer), baseline="none")
    assert error(expected_gradient(agent, env), gradient(policy, env)) < EQUAL


def test_a_discount_needs_its_weight_to_be_the_gradient_of_anything(tiny: Any) -> None:
    """∇ E Σ γᵗrₜ weighs the action at t by γᵗ; as everybody, agents leave that out (Thomas 2014)."""
    env, policy = tiny()
    env.parts = {"dense": dense}
    gamma = 0.5
    discounted = {"dense": lambda *text: dense(*text) * gamma ** torch.arange(3)}
    agents = [
        REINFORCE(policy, gamma=gamma, baseline="none", aggregate=way)
        for way in (lambda mask: per_sequence(mask) * gamma ** torch.arange(3), per_sequence)
    ]
    with_weight, without = (expected_gradient(agent, env) for agent in agents)
    env.parts = discounted
    assert error(with_weight, gradient(policy, env)) < EQUAL
    assert error(without, gradient(policy, env)) > WRONG


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
    assert error(got, over_groups(policy, env, 3, objective)) < EQUAL
    assert error(got, gradient(policy, env)) > WRONG


def test_grpo_of_two_texts_follows_the_chance_to_win(tiny: Any) -> None:
    """With K = 2 the standard deviation leaves only the sign: does a text beat an older self?

    √½ · (P(R > R′) − P(R < R′)) with R′ of the policy as it was, once lengths do not count.
    """
    env, policy = tiny()
    whole = Whole(policy, env)
    rewards, old = whole.rewards.sum(1).view(whole.shape), whole.chance.view(whole.shape) * env.size
    beats = (rewards.unsqueeze(2) - rewards.unsqueeze(1)).sign()
    wins = (beats * old.unsqueeze(1)).sum(2)
    objective = (whole.log_p.view(whole.shape).exp() * wins).sum() / env.size * 0.5**0.5
    agent = GRPO(policy, samples=2, kl=0.0, aggregate="per_sequence")
    assert error(expected_gradient(agent, env), whole.slopes(policy, objective)) < 10 * EQUAL  # s + 10⁻⁴


def test_dapo_leaves_equal_groups_out_of_its_mean_over_tokens(tiny: Any) -> None:
    env, policy = tiny()
    env.parts = {"long": lambda tokens, mask, context: (mask.sum(1) > 1).float()}

    def objective(log_p: list[Tensor], rewards: list[float], lengths: list[int]) -> Tensor:
        if len(set(rewards)) == 1:
            return torch.zeros(())
        scores = standardised(rewards)
        return sum((a * p for a, p in zip(scores, log_p, strict=True)), torch.zeros(())) / sum(lengths)

    agent = DAPO(policy, samples=2)
    assert error(expected_gradient(agent, env), over_groups(policy, env, 2, objective)) < EQUAL


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
    assert error(got, over_groups(policy, env, 2, objective)) < EQUAL
    with_baseline = MRT(policy, samples=2, sharpness=sharpness, baseline="greedy")
    assert error(expected_gradient(with_baseline, env), got) < EQUAL, "Q sums to 1"
    another = error(got, gradient(policy, env), sharpness / 2)
    assert another > WRONG if sharpness == 1 else another < EQUAL, (
        "α (K−1)/K of the expected reward's as α → 0"
    )


def test_one_step_of_ppo_follows_whitened_advantages(tiny: Any) -> None:
    """Of each batch Σ (Aₜ − mean) / s ∇log π over its tokens, A = G^λ − V, mean and s over all of them."""
    env, policy = tiny(vocab_size=2)
    whole = Whole(policy, env)
    values = rescore(policy, every_batch(A2C(policy), env, 1)[0]).values
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
        assert error(expected_gradient(agent, env, rows=2), whole.slopes(policy, total)) < EQUAL


@pytest.mark.parametrize("given", [0, 1, 2, 3])
def test_mixer_mixes_likelihood_and_reward_at_every_s(tiny: Any, given: int) -> None:
    env, policy = tiny()
    agent = taught(MIXER(policy, xent_updates=0, stage_updates=1, delta=1, xent_weight=0.3), env)
    agent.schedule.updates += 2 - given  # s = T − Δ · (updates + 1)
    if given == 3:
        agent = MIXER(policy, xent_updates=1, xent_weight=0.3)
    assert agent.forced(3) == given
    whole = Whole(policy, env)
    start = torch.arange(3) < given
    reference = env.items["references"][whole.index, 0]
    agrees = ((whole.tokens == reference) | ~start).all(1)
    written = whole.mask & ~start
    on = (whole.log_probs * written).sum(1)
    # What is enumerated stands for what `collect` gathers: the prefix of the reference, and any way to go on.
    batch, _ = every_batch(REINFORCE(policy), env, 1)
    batch = agent.enriched(replace(batch, lesson=replace(batch, mask=start & batch.mask)), env)
    got = mean_gradient(agent, batch, agrees * on.detach().exp() / env.size)

    likelihood = (
        (whole.log_probs * start).sum(1)[(whole.tokens == reference).all(1)].sum() / env.size / max(given, 1)
    )
    reward = (agrees * on.exp() * whole.rewards.sum(1)).sum() / env.size
    share = {0: 0.0, 3: 1.0}.get(given, 0.3)
    assert error(got, whole.slopes(policy, share * likelihood + (1 - share) * reward)) < EQUAL


# ── what keeps a policy in place ─────────────────────────────────────────────────────────────────────────


def penalty(tiny: Any, **hyper: Any) -> tuple[Any, dict[str, Tensor], Whole, Whole]:
    """The gradient of a penalty alone, where nothing is paid; the policy; and the reference policy."""
    env, policy = tiny()
    env.parts = {"nothing": nothing}
    anchor = tiny.policy(env, sharp=2.0, seed=1).requires_grad_(False)
    agent = REINFORCE(
        policy, baseline="none", **({"reference": anchor} if "kl" in str(hyper) else {}), **hyper
    )
    return policy, expected_gradient(agent, env), Whole(policy, env), Whole(anchor, env)


def per_state(whole: Whole, values: Tensor) -> Tensor:
    """Σₜ of a function of states, over texts held fixed."""
    total: Tensor = (whole.chance.unsqueeze(1) * whole.mask * values).sum()
    return total


def divergence(p: Whole, q: Whole) -> Tensor:
    """KL(p ‖ q) in every state."""
    log_p, log_q = p.logits.log_softmax(2), q.logits.log_softmax(2)
    return (log_p.exp() * (log_p - log_q)).sum(2)


def test_the_entropy_bonus_is_of_the_states_visited(tiny: Any) -> None:
    policy, got, ours, _ = penalty(tiny, entropy=0.3)
    log_p = ours.logits.log_softmax(2)
    assert error(got, ours.slopes(policy, 0.3 * per_state(ours, -(log_p.exp() * log_p).sum(2)))) < EQUAL


def test_the_penalty_on_logits(tiny: Any) -> None:
    policy, got, ours, _ = penalty(tiny, l2=0.3)
    assert error(got, ours.slopes(policy, -0.3 * per_state(ours, ours.logits.square().mean(2)))) < EQUAL


@pytest.mark.parametrize("estimate", ["exact", "k2"])
def test_the_divergence_in_the_loss_is_of_the_states_visited(tiny: Any, estimate: str) -> None:
    policy, got, ours, anchor = penalty(tiny, kl=0.3, divergence=estimate)
    assert error(got, ours.slopes(policy, -0.3 * per_state(ours, divergence(ours, anchor)))) < EQUAL


def test_k3_in_the_loss_is_the_other_divergence(tiny: Any) -> None:
    policy, got, ours, anchor = penalty(tiny, kl=0.3, divergence="k3")
    assert error(got, ours.slopes(policy, -0.3 * per_state(ours, divergence(anchor, ours)))) < EQUAL
    assert error(got, ours.slopes(policy, -0.3 * per_state(ours, divergence(ours, anchor)))) > WRONG


def test_k1_in_the_loss_does_nothing(tiny: Any) -> None:
    _, got, _, _ = penalty(tiny, kl=0.3, divergence="k1")
    assert float(flat(got).norm()) < 1e-6


def test_k1_in_the_reward_is_the_divergence_of_whole_texts(tiny: Any) -> None:
    policy, got, ours, anchor = penalty(tiny, kl_reward=0.3)
    whole = (ours.log_p.exp() * (ours.log_p - anchor.log_p)).sum() / 2
    assert error(got, ours.slopes(policy, -0.3 * whole)) < EQUAL
    _, in_the_loss, _, _ = penalty(tiny, kl=0.3)
    assert error(in_the_loss, got) > WRONG, "which counts where the policy goes, too"


def test_a_share_of_likelihood(tiny: Any) -> None:
    env, policy = tiny()
    agent = REINFORCE(policy, mle=0.3, baseline="greedy")
    whole = Whole(policy, env)
    told = (whole.tokens == env.items["references"][whole.index, 0]).all(1)
    reward = (whole.log_p.exp() * whole.rewards.sum(1)).sum() / env.size
    objective = reward + 0.3 * whole.log_p[told].sum() / (3 * env.size)  # a mean over tokens
    assert error(expected_gradient(agent, env), whole.slopes(policy, objective)) < EQUAL


def test_v_learns_the_return(tiny: Any) -> None:
    """−½ E Σₜ (V − Gₜ)², at states held fixed; it reaches the trunk, too."""
    env, policy = tiny()
    env.parts = {"dense": dense}
    batch, chance = every_batch(A2C(policy, lam=1.0), env, 1)
    values = rescore(policy, batch).values
    assert values is not None
    to_go = batch.rewards.flip(1).cumsum(1).flip(1)
    loss = (chance.unsqueeze(1) * batch.mask * (values - to_go).square() / 2).sum()
    wanted = Whole(policy, env).slopes(policy, -0.7 * loss)
    with_v, without = (
        expected_gradient(A2C(policy, lam=1.0, value_weight=weight), env) for weight in (0.7, 0.0)
    )
    assert error({name: with_v[name] - without[name] for name in with_v}, wanted) < EQUAL


# ── what is wrong fails ──────────────────────────────────────────────────────────────────────────────────


class WrongSign(RLOO):
    """Goes downhill."""

    def advantages(self, returns: Tensor, batch: Rollout) -> Tensor:
        return -super().advantages(returns, batch)


class ShiftedMask(RLOO):
    """The last action of every text is forgotten, and one before the first is not there."""

    def weighed(self, batch: Rollout) -> Rollout:
        return replace(batch, weights=per_sequence(batch.mask & ~batch.ends))


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

    def surrogate(self, seen: Evaluation, batch: Rollout) -> Tensor:
        assert seen.values is not None
        return -(batch.targets - seen.values) * seen.log_probs


class RatioUpsideDown(GRPO):
    """Π_old / π."""

    def surrogate(self, seen: Evaluation, batch: Rollout) -> Tensor:
        return -(batch.log_probs - seen.log_probs).exp() * batch.advantages


@dataclass(eq=False)
class TokenMean(RLOO):
    """The mean over tokens weighs a text by its batch's length."""

    aggregate: Any = "per_token"


@dataclass(eq=False)
class ImmediateReward(RLOO):
    """An action is credited only with what it is paid at once (SCOPE A12)."""

    credit: Any = "immediate"


@dataclass(eq=False)
class WholeEpisodeIsNotWrong(RLOO):
    """All of R for every action, what was paid before it too: not wrong, only noisier."""

    def advantages(self, returns: Tensor, batch: Rollout) -> Tensor:
        return super().advantages(returns, batch) + paid(batch)


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
        hyper |= {"kl": 0.0, "scale": "none", "aggregate": "per_sequence", "baseline": "leave_one_out"}
    bias = error(expected_gradient(agent(policy, **hyper), env), gradient(policy, env))
    assert bias > WRONG if wrong else bias < EQUAL


@pytest.mark.parametrize(
    "hyper", [{"entropy": 0.3}, {"l2": 0.3}, {"kl": 0.3}, {"kl_reward": 0.3}, {"mle": 0.3}], ids=str
)
def test_a_penalty_that_is_forgotten_is_missed(tiny: Any, hyper: Any) -> None:
    """Each changes the gradient by far more than tests allow, so that none could be lost."""
    env, policy = tiny()
    hyper = {"reference": tiny.policy(env, seed=1).requires_grad_(False), **hyper}
    without = expected_gradient(REINFORCE(policy), env)
    assert error(expected_gradient(REINFORCE(policy, **hyper), env), without) > WRONG


def test_what_cannot_be_enumerated_is_refused(tiny: Any) -> None:
    env, policy = tiny()
    with pytest.raises(ValueError, match=r"1,518,750 batches of 5 rows.*take fewer"):
        expected_gradient(RLOO(policy, samples=5), env)
    with pytest.raises(ValueError, match="in groups of 2 cannot be enumerated"):
        expected_gradient(RLOO(policy, samples=2), env, rows=3)
