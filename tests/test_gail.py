"""GAIL and maximum-entropy inverse RL: one code path with SeqGAN, exact gradients, the maximum itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

import rlseq
from rlseq.agents import GAIL, REGS, Adversarial, MaxEntIRL, SeqGAN
from rlseq.agents.gail import each_step, finished_text
from rlseq.discriminators import Adversary, make_discriminator
from rlseq.discriminators.adversary import random_prefix
from rlseq.discriminators.objectives import logit, probability, wgan
from rlseq.discriminators.texts import rewarded
from rlseq.policy_gradient.baselines import none
from rlseq.policy_gradient.credit import Completions
from rlseq.policy_gradient.exact import expected_gradient, gradient
from rlseq.policy_gradient.exact import texts as all_texts

BRIEF: dict[str, Any] = {"pretraining": 1, "d": 1, "k": 1, "lr": 1e-2}


def trained(cls: Any, updates: int = 3, **options: Any) -> list[Tensor]:
    """The weights of policy and discriminator after a few updates, from the same start."""
    torch.manual_seed(0)
    env = rlseq.make("rlseq/Copy-v0", num_envs=16, vocab_size=4, length=3, items=50)
    policy = rlseq.make_policy("gru", env, hidden=8, embedding=4)
    judge = make_discriminator("gru", env, hidden=8, embedding=4)
    adversary = Adversary(judge, value=probability, view=random_prefix, texts=16, lr=1e-2)
    agent = cls(policy, adversary=adversary, **BRIEF, **options)
    for _ in range(updates):
        agent.update(agent.collect(env))
    return [p.detach() for p in (*policy.parameters(), *judge.parameters())]


@pytest.mark.parametrize(
    ("other", "given", "options"),
    [
        (Adversarial, {}, {"pay": finished_text}),
        (REGS, {}, {"pay": each_step, "gamma": 0.0}),
        (
            SeqGAN,
            {"completions": 2, "trail": 0.0},
            {"pay": finished_text, "credit": Completions(2), "baseline": none},
        ),
    ],
    ids=["adversarial", "regs", "seqgan"],
)
def test_with_the_factors_of_another_agent_it_is_that_agent(
    other: Any, given: Mapping[str, Any], options: Mapping[str, Any]
) -> None:
    """Bit by bit, discriminator included; and with its own factors it is not."""
    wanted = trained(other, **given)
    assert all(map(torch.equal, trained(GAIL, **options), wanted))
    assert not all(map(torch.equal, trained(GAIL), wanted))


def frozen(env: Any, **options: Any) -> Adversary:
    """A judge with opinions, which does not learn."""
    adversary = Adversary(make_discriminator("gru", env, hidden=6, embedding=4, seed=1), **options)
    adversary.freeze()
    with torch.no_grad():
        for p in adversary.discriminator.parameters():
            p.mul_(3)
    return adversary


@pytest.mark.parametrize("pay", [each_step, finished_text])
def test_its_gradient_is_that_of_the_summed_reward(tiny: Any, pay: Any) -> None:
    env, policy = tiny(rows=2)
    agent = GAIL(policy, adversary=frozen(env), pay=pay)
    paid = agent.paid_on(env)
    assert tiny.error(expected_gradient(agent, paid, rows=2), gradient(policy, paid)) < 1e-4
    other = rewarded(env, each_step(agent.adversary) if pay is finished_text else agent.adversary)
    assert tiny.error(expected_gradient(agent, paid, rows=2), gradient(policy, other)) > 1e-2


@pytest.mark.parametrize("pay", [each_step, finished_text])
def test_the_gradient_of_reward_and_entropy(tiny: Any, pay: Any) -> None:
    """∇ E [R − α log π], summed over every text."""
    env, policy = tiny(rows=2)
    agent = MaxEntIRL(policy, adversary=frozen(env, value=logit), pay=pay, alpha=0.7)
    paid = agent.paid_on(env)
    whole = tiny.whole(policy, paid)
    objective = (whole.log_p.exp() / env.size * (whole.rewards.sum(1) - 0.7 * whole.log_p)).sum()
    got = expected_gradient(agent, paid, rows=2)
    assert tiny.error(got, whole.slopes(policy, objective)) < 1e-4
    assert tiny.error(got, gradient(policy, paid)) > 1e-2


def test_a_policy_that_is_the_distribution_of_its_rewards_stays(tiny: Any) -> None:
    """Where p ∝ exp(R / α), R − α log π is the same for every text; of another α it is not."""
    env, policy = tiny(rows=2, sources=0)
    paid = rewarded(env, lambda tokens, mask, context: 0.5 * log_p(policy, tokens, mask, context) + 2)
    sizes = []
    for alpha in (0.5, 0.6):
        agent = MaxEntIRL(policy, adversary=frozen(env), alpha=alpha)
        found = expected_gradient(agent, paid, rows=2)
        sizes.append(float(torch.cat([g.flatten() for g in found.values()]).norm()))
    assert sizes[0] < 1e-5
    assert sizes[1] > 1e-3


@torch.no_grad()
def log_p(policy: Any, tokens: Tensor, mask: Tensor, context: Any) -> Tensor:
    found: Tensor = (policy.evaluate(tokens, context).log_probs * mask).sum(1)
    return found


def test_the_objective_has_the_gradient_of_the_likelihood_of_demonstrations(tiny: Any) -> None:
    """With π ∝ exp(R), E_π R − E_demo R has the gradient of −log p(demo), p = exp(R)/Z."""
    env, _ = tiny(sources=0)
    number = len(all_texts(env)[0])
    rewards = torch.randn(number, dtype=torch.float64).requires_grad_()
    demonstrations = torch.tensor([0, 3, 3, 5])
    (wanted,) = torch.autograd.grad(-rewards.log_softmax(0)[demonstrations].mean(), rewards)
    many = torch.multinomial(rewards.detach().softmax(0), 400_000, replacement=True)
    (got,) = torch.autograd.grad(wgan(rewards[demonstrations], rewards[many]), rewards)
    torch.testing.assert_close(got, wanted, atol=5e-3, rtol=0)


def test_entropy_is_logged_apart_from_the_reward(tiny: Any) -> None:
    env, policy = tiny()
    agent = MaxEntIRL(policy, adversary=frozen(env, value=logit), alpha=2.0, lr=1e-9)
    batch = agent.collect(env)
    metrics = agent.update(batch)
    paid = agent.adversary(batch.actions, batch.mask, batch.context)
    assert float(metrics["reward"]) == pytest.approx(float(paid.mean()), abs=1e-5)
    assert float(metrics["kl_penalty"]) == pytest.approx(2 * float(batch.log_probs.sum(1).mean()), abs=1e-5)


@pytest.mark.parametrize(("name", "view"), [("gail", "random_prefix"), ("max_ent_irl", "whole")])
def test_a_judge_learns_from_what_it_is_asked_about(tiny: Any, name: str, view: str) -> None:
    _, policy = tiny()
    agent: Any = rlseq.make_agent(name, policy)
    assert agent.adversary.view.__name__ == view
    other: Any = rlseq.make_agent(name, policy, pay="finished_text" if name == "gail" else "each_step")
    assert other.adversary.view.__name__ != view
