"""Long texts and large sets: counts beyond 16 bits, sums beyond them, and times that do not explode."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
import sacrebleu
import torch
from pycocoevalcap.rouge.rouge import Rouge
from rapidfuzz.distance import LCSseq, Levenshtein

from rlseq.metrics import (
    BLEU,
    ROUGEL,
    ROUGEN,
    TER,
    ChrF,
    CIDErD,
    DistinctN,
    EditDistance,
    ErrorRate,
    Repetition,
    SelfBLEU,
    bitparallel,
)
from rlseq.metrics.ngrams import PAD, _compared, _ranked
from rlseq.metrics.tokenize import characters, whitespace

F64 = torch.float64


@pytest.mark.parametrize("count", [32_767, 32_768, 40_000])
def test_a_word_may_occur_more_often_than_16_bits_count(count: int) -> None:
    long, shorter = " ".join(["a"] * count), " ".join(["a"] * 35_000)
    bleu = BLEU([[long], [shorter]], dtype=F64, tokenize=whitespace)
    got = bleu.score([shorter, long]).tolist()
    wanted = [
        sacrebleu.sentence_bleu(h, [r], tokenize="none").score for h, r in [(shorter, long), (long, shorter)]
    ]
    assert got == pytest.approx(wanted, abs=1e-9)
    rouge = ROUGEN([[long]], order=1, dtype=F64).score([shorter]).item()
    assert rouge == pytest.approx(2 * min(count, 35_000) / (count + 35_000), abs=1e-12)


def test_chrf_of_a_letter_more_often_than_16_bits_count() -> None:
    long, shorter = "a" * 40_000, "a" * 36_000
    wanted = sacrebleu.sentence_chrf(shorter, [long]).score
    assert ChrF([[long]], dtype=F64).score([shorter]).item() == pytest.approx(wanted, abs=1e-9)


def test_cider_of_a_word_more_often_than_16_bits_count() -> None:
    """Squares of counts beyond 16,383 do not fit 16 bits either."""
    long = " ".join(["a", "b"] * 20_000)
    score = CIDErD([[long], ["c d e f"]], dtype=F64).score([long, "c d e f"])
    assert score.tolist() == pytest.approx([10.0, 10.0], abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_both_ways_to_find_repeats_agree(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, (2, 9, 2**31)[seed % 3], (7, 40), generator=draw)
    ids = torch.where(torch.arange(40) < torch.randint(0, 41, (7, 1), generator=draw), ids, PAD)
    for compared, ranked in zip(_compared(ids, 5), _ranked(ids, 5), strict=True):
        assert torch.equal(compared.long(), ranked)


def test_self_bleu_of_a_large_set() -> None:
    """A count times the number of rows has to fit: 7 equal words in each of 6,000 rows do not fit 16 bits."""
    draw = random.Random(0)
    lines = [" ".join(draw.choices("ab", k=draw.randint(8, 14))) for _ in range(6_000)]
    got = SelfBLEU(dtype=F64).score(lines)
    for i in range(0, 6_000, 2_000):
        wanted = sacrebleu.sentence_bleu(lines[i], lines[:i] + lines[i + 1 :], tokenize="none").score
        assert got[i].item() == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("metric", [DistinctN, Repetition])
def test_shares_are_exact_in_float64(metric: Any) -> None:
    line = "a b c a b c a b c d e f g h"
    pairs = list(zip(line.split(), line.split()[1:], strict=False))
    share = len(set(pairs)) / len(pairs)
    wanted = share if metric is DistinctN else 1 - share
    assert metric(order=2, dtype=F64).score([line]).item() == pytest.approx(wanted, abs=1e-15)
    assert metric(order=2, dtype=F64).corpus([line]) == pytest.approx(wanted, abs=1e-15)


def spoilt(draw: random.Random, line: list[str], kinds: str) -> list[str]:
    """A tenth of the letters replaced, a twentieth dropped, and a block moved."""
    kept = [draw.choice(kinds) if draw.random() < 0.1 else c for c in line if draw.random() > 0.05]
    return [*kept[len(kept) // 3 :], *kept[: len(kept) // 3]]


def test_long_texts_are_compared_in_seconds() -> None:
    """Two texts of 7,000 letters took two minutes."""
    draw = random.Random(0)
    reference = draw.choices("abcdefgh ", k=7_000)
    hypothesis = spoilt(draw, reference, "abcdefgh ")
    text, other = "".join(reference), "".join(hypothesis)
    start = time.perf_counter()
    distance = EditDistance([[text, text[:500], ""]], tokenize=characters, dtype=F64).score([other]).item()
    rate = ErrorRate([[text]], tokenize=characters, dtype=F64).score([other]).item()
    rouge = ROUGEL([[text]], tokenize=characters, dtype=F64, beta=1.0).score([other]).item()
    assert time.perf_counter() - start < 20
    assert distance == min(Levenshtein.distance(other, ref) for ref in (text, text[:500], ""))
    assert rate == pytest.approx(Levenshtein.distance(other, text) / 7_000, abs=1e-12)
    shared = LCSseq.similarity(other, text)
    assert rouge == pytest.approx(2 * shared / (len(text) + len(other)), abs=1e-12)


def test_long_and_short_patterns_agree(monkeypatch: Any, corpus: Any, rows: Any, ids: Any) -> None:
    hypotheses, references = ids(3)
    tokens, mask = rows(hypotheses, extra=2)
    context = {"index": torch.arange(len(hypotheses))}
    short = [make(references, dtype=F64, eos=9) for make in (EditDistance, ErrorRate, ROUGEL)]
    monkeypatch.setattr(bitparallel, "_LONGEST", 0)
    long = [make(references, dtype=F64, eos=9) for make in (EditDistance, ErrorRate, ROUGEL)]
    for a, b in zip(short, long, strict=True):
        assert torch.equal(a(tokens, mask, context), b(tokens, mask, context))
        assert torch.equal(a.value(tokens, mask, context), b.value(tokens, mask, context))
        assert torch.equal(a.increments(tokens, mask, context), b.increments(tokens, mask, context))
    lines, refs = corpus(4, 40)
    _, wanted = Rouge().compute_score(dict(enumerate(refs)), {i: [line] for i, line in enumerate(lines)})
    assert ROUGEL(refs, dtype=F64).score(lines).tolist() == pytest.approx(list(wanted), abs=1e-9)


def test_ter_of_long_texts() -> None:
    draw = random.Random(0)
    reference = [f"w{draw.randint(0, 2_000)}" for _ in range(120)]
    hypothesis = " ".join([*reference[90:], *reference[:90]])
    wanted = sacrebleu.sentence_ter(hypothesis, [" ".join(reference)]).score
    assert TER([[" ".join(reference)]], dtype=F64).score([hypothesis]).item() == pytest.approx(
        wanted, abs=1e-9
    )
