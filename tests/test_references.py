from __future__ import annotations

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
