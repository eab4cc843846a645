from __future__ import annotations

from typing import Any
from unittest import mock

import torch

import rlseq
from rlseq.engine.references import length_bucket, sample_references, trimmed
from rlseq.engine.rollout import evaluate_actions
from rlseq.mdp.sequence_env import SequenceEnv
from rlseq.vocab import Vocab


def env_of(references: list[list[list[int]]], rows: int) -> SequenceEnv:
    """A task without sources, whose items have these references."""
    slots, width = max(map(len, references)), 3
    ids = torch.full((len(references), slots, width), 7)  # what pads them is nobody's business
    lengths = torch.zeros(len(references), slots, dtype=torch.int64)
    for i, item in enumerate(references):
        for r, text in enumerate(item):
            ids[i, r, : len(text)] = torch.tensor(text)
            lengths[i, r] = len(text)
    return SequenceEnv(
        vocab=Vocab.numbered(9),
        max_len=width,
        reward=lambda tokens, mask, context: mask.sum(1).float(),
        items={"references": ids, "reference_lengths": lengths},
        num_envs=rows,
        seed=0,
    )


def test_every_existing_reference_is_drawn_alike_and_no_other() -> None:
    env = env_of([[[1, 0], [2, 3, 0], [0]], [[4, 5, 0]]], rows=3000)
    batch = sample_references(env)
    texts = [tuple(row[m].tolist()) for row, m in zip(batch.actions, batch.mask, strict=True)]
    first = [text for text, item in zip(texts, batch.context["index"].tolist(), strict=True) if item == 0]
    second = [text for text, item in zip(texts, batch.context["index"].tolist(), strict=True) if item == 1]
    assert set(second) == {(4, 5, 0)}
    shares = {text: first.count(text) / len(first) for text in set(first)}
    assert set(shares) == {(1, 0), (2, 3, 0), (0,)}
    assert all(abs(share - 1 / 3) < 0.05 for share in shares.values())
    assert (batch.actions[~batch.mask] == 0).all()
    assert batch.ends.sum(1).tolist() == [1] * 3000


def test_the_draw_is_the_tasks_own() -> None:
    items = [[[1, 0], [2, 0]]]
    once, again = (sample_references(env_of(items, rows=64)).actions for _ in range(2))
    assert torch.equal(once, again)


def test_what_only_pads_is_left_out() -> None:
    env = env_of([[[1, 0]], [[0]]], rows=16)
    batch = trimmed(sample_references(env), env)
    assert sample_references(env).actions.shape == (16, 3)
    assert batch.actions.shape == batch.mask.shape == batch.rewards.shape == (16, 2)


def test_trimmed_likelihood_is_the_same() -> None:
    env: Any = rlseq.make("rlseq/Parallel-v0", num_envs=20, level="char")
    bucket = length_bucket(env)
    assert bucket is not None
    batch = sample_references(env, bucket)
    less = trimmed(batch, env)
    assert less.context["source"].shape[1] < batch.context["source"].shape[1]
    for name in ("seq2seq", "transformer"):
        policy = rlseq.make_policy(name, env, hidden=8, embedding=8).eval()
        whole, part = (evaluate_actions(policy, some).log_probs for some in (batch, less))
        torch.testing.assert_close(whole[batch.mask], part[less.mask])


def test_texts_of_like_length_come_together_and_all_as_often() -> None:
    env: Any = rlseq.make("rlseq/Parallel-v0", num_envs=50, level="char")
    seen, apart = torch.zeros(env.size), []
    for _ in range(400):
        context = env.contexts(env.length_bucket(50))
        lengths = context["reference_lengths"][:, 0]
        apart.append(int(lengths.max() - lengths.min()))
    assert sorted(apart)[200] <= 3
    for start in range(env.size):  # as often as its draws come out alike
        with mock.patch("torch.randint", return_value=torch.tensor([start])):
            seen += torch.bincount(env.length_bucket(50), minlength=env.size)
    assert (seen == 50).all()


def test_a_task_that_cannot_draws_as_it_does() -> None:
    env = env_of([[[1, 0]]], rows=2)
    assert length_bucket(env) is None
