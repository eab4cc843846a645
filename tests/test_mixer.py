"""MIXER's curriculum: how far it gets, which policy is scored where, and what its baseline learns from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import rlseq
from rlseq.agents import MIXER, REINFORCE
from rlseq.agents.mixer import _given
from rlseq.policy_gradient.baselines import Regression, mean
from rlseq.types import RAW


def uneven(tiny: Any, rows: int = 32) -> tuple[Any, Any]:
    """A task with references of 3 tokens and of 1."""
    env, policy = tiny(rows=rows)
    assert env.vocab.eos is not None
    env.items["references"][1] = env.vocab.eos
    env.items["reference_lengths"] = torch.tensor([[3], [1]])
    return env, policy


def test_words_are_handed_over_from_the_end_of_each_reference(tiny: Any) -> None:
    env, policy = uneven(tiny)
    agent = MIXER(policy, delta=1, xent_share=0.25)
    lengths = env.items["reference_lengths"][:, 0]
    for stage, done in enumerate((0.0, 0.3, 0.6, 0.99)):
        agent.set_progress(done)
        batch = agent.collect(env)
        assert torch.equal(_given(batch).sum(1), (lengths[batch.context["index"]] - stage).clamp(min=0))


def test_a_training_ends_with_reinforcement_alone_whatever_its_length(tiny: Any) -> None:
    for updates in (5, 12, 40):
        env, policy = uneven(tiny)
        history = rlseq.train(MIXER(policy, delta=1), env, updates, alarms="ignore")
        shares = [row["sampled"] for row in history]
        assert history[-1]["given"] == 0.0
        assert shares[-1] == 1.0
        assert sum(share == 0 for share in shares) == -(-updates // 4)


def test_a_training_too_short_for_reinforcement_says_so(tiny: Any) -> None:
    env, policy = uneven(tiny)
    said: list[str] = []
    rlseq.train(MIXER(policy), env, updates=1, alarms=said.append)
    assert "MIXER has not reached reinforcement" in said[-1]
    said.clear()
    rlseq.train(MIXER(policy), env, updates=2, alarms=said.append)
    assert not any("MIXER" in message for message in said)


def test_every_token_counts_once(tiny: Any) -> None:
    env, policy = uneven(tiny)
    agent = MIXER(policy, delta=1)
    for done in (0.0, 0.3, 0.99):
        agent.set_progress(done)
        before = env.counts.as_dict()
        batch = agent.collect(env)
        after = env.counts.as_dict()
        given = int(_given(batch).sum())
        assert after["reference_tokens"] - before["reference_tokens"] == given
        assert after["generated_tokens"] - before["generated_tokens"] == int(batch.mask.sum()) - given


DECODERS = [rlseq.Sample(top_k=1), rlseq.Sample(top_p=0.3), rlseq.Sample(0.5), rlseq.Sample(2.0, top_k=2)]


@pytest.mark.parametrize("decode", DECODERS, ids=str)
def test_likelihood_is_that_of_the_policy_and_reward_that_of_what_acted(tiny: Any, decode: Any) -> None:
    env, policy = uneven(tiny)
    agent = MIXER(policy, delta=1, decode=decode, baseline=mean)
    agent.set_progress(0.3)
    batch = agent.with_advantages(agent.collect(env))
    given, acted = _given(batch), batch.mask & ~_given(batch)
    policy.zero_grad()
    loss, _ = agent.loss(batch)
    loss.backward()  # type: ignore[no-untyped-call]
    got = torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])

    plain = policy.evaluate(batch.actions, batch.context, RAW).log_probs
    behaved = policy.evaluate(batch.actions, batch.context, batch.behaviour).log_probs
    returns = batch.rewards.sum(1, keepdim=True).expand_as(plain)
    others = (returns * acted).sum(0) - returns * acted
    advantages = returns - others / (acted.sum(0) - acted.int()).clamp(min=1)
    likelihood = plain[given].sum() / given.sum()
    reward = (advantages * behaved)[acted].sum() / len(acted)
    policy.zero_grad()
    wanted_loss = -(likelihood + reward) / 2
    wanted_loss.backward()
    wanted = torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])
    assert loss.item() == pytest.approx(wanted_loss.item(), rel=1e-4)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)


def test_the_regression_learns_only_from_what_the_policy_wrote(tiny: Any) -> None:
    env, policy = uneven(tiny)
    agent = MIXER(policy, delta=1, baseline=(baseline := Regression()))
    agent.set_progress(0.0)
    agent.update(agent.collect(env))
    weight = baseline.weight
    given = env.items["references"].shape[2]
    assert weight is not None
    assert (weight[:given] == 0).all(), "all tokens of references were forced"

    agent.set_progress(0.3)
    batch = agent.with_advantages(agent.collect(env))
    twin: Any = REINFORCE(policy, baseline=Regression())
    twin.baseline.weight = weight.clone()
    twin.baseline.learn(batch.targets, replace(batch, mask=batch.mask & ~_given(batch)))
    agent.update(batch)
    assert baseline.weight is not None
    assert torch.equal(baseline.weight, twin.baseline.weight)


def test_rows_are_compared_where_both_were_written(tiny: Any) -> None:
    env, policy = uneven(tiny)
    agent = MIXER(policy, delta=1, baseline=mean)
    agent.set_progress(0.3)
    batch = agent.with_advantages(agent.collect(env))
    written = batch.mask & ~_given(batch)
    wanted = batch.targets - mean(batch.targets, replace(batch, mask=written))
    assert torch.equal(batch.advantages[written], wanted[written])


def test_padding_where_it_was_not_allowed_changes_nothing(tiny: Any) -> None:
    """A reward above 1 times the log-probability of a token that is shut out would be infinite."""
    env, policy = tiny(rows=32)
    env.parts = {"large": lambda tokens, mask, context: 100.0 * mask.sum(1)}
    agent = REINFORCE(policy, decode=rlseq.Sample(top_k=1))
    batch = agent.collect(env)
    assert (batch.lengths < env.max_len).any()
    assert torch.isfinite(agent.update(batch)["loss"])
