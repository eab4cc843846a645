"""The hidden Markov model against sums over all labellings."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch

import rlseq
from rlseq.envs.hmm import HMM


def test_exact_sums_over_all_labellings() -> None:
    hmm = HMM(3, 4, alpha=0.4, seed=1)
    x = torch.randint(4, (6, 4))
    every = torch.tensor(list(product(range(3), repeat=4)))
    joint = torch.stack([hmm.joint(x, y.expand(6, 4)) for y in every], 1)
    torch.testing.assert_close(hmm.evidence(x), joint.logsumexp(1))
    torch.testing.assert_close(hmm.best(x), joint.amax(1))


def test_probabilities_of_all_sequences_sum_to_one() -> None:
    hmm = HMM(2, 3, seed=2)
    x = torch.tensor(list(product(range(3), repeat=4)))
    assert float(hmm.evidence(x).exp().sum()) == pytest.approx(1)


def test_the_joint_by_hand() -> None:
    hmm = HMM(2, 3, alpha=0.25, seed=0)
    x, y = torch.tensor([[2, 0, 1]]), torch.tensor([[1, 0, 1]])
    step, emit = hmm.step, hmm.emit  # [yᵢ₋₁, yᵢ₋₂, yᵢ], [yᵢ, xᵢ₋₁, xᵢ]
    by_hand = step[0, 0, 1] * emit[1, 0, 2] * step[1, 0, 0] * emit[0, 2, 0] * step[0, 1, 1] * emit[1, 0, 1]
    assert float(hmm.joint(x, y)) == pytest.approx(float(by_hand.log()))


def test_alpha_one_is_a_plain_model() -> None:
    plain, mixed = HMM(alpha=1.0), HMM(alpha=0.5)
    for table, same in ((plain.step, True), (plain.emit, True), (mixed.step, False), (mixed.emit, False)):
        assert torch.allclose(table, table[:, :1]) == same


def test_samples_follow_the_tables() -> None:
    hmm = HMM(2, 3, seed=3)
    x, y = hmm.sample(20_000, 3, torch.Generator().manual_seed(0))
    for letters in product(range(3), repeat=3):
        seen = (x == torch.tensor(letters)).all(1).double().mean()
        expected = hmm.evidence(torch.tensor([letters])).exp()
        assert abs(float(seen - expected)) < 0.015
    assert int(y.max()) == 1


def test_the_posterior_is_the_reward_of_labels() -> None:
    env: Any = rlseq.make("rlseq/HMM-v0", num_envs=8, length=4, labels=3, letters=4, reward="log_posterior")
    context = env.begin()
    every = torch.tensor(list(product(range(3), repeat=4)))
    mask = torch.ones(8, 4, dtype=torch.bool)
    total = sum((4 * env.log_posterior(y.expand(8, 4), mask, context)).exp() for y in every)
    torch.testing.assert_close(total, torch.ones(8, dtype=torch.float64))


@pytest.mark.parametrize("wrong", [{"alpha": 1.5}, {"labels": 1}, {"length": 0}, {"items": 0}])
def test_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be "):
        rlseq.make("rlseq/HMM-v0", **wrong)
