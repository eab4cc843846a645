"""The dictionary of equivalences: what goes by two names gives one gradient, to rounding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import rlseq
from rlseq.agents import (
    A2C,
    AGENTS,
    GRPO,
    MIXER,
    MLE,
    PGBLEU,
    PPO,
    PPOKL,
    REINFORCE,
    RLOO,
    SCST,
    Adversarial,
    DrGRPO,
    Dual,
    MRTCorrected,
)
from rlseq.engine.references import sample_references
from rlseq.engine.rollout import evaluate_actions, rollout
from rlseq.policy_gradient.agent import handed_over
from rlseq.policy_gradient.algorithm import PolicyGradient
from rlseq.policy_gradient.baselines import Regression
from rlseq.policy_gradient.factors import as_it_is, by_batch
from rlseq.policy_gradient.losses import AGGREGATES, per_sequence
from rlseq.types import Rollout

GRADIENTS = sorted(
    name
    for name, agent in AGENTS.items()  # those that bring a reward of their own have tests of their own
    if issubclass(agent, PolicyGradient) and not issubclass(agent, (Adversarial, Dual, PGBLEU))
)


def slope(agent: Any, batch: Rollout) -> Tensor:
    """Gradient of the loss of a batch."""
    agent.policy.zero_grad(set_to_none=True)
    agent.loss(batch)[0].backward()
    return gradient_of(agent)


def gradient_of(agent: Any) -> Tensor:
    """The gradient that stands in the parameters."""
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in agent.policy.parameters()]
    return torch.cat([grad.flatten() for grad in grads])


def same(a: Tensor, b: Tensor, factor: float = 1.0) -> bool:
    assert float(a.norm()) > 1e-4, "nothing is compared"
    return bool((a - factor * b).abs().max() <= 1e-5 * a.abs().max())


def by_hand(agent: Any, loss: Tensor) -> Tensor:
    grads = torch.autograd.grad(loss, list(agent.policy.parameters()), allow_unused=True)
    return torch.cat(
        [
            (torch.zeros_like(p) if grad is None else grad).flatten()
            for p, grad in zip(agent.policy.parameters(), grads, strict=True)
        ]
    )


def test_scst_is_remax(tiny: Any) -> None:
    """ReMax: −(R(y) − R(ŷ)) log π(y), ŷ the greedy response (Li et al. 2024, algorithm 1)."""
    env, policy = tiny(rows=40)
    agent = SCST(policy, samples=2)
    batch = agent.collect(env)
    greedy = rollout(policy, env, decode=rlseq.Greedy(), index=batch.context["index"])
    log_p = (evaluate_actions(policy, batch).log_probs * batch.mask).sum(1)
    remax = -((batch.rewards.sum(1) - greedy.rewards.sum(1)) * log_p).mean()
    assert same(slope(agent, batch), by_hand(agent, remax))


def test_rloo_is_new_self_critical(tiny: Any) -> None:
    """Of ImageCaptioning.pytorch: the baseline of each of n captions is the mean score of the others."""
    env, policy = tiny(rows=40)
    agent = RLOO(policy, samples=5)
    batch = agent.collect(env)
    scores = batch.returns.view(-1, 5)
    baseline = (scores.sum(1, keepdim=True) - scores) / 4
    log_p = (evaluate_actions(policy, batch).log_probs * batch.mask).sum(1).view(-1, 5)
    assert same(slope(agent, batch), by_hand(agent, -((scores - baseline) * log_p).mean()))


@pytest.mark.parametrize("n", [2, 4, 8])
def test_grpo_without_the_spread_is_rloo_but_for_a_factor(tiny: Any, n: int) -> None:
    env, policy = tiny(rows=40)
    rloo = RLOO(policy, samples=n)
    batch = rloo.collect(env)
    grpo = GRPO(policy, samples=n, scale=as_it_is, aggregate=per_sequence, kl=0.0)
    assert same(slope(grpo, batch), slope(rloo, batch), (n - 1) / n)
    assert same(slope(DrGRPO(policy, samples=n), batch), slope(rloo, batch), (n - 1) / n / env.max_len)


@pytest.mark.parametrize("n", [2, 4])
def test_corrected_minimum_risk_is_rloo_but_for_a_factor(tiny: Any, n: int) -> None:
    env, policy = tiny(rows=40)
    rloo = RLOO(policy, samples=n)
    batch = rloo.collect(env)
    assert same(slope(MRTCorrected(policy, samples=n), batch), slope(rloo, batch), (n - 1) / n)


def test_mixer_is_likelihood_first_and_reinforce_last(tiny: Any) -> None:
    env, policy = tiny(rows=40)
    mixer = MIXER(policy, baseline=(baseline := Regression()))
    state = env.generator.get_state()
    batch = mixer.collect(env)
    env.generator.set_state(state)
    assert same(slope(mixer, batch), slope(MLE(policy), sample_references(env)))

    mixer.set_progress(0.99)
    learner = REINFORCE(policy, baseline=mixer.baseline)
    baseline.learn(mixer.with_advantages(batch).targets, batch)
    batch = mixer.collect(env)
    assert not batch.demonstrations.mask.any()  # type: ignore[union-attr]
    assert same(slope(mixer, batch), slope(learner, replace(batch, demonstrations=None)))


@pytest.mark.parametrize("cls", [PPO, PPOKL])
def test_one_step_of_ppo_is_a2c(tiny: Any, cls: Any) -> None:
    env, policy = tiny(rows=40)
    a2c = A2C(policy, scale=by_batch)
    batch = a2c.collect(env)
    ppo = cls(policy, epochs=1, minibatches=1)
    assert same(slope(ppo, batch), slope(a2c, batch))
    before = {name: p.detach().clone() for name, p in policy.named_parameters()}
    results = []
    for agent in (ppo, a2c):
        policy.load_state_dict(before)
        agent.update(batch)
        results.append(torch.cat([p.detach().flatten() for p in policy.parameters()]))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-6)


PENALTIES = {"entropy": 0.1, "l2": 0.1, "kl": 0.1, "kl_reward": 0.1, "mle": 0.1}
MADE: dict[str, dict[str, Any]] = {
    "mixer": {"xent_share": 0.0, "delta": 1, "entropy": 0.1, "l2": 0.1},
    "all_action": {"action_values": "exact", "kl_reward": 0.0},
    "vineppo": {"completions": 2, "kl_reward": 0.0},
    **{name: {"samples": 4} for name in ("rloo", "grpo", "dr_grpo", "dapo", "mrt", "mrt_corrected", "scst")},
}


def of(tiny: Any, name: str, **more: Any) -> tuple[Any, Any, Rollout]:
    """An agent with every penalty, its task, and a batch that it has judged."""
    env, policy = tiny(rows=40)
    anchor = tiny.policy(env, sharp=2.0, seed=1).requires_grad_(False)
    penalties = {} if name == "mixer" else {**PENALTIES, "reference": anchor}
    agent: Any = rlseq.make_agent(name, policy, **{**penalties, **MADE.get(name, {}), **more})
    return agent, env, agent.with_advantages(agent.collect(env))


def updated(agent: Any, batch: Rollout) -> list[Rollout]:
    """Update the agent, without clipping; return the batches whose losses it took."""
    parts, loss = [], agent.loss

    def noted(part: Rollout) -> Any:
        parts.append(part)
        return loss(part)

    agent.clip_norm, agent.loss = 1e9, noted
    agent.update(batch)
    return parts


@pytest.mark.parametrize("name", [name for name in GRADIENTS if name != "trpo"])  # has a step of its own
def test_micro_batches_add_up_to_the_batch(tiny: Any, name: str) -> None:
    agent, _, batch = of(tiny, name)
    agent.epochs = agent.minibatches = 1
    whole = slope(agent, batch)
    agent.micro_batches = 3  # of unlike sizes: 10 groups, or 40 rows
    assert len(updated(agent, batch)) == 3
    assert same(whole, gradient_of(agent))


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_micro_batches_add_up_whatever_the_aggregate(tiny: Any, aggregate: str) -> None:
    agent, _, batch = of(tiny, "grpo", aggregate=aggregate)
    whole = slope(agent, batch)
    agent.micro_batches = 4
    updated(agent, batch)
    assert same(whole, gradient_of(agent))


@pytest.mark.parametrize("name", GRADIENTS)
def test_the_order_of_groups_does_not_matter(tiny: Any, name: str) -> None:
    agent, env, _ = of(tiny, name)
    batch = agent.collect(env)
    (rows,) = agent.shuffle(batch, 1)
    assert rows.tolist() != list(range(40))
    shuffled = batch.take(rows)
    assert torch.equal(
        shuffled.context["index"].view(-1, batch.samples).amin(1), shuffled.context["index"][:: batch.samples]
    )
    assert same(slope(agent, agent.with_advantages(batch)), slope(agent, agent.with_advantages(shuffled)))


def test_minibatches_hold_every_group_once_and_whole(tiny: Any) -> None:
    agent, _, batch = of(tiny, "grpo", minibatches=3)
    parts = updated(agent, batch)
    assert len(parts) == 3
    seen = torch.cat([part.log_probs.sum(1) + 10 * part.context["index"] for part in parts])
    wanted = batch.log_probs.sum(1) + 10 * batch.context["index"]
    assert torch.equal(seen.sort().values, wanted.sort().values)
    groups = {tuple(group) for group in wanted.view(-1, 4).tolist()}
    assert {tuple(group) for group in seen.view(-1, 4).tolist()} == groups


def test_the_schedule_of_mixer() -> None:
    """Nothing is handed over for a share of training, then Δ, 2Δ, … until all is (Ranzato et al. 2016)."""
    steps = [handed_over(update / 10, 0.4, 7, 3) for update in range(11)]
    assert steps == [0, 0, 0, 0, 3, 3, 6, 6, 9, 9, 9]
    assert [handed_over(done, 0.0, 6, 3) for done in (0.0, 0.49, 0.5, 0.99)] == [3, 3, 6, 6]


@pytest.mark.parametrize("name", ["reinforce", "dr_grpo", "dapo", "ppo", "mixer", "mrt", "rloo"])
def test_padding_that_is_cut_off_was_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def learned(cut: bool) -> list[Any]:
        with monkeypatch.context() as patch:
            if not cut:
                patch.setattr(Rollout, "trimmed", lambda self, *width: self)
                patch.setattr("rlseq.engine.rollout.parts_of", lambda mask: None)
            env = rlseq.make("rlseq/Parallel-v0", num_envs=16, max_len=30, seed=1)
            torch.manual_seed(0)
            policy = rlseq.make_policy("seq2seq", env, hidden=16, embedding=8, value=True)
            with torch.no_grad():
                policy.head.weight[env.vocab.eos, -1] += 3  # texts end early
            agent = rlseq.make_agent(name, policy, lr=1e-3, entropy=0.01, decode=rlseq.Sample(top_k=20))
            for _ in range(2):
                batch = agent.collect(env)
                assert int(batch.lengths.max()) < env.max_len
                agent.update(batch)
        return [parameter.detach() for parameter in policy.parameters()]

    for short, long in zip(learned(True), learned(False), strict=True):
        torch.testing.assert_close(short, long, rtol=1e-4, atol=1e-5)
