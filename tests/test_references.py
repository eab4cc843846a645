from __future__ import annotations

from typing import Any

import torch

from rlseq.env import SequenceEnv
from rlseq.references import demonstrations
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
    batch = demonstrations(env)
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
    once, again = (demonstrations(env_of(items, rows=64)).actions for _ in range(2))
    assert torch.equal(once, again)


def test_what_only_pads_is_left_out() -> None:
    env = env_of([[[1, 0]], [[0]]], rows=16)
    batch = demonstrations(env)
    assert batch.actions.shape == batch.mask.shape == batch.rewards.shape == (16, 2)


def test_texts_of_like_length_come_together_and_all_as_often() -> None:
    import rlseq

    env: Any = rlseq.make("rlseq/Parallel-v0", num_envs=50, level="char")
    seen = torch.zeros(env.size)
    apart = []
    for _ in range(400):
        batch = demonstrations(env)
        seen += torch.bincount(batch.context["index"], minlength=env.size)
        lengths = batch.context["reference_lengths"][:, 0]
        apart.append(float(lengths.max() - lengths.min()))
        source = batch.context["source"]
        assert (source[:, -1] != 0).any()
    assert sorted(apart)[200] <= 3
    mean = 400 * 50 / env.size
    assert float(seen.sum()) == 400 * 50
    assert 0.1 * mean < float(seen.min())
    assert float(seen.max()) < 3 * mean
