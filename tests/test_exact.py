"""The yardstick itself, measured by hand and by finite differences."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

import rlseq
from rlseq.policy_gradient.exact import texts


def tiny(**options: Any) -> tuple[Any, Any]:
    env = rlseq.make("rlseq/Enumerable-v0", num_envs=4, **options)
    return env, rlseq.make_policy("gru", env, hidden=4, embedding=3).double()


@torch.no_grad()
def by_hand(policy: Any, env: Any) -> float:
    """Walk every branch of the tree with `step`, one text at a time."""
    total = 0.0
    for item in range(env.size):
        context = {**env.contexts(torch.tensor([item])), "index": torch.tensor([item])}
        for text in product(range(len(env.vocab)), repeat=env.max_len):
            written = list(text)
            if env.vocab.eos in written:
                written = written[: written.index(env.vocab.eos) + 1]
                if any(text[len(written) :]):
                    continue  # counted once, with zeros after its end
            state, token, log_p = policy.start(context), torch.tensor([env.vocab.bos]), 0.0
            for word in written:
                logits, state = policy.step(token, state)
                log_p += float(logits.log_softmax(1)[0, word])
                token = torch.tensor([word])
            code = int("".join(map(str, text)), len(env.vocab))
            total += float(torch.tensor(log_p).exp()) * float(env.table[item, code])
    return total / int(env.size)


@pytest.mark.parametrize("options", [{}, {"ends": False}, {"sources": 3}, {"vocab_size": 2, "length": 4}])
def test_the_objective_is_the_sum_over_every_text(options: Any) -> None:
    env, policy = tiny(**options)
    assert float(rlseq.exact.objective(policy, env)) == pytest.approx(by_hand(policy, env), abs=1e-6)


def test_the_gradient_agrees_with_finite_differences() -> None:
    env, policy = tiny(sources=2)
    exact = rlseq.exact.gradient(policy, env)
    step = 1e-5
    for name, p in policy.named_parameters():
        at = int(exact[name].abs().argmax())
        with torch.no_grad():
            ends = []
            for sign in (1, -1):
                p.view(-1)[at] += sign * step
                ends.append(float(rlseq.exact.objective(policy, env)))
                p.view(-1)[at] -= sign * step
        slope = (ends[0] - ends[1]) / (2 * step)
        assert slope == pytest.approx(float(exact[name].view(-1)[at]), abs=2e-5), name


def test_probabilities_of_all_texts_sum_to_one() -> None:
    env, policy = tiny(length=4, vocab_size=3)
    env.parts = {"one": lambda t, m, c: torch.ones(len(t))}
    assert float(rlseq.exact.objective(policy, env)) == pytest.approx(1.0, abs=1e-6)


def test_every_text_once() -> None:
    env, _ = tiny(vocab_size=3, length=3)
    tokens, mask = texts(env)
    assert (
        len({tuple(row) for row in tokens.tolist()}) == len(tokens) == 15
    )  # 2³ that never end, 1 + 2 + 4 that do
    assert mask.sum(1).tolist() == [1 if t[0] == 0 else 2 if t[1] == 0 else 3 for t in tokens.tolist()]


def test_samples_average_to_the_objective() -> None:
    env = rlseq.make("rlseq/Enumerable-v0", num_envs=20_000, sources=2)
    policy = rlseq.make_policy("lstm", env, hidden=4, embedding=3)
    returns = rlseq.rollout(policy, env).returns
    error = float(returns.mean() - rlseq.exact.objective(policy, env))
    assert abs(error) < 4 * float(returns.std()) / 20_000**0.5


def test_what_cannot_be_enumerated_is_refused() -> None:
    env = rlseq.make("rlseq/Copy-v0")
    with pytest.raises(ValueError, match="too many to enumerate"):
        rlseq.exact.objective(None, env)
    with pytest.raises(ValueError, match="vocab_size must be an integer in"):
        rlseq.make("rlseq/Enumerable-v0", vocab_size=5)


@pytest.mark.parametrize("by_prefix", [False, True])
def test_what_a_task_does_not_allow_is_never_written(by_prefix: bool) -> None:
    class Restricted(rlseq.SequenceEnv):
        def __init__(self, **options: Any) -> None:
            vocab = rlseq.Vocab.numbered(3, eos=None)
            super().__init__(vocab=vocab, max_len=2, reward=self.ones, **options)

        def ones(self, tokens: torch.Tensor, mask: torch.Tensor, context: Any) -> torch.Tensor:
            return (tokens == 1).float().sum(1)

        def legal(self) -> torch.Tensor:
            if not by_prefix:
                return torch.tensor([True, False, True])
            repeated = self.tokens[:, :1] == torch.arange(3)  # no word twice
            return ~(repeated & (self.length > 0).unsqueeze(1))

    env = Restricted(num_envs=4000, seed=0)
    policy = rlseq.make_policy("gru", env, hidden=4, embedding=3)
    returns = rlseq.rollout(policy, env).returns
    error = float(returns.std()) / len(returns) ** 0.5
    assert float(rlseq.exact.objective(policy, env)) == pytest.approx(
        float(returns.mean()), abs=4 * error + 1e-6
    )


def test_three_estimators_of_one_gradient_and_their_variances(tiny: Any) -> None:
    """Score function, the same less E[R], and differences along one weight, of two texts each (SCOPE R11).

    All by enumeration of what can be sampled, for the weights of the last layer.
    """
    env, policy = tiny(sources=0)
    weight, sigma = policy.head.weight, 0.05

    def returns() -> tuple[Any, Tensor, Tensor, Tensor]:
        whole = tiny.whole(policy, env)
        gained = whole.rewards.sum(1)
        mean = whole.chance @ gained
        return whole, gained, mean, whole.chance @ (gained - mean).square()

    whole, gained, mean, _ = returns()
    (exact,) = torch.autograd.grad(whole.log_p.exp() @ gained, weight, retain_graph=True)
    slopes = torch.stack(
        [torch.autograd.grad(x, weight, retain_graph=True)[0].flatten() for x in whole.log_p]
    )
    variance = {}
    for name, baseline in (("plain", 0.0), ("centred", mean)):
        each = slopes * (gained - baseline).unsqueeze(1)
        expected = whole.chance @ each
        torch.testing.assert_close(expected, exact.flatten(), rtol=1e-3, atol=1e-5)
        variance[name] = float(whole.chance @ (each - expected).square().sum(1)) / 2
    found, square, flat = [], 0.0, weight.data.view(-1)
    for place in range(len(flat)):
        there = []
        for step in (sigma, -sigma):
            flat[place] += step
            there.append(returns()[2:])
            flat[place] -= step
        (up, noise), (down, more) = there
        found.append(float(up - down) / (2 * sigma))
        square += len(flat) * float(noise + more + (up - down).square()) / (2 * sigma) ** 2
    torch.testing.assert_close(torch.tensor(found), exact.flatten(), rtol=2e-2, atol=1e-3)
    variance["differences"] = square - float(exact.square().sum())
    assert variance["centred"] < variance["plain"] < variance["differences"] / 10
