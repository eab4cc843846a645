"""Every agent through `rlseq.train` on a fresh task, with its defaults and with an evaluation."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import rlseq
from rlseq.agents import AGENTS
from rlseq.agents.adversarial import AdversarialRounds
from rlseq.policy_gradient.algorithm import PolicyGradient
from rlseq.training.probe import PolicyProbe

LOOKED_AT = [name for name, agent in AGENTS.items() if issubclass(agent, PolicyGradient)]


def made(name: str) -> tuple[Any, Any, Any]:
    """Agent, task and test; defaults, but for how long a discriminator learns."""
    env, test = (rlseq.make("rlseq/Copy-v0", num_envs=16, vocab_size=4, length=3, seed=s) for s in (0, 1))
    policy = rlseq.make_policy("gru", env, hidden=8, embedding=4, value=True)
    if not issubclass(AGENTS[name], AdversarialRounds):
        return rlseq.make_agent(name, policy), env, test
    agent: Any = rlseq.make_agent(name, policy, pretraining=1, d=1, k=1)
    agent.adversary.texts = 64
    return agent, env, test


@pytest.mark.parametrize("name", [name for name, agent in AGENTS.items() if agent.writes_texts])
def test_an_agent_is_trained_and_evaluated(name: str) -> None:
    agent, env, test = made(name)
    history = rlseq.train(agent, env, updates=2, eval_env=test, eval_every=1, eval_texts=16, alarms="ignore")
    assert [row["update"] for row in history] == [1, 2]
    assert all("eval_reward" in row for row in history)
    assert name not in LOOKED_AT or all("greedy_gap" in row for row in history)


@pytest.mark.parametrize("name", LOOKED_AT)
def test_training_is_the_same_whether_it_is_looked_at_or_not(name: str) -> None:
    """A look writes texts and takes gradients, but nothing learns from it: no discriminator either."""
    results = []
    for probe in (True, False):
        torch.manual_seed(0)
        agent, env, test = made(name)
        rlseq.train(agent, env, 3, test, eval_every=1, eval_texts=16, alarms="ignore", probe=probe)
        results.append(torch.cat([p.detach().flatten() for p in agent.policy.parameters()]))
    assert torch.equal(*results)


@pytest.mark.parametrize("name", ["seqgan", "regs", "pg_bleu"])
def test_samples_and_greedy_texts_are_paid_alike(name: str) -> None:
    """The greedy text beside samples is paid by the agent's own reward, not by the task's."""
    agent, env, _ = made(name)
    agent.update(agent.collect(env))
    look = PolicyProbe(agent, env)
    paid = agent.paid_on(env)
    batch = agent.gather(paid)
    greedy = rlseq.rollout(
        agent.policy, paid.replace(), decode=rlseq.Greedy(), index=batch.context["index"]
    ).returns
    assert float(look.greedy(batch)["greedy_reward"]) == pytest.approx(float(greedy.mean()))
