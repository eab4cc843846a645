"""`Episodes`, and the copies of a task that share or replace them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import rlseq


@pytest.fixture
def env() -> Any:
    """Two rows with one token each."""
    env = rlseq.make("rlseq/Copy-v0", 2)
    env.begin()
    env.append(torch.tensor([1, 2]))
    return env


def test_a_copy_with_another_reward_shares_everything_else(env: Any) -> None:
    other = env.replace(reward=lambda tokens, mask, context: mask.sum(1).float())
    assert list(other.parts) == ["reward"]
    assert list(env.parts) != ["reward"]
    assert other.episodes is env.episodes
    assert other.generator is env.generator
    assert other.counts is env.counts


def test_a_copy_with_other_rows_has_no_episodes_of_the_old_one(env: Any) -> None:
    other = env.replace(num_envs=3)
    assert not other.context
    with pytest.raises(ValueError, match="never reset"):
        other.step([1, 1, 1])
    other.begin()
    assert len(other.episodes) == 3
    assert len(env.episodes) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": None}, "has no attribute 'rewards'"),
        ({"reward": None}, "reward must be a function"),
        ({"num_envs": 0}, "num_envs must be an integer ≥ 1"),
    ],
)
def test_what_cannot_be_replaced_is_refused(env: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        env.replace(**changes)


def test_rows_that_are_taken_are_copies_and_slices_share_memory(env: Any) -> None:
    copied, shared = env.take(torch.tensor([1, 1, 0])), env.take(slice(1))
    assert copied.tokens[:, 0].tolist() == [2, 2, 1]
    copied.append(torch.tensor([1, 1, 1]))
    assert env.length.tolist() == [1, 1]
    shared.append(torch.tensor([2]))
    assert env.length.tolist() == [2, 1]
    assert env.tokens[0, :2].tolist() == [1, 2]


def test_an_error_inside_leaves_episodes_counts_and_random_numbers(env: Any) -> None:
    before = env.tokens.clone(), env.generator.get_state(), env.counts.as_dict(), env.seed

    def fail() -> None:
        with env.rollback_on_error():
            env.append(torch.tensor([1, 1]))
            env.begin()
            env.reseed(5)
            env.counts.reference_tokens += 1
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert torch.equal(env.tokens, before[0])
    assert torch.equal(env.generator.get_state(), before[1])
    assert (env.counts.as_dict(), env.seed) == before[2:]


def test_what_is_preserved_is_restored_without_an_error_too(env: Any) -> None:
    episodes, random, counts = env.episodes, env.generator.get_state(), env.counts.as_dict()
    with env.preserved():
        rlseq.rollout(rlseq.make_policy("gru", env, hidden=4, embedding=4), env)
    assert env.episodes is episodes
    assert torch.equal(env.generator.get_state(), random)
    assert env.counts.as_dict() == counts
