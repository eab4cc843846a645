from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from hypothesis import settings

settings.register_profile("metrics", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("metrics")

TEXT = (
    "a the man woman dog cat is are sitting standing riding on "
    "in of with and two red big small horse wave surfboard street "
    "table plate food pizza it's don't well-known 3.5 1,000 $5 (very) near, "
    'of. said: "yes" next to building clock tower at night <b> &amp; '
    "naïve 東京 U.S. -- 7-up "
)
WORDS = TEXT.split()

Corpus = tuple[list[str], list[list[str]]]


def natural(seed: int, items: int, longest: int = 14, most: int = 10, empty: bool = True) -> Corpus:
    """Hypotheses and 1–10 references like captions: copies, edits, shuffles, strangers."""
    draw = random.Random(seed)

    def sentence(low: int, high: int) -> list[str]:
        common = WORDS[: draw.choice([4, 20, len(WORDS)])]
        return [draw.choice(common) for _ in range(draw.randint(low, high))]

    def spoil(words: list[str]) -> list[str]:
        words = list(words)
        for _ in range(draw.randint(0, 4)):
            at, to = draw.randint(0, len(words)), draw.randint(0, len(words))
            kind = draw.choice(["swap", "drop", "add", "repeat"])
            if kind == "swap":
                low, high = min(at, to), max(at, to)
                words = words[high:] + words[low:high] + words[:low]
            elif kind == "drop":
                del words[at : at + 1]
            elif kind == "add":
                words.insert(at, draw.choice(WORDS))
            else:
                words[at:at] = words[max(0, at - 2) : at]
        return words

    references, hypotheses = [], []
    for _ in range(items):
        first = sentence(1, longest)
        others = [draw.choice([spoil(first), sentence(1, longest)]) for _ in range(draw.randint(0, most - 1))]
        refs = [ref or ["a"] for ref in [first, *others]]
        kinds = [spoil(draw.choice(refs)), sentence(0 if empty else 1, 2 * longest), refs[0]]
        hypothesis = draw.choice(kinds) or ([] if empty else ["a"])
        references.append([" ".join(ref) for ref in refs])
        hypotheses.append(" ".join(hypothesis))
    return hypotheses, references


@pytest.fixture
def corpus() -> Callable[..., Corpus]:
    return natural


def as_rows(lists: list[list[int]], pad: int = 0, extra: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [B, T] and a prefix mask [B, T]."""
    width = max(1, *map(len, lists)) + extra
    tokens = torch.full((len(lists), width), pad)
    for row, line in enumerate(lists):
        tokens[row, : len(line)] = torch.tensor(line, dtype=torch.int64)
    return tokens, torch.arange(width) < torch.tensor([len(line) for line in lists])[:, None]


def random_ids(seed: int, items: int = 40) -> tuple[list[list[int]], list[list[list[int]]]]:
    """Hypotheses and references as ids in 1 … 9; EOS is 0 and not yet there."""
    draw = random.Random(seed)
    line = lambda low: [draw.randint(1, 9) for _ in range(draw.randint(low, 12))]  # noqa: E731
    references = [[line(1) for _ in range(draw.randint(1, 4))] for _ in range(items)]
    hypotheses = [draw.choice([line(0), list(draw.choice(refs))]) for refs in references]
    return hypotheses, references


@pytest.fixture
def ids() -> Callable[..., tuple[list[list[int]], list[list[list[int]]]]]:
    return random_ids


@pytest.fixture
def rows() -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    return as_rows
