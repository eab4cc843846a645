"""Scheduled sampling against a slow version, and the share of own words over training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import rlseq
from rlseq.agents import MLE, ScheduledSampling
from rlseq.types import Rollout


def drawn(logits: Tensor, uniform: float) -> int:
    """The first word at which the sum of probabilities exceeds a uniform number."""
    total = 0.0
    for word, chance in enumerate(logits.double().softmax(0).tolist()):
        total += chance
        if uniform < total:
            return word
    return len(logits) - 1


@torch.no_grad()
def slow(policy: Any, batch: Rollout, own: Tensor, uniform: Tensor, reading: str) -> Tensor:
    """The words that are read, row by row."""
    read = batch.actions.clone()
    for row in range(len(read)):
        context = {name: value[row : row + 1] for name, value in batch.context.items()}
        state, word = policy.start(context), torch.tensor([policy.words.bos])
        for t in range(read.shape[1]):
            logits, state = policy.step(word, state)
            if own[row, t]:
                read[row, t] = drawn(logits[0], float(uniform[row, t]))
            word = read[row, t : t + 1] if reading == "token_by_token" else batch.actions[row, t : t + 1]
    return read


@pytest.mark.parametrize("reading", ["token_by_token", "two_pass"])
def test_the_words_read_are_those_of_the_slow_version(tiny: Any, reading: str) -> None:
    env, policy = tiny(rows=32)
    agent: Any = rlseq.make_agent("scheduled_sampling", policy, reading=reading)
    batch = MLE(policy).collect(env)
    numbers = torch.Generator().manual_seed(3)
    own, uniform = torch.rand(2, *batch.actions.shape, generator=numbers, dtype=torch.float64)
    read = agent.reading(policy, env, batch, own < 0.5, uniform)
    assert torch.equal(read, slow(policy, batch, own < 0.5, uniform, reading))
    assert (read != batch.actions).any()


@pytest.mark.parametrize("reading", ["token_by_token", "two_pass"])
def test_the_share_of_own_words_rises_with_updates(tiny: Any, reading: str) -> None:
    """Words that differ from the reference are at most those that are the policy's own."""
    env, policy = tiny(rows=2000)
    agent: Any = rlseq.make_agent("scheduled_sampling", policy, own=1.0, ramp=10, reading=reading, lr=1e-9)
    asked: list[float] = []
    honest: Any = agent.reading

    def watched(p: Any, e: Any, b: Any, own: Tensor, u: Tensor) -> Any:
        asked.append(own.double().mean().item())
        return honest(p, e, b, own, u)

    agent.reading = watched
    for _ in range(12):
        agent.update(agent.collect(env))
    assert asked[0] == 0.0
    for update, share in enumerate(asked):
        assert share == pytest.approx(min(1.0, update / 10), abs=0.03)


def test_what_is_predicted_stays_the_reference(tiny: Any) -> None:
    """The loss is −log π of the reference after the words that were read, mean over tokens."""
    env, policy = tiny(rows=8)
    agent = ScheduledSampling(policy, own=1.0, ramp=1)
    agent.count.updates += 1
    batch = agent.collect(env)
    read: Any = batch.inputs
    loss, _ = agent.loss(batch)
    total = torch.zeros(())
    for row in range(len(read)):
        context = {name: value[row : row + 1] for name, value in batch.context.items()}
        state, word = policy.start(context), torch.tensor([policy.words.bos])
        for t in range(int(batch.lengths[row])):
            logits, state = policy.step(word, state)
            total = total - logits[0].log_softmax(0)[batch.actions[row, t]]
            word = read[row, t : t + 1]
    assert loss.item() == pytest.approx((total / batch.mask.sum()).item(), rel=1e-5)
