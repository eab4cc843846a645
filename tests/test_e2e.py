"""E2E against a slow version of its own: row by row, step by step, soft words made by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import rlseq
from rlseq.agents import E2E, MLE
from rlseq.types import Rollout, SoftTokens

K = 2


def soft(logits: Tensor) -> tuple[list[int], Tensor]:
    """The K likeliest words, and their probabilities divided by the sum of these."""
    order = logits.argsort(descending=True)[:K]
    likely = logits.softmax(0)[order]
    return order.tolist(), likely / likely.sum()


def written(policy: Any, batch: Rollout, row: int, read: Any) -> Tensor:
    """Log-probabilities of a row's reference, where `read(t, logits)` says what is read after step t."""
    context = {name: value[row : row + 1] for name, value in batch.context.items()}
    state, word = policy.start(context), torch.tensor([policy.words.bos])
    found = []
    for t in range(int(batch.lengths[row])):
        logits, state = policy.step(word, state)
        found.append(logits[0].log_softmax(0)[batch.actions[row, t]])
        word = read(t, logits[0])
    return torch.stack(found)


def as_soft(words: list[int], weights: Tensor) -> SoftTokens:
    return SoftTokens(torch.tensor([words]), weights.unsqueeze(0))


def slow(policy: Any, batch: Rollout, given: list[int], unroll: str) -> Tensor:
    """The mean negative log-likelihood per token; the first `given[row]` words are read as they are."""
    total = torch.zeros(())
    for row in range(len(batch.actions)):
        words = batch.actions[row].tolist()
        first: list[Tensor] = []

        def teacher(t: int, logits: Tensor, words: Any = words, first: Any = first) -> Any:
            first.append(logits)
            return torch.tensor([words[t]])

        def own(t: int, logits: Tensor, row: int = row, words: Any = words, first: Any = first) -> Any:
            if t < given[row]:
                return as_soft([words[t]] * K, torch.tensor([1.0, 0.0]))
            return as_soft(*soft(first[t] if unroll == "two_pass" else logits))

        written(policy, batch, row, teacher)
        total = total - written(policy, batch, row, own).sum()
    return total / batch.mask.sum()


def slope(policy: Any, loss: Tensor) -> Tensor:
    grads = torch.autograd.grad(loss, list(policy.parameters()), allow_unused=True)
    return torch.cat([g.flatten() for g in grads if g is not None])


@pytest.mark.parametrize("unroll", ["step_by_step", "two_pass"])
@pytest.mark.parametrize(("done", "kept"), [(0.0, 3), (0.3, 2), (0.6, 1), (0.9, 0)])
def test_loss_and_gradient_are_those_of_the_slow_version(
    tiny: Any, unroll: str, done: float, kept: int
) -> None:
    env, policy = tiny(rows=4)
    env.items["reference_lengths"] = torch.tensor([[3], [2]])
    agent: Any = rlseq.make_agent("e2e", policy, k=K, delta=1, xent_share=0.25, unroll=unroll)
    agent.set_progress(done)
    batch = agent.collect(env)
    loss, metrics = agent.loss(batch)
    wanted = slow(policy, batch, [max(0, n - 3 + kept) for n in batch.lengths.tolist()], unroll)
    assert metrics["nll"].item() == pytest.approx(wanted.item(), rel=1e-5)
    torch.testing.assert_close(slope(policy, loss), slope(policy, wanted), rtol=1e-4, atol=1e-6)


def test_it_begins_as_likelihood_and_ends_otherwise(tiny: Any) -> None:
    env, policy = tiny(rows=8)
    agent = E2E(policy, delta=1)
    batch = agent.collect(env)
    likelihood = MLE(policy).loss(batch)[0]
    torch.testing.assert_close(agent.loss(batch)[0], likelihood)
    agent.set_progress(0.99)
    assert abs(agent.loss(batch)[0].item() - likelihood.item()) > 0.01
