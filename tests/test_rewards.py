from __future__ import annotations

import torch
from torch import Tensor

from rlseq.metrics.positional import accuracy, exact
from rlseq.types import Reward

# Two references, [1 2 3 0] and [1 0], then an item with the second place empty.
REFERENCES = torch.tensor([[[1, 2, 3, 0], [1, 0, 9, 9]], [[4, 0, 9, 9], [9, 9, 9, 9]]])
LENGTHS = torch.tensor([[4, 2], [2, 0]])


def judged(reward: Reward, *texts: tuple[int, list[int]], width: int = 4) -> list[float]:
    tokens = torch.zeros(len(texts), width, dtype=torch.int64)
    mask = torch.zeros(len(texts), width, dtype=torch.bool)
    for row, (_, text) in enumerate(texts):
        tokens[row, : len(text)] = torch.tensor(text)
        mask[row, : len(text)] = True
    items = torch.tensor([item for item, _ in texts])
    context = {"references": REFERENCES[items], "reference_lengths": LENGTHS[items]}
    value = reward(tokens, mask, context)
    assert isinstance(value, Tensor)
    scores: list[float] = value.tolist()
    return scores


def test_accuracy_is_that_of_the_best_reference() -> None:
    texts = (0, [1, 2, 3, 0]), (0, [1, 0]), (0, [1, 2, 0]), (1, [4]), (1, [9, 9, 9, 9])
    # [1 2 0]: 2 of 4 of the first, 1 of 3 of the second; [4]: 1 of 2; padding is never right
    assert judged(accuracy, *texts) == [1.0, 1.0, 0.5, 0.5, 0.0]


def test_exact_is_any_reference() -> None:
    texts = (0, [1, 2, 3, 0]), (0, [1, 0]), (0, [1, 2, 0]), (1, [4, 0]), (1, [4])
    assert judged(exact, *texts) == [1.0, 1.0, 0.0, 1.0, 0.0]


def test_texts_may_be_wider_or_narrower_than_references() -> None:
    assert judged(accuracy, (0, [1, 0]), (1, [4, 0]), width=2) == [1.0, 1.0]
    assert judged(exact, (0, [1, 2, 3, 0]), (0, [1, 2, 3, 0, 5]), width=6) == [1.0, 0.0]
