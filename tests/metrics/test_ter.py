"""TER where its rules matter: many shifts, ties, long phrases, giving up, a narrow beam."""

from __future__ import annotations

import random

import pytest
import sacrebleu
import torch

from rlseq.metrics import TER


def agree(hypotheses: list[list[str]], references: list[list[str]]) -> None:
    texts = [" ".join(line) for line in hypotheses]
    refs = [[" ".join(line)] for line in references]
    got = TER(refs, dtype=torch.float64).score(texts).tolist()
    wanted = [sacrebleu.sentence_ter(h, r).score for h, r in zip(texts, refs, strict=True)]
    assert got == pytest.approx(wanted, abs=1e-9)


def blocks(draw: random.Random, words: list[str]) -> list[str]:
    """The words in a few pieces, in another order, some of them changed."""
    cuts = sorted(draw.randint(0, len(words)) for _ in range(draw.randint(1, 5)))
    pieces = [words[a:b] for a, b in zip([0, *cuts], [*cuts, len(words)], strict=True)]
    draw.shuffle(pieces)
    joined = [word for piece in pieces for word in piece]
    return [draw.choice(words) if draw.random() < 0.1 else word for word in joined]


@pytest.mark.parametrize("kinds", [2, 3, 4, 6, 30])
def test_shifted_blocks(kinds: int) -> None:
    draw = random.Random(kinds)
    words = [f"w{k}" for k in range(kinds)]
    references = [[draw.choice(words) for _ in range(draw.randint(2, 16))] for _ in range(300)]
    agree([blocks(draw, line) for line in references], references)


def test_phrases_longer_than_a_shift_may_be() -> None:
    """Eleven to fifteen words that moved together take two shifts, not one."""
    line = [f"w{k}" for k in range(32)]
    moved = [line[k:] + line[:k] for k in range(8, 25)]
    agree(moved, [line] * len(moved))
    assert TER([[" ".join(line)]]).score([" ".join(line[:10] + line[21:] + line[10:21])]) > 100 / 32


def test_a_search_that_is_given_up() -> None:
    """Two words over and over make more than a thousand candidates, and then no shift is made."""
    draw = random.Random(0)
    references = [[draw.choice("ab") for _ in range(n)] for n in (14, 20, 24, 28, 32)]
    agree([blocks(draw, line) for line in references], references)


def test_a_beam_that_is_too_narrow() -> None:
    """Words that moved by more than 25 positions are not found by the edit distance."""
    line = [f"w{k}" for k in range(70)]
    short = [f"w{k}" for k in range(40, 45)]
    agree([[*line[35:], *line[:35]], short, line], [line, line, short])
