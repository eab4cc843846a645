"""Metrics without a reference implementation, against slow loops and values by hand."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch

from rlseq.metrics import (
    BLEU,
    MIXER,
    ROUGEN,
    CIDEr,
    CIDErD,
    Commonness,
    DistinctN,
    DocumentFrequency,
    Exact,
    Length,
    Repetition,
    TokenErrorRate,
    recall_only,
)

F64 = torch.float64


def grams(words: list[str], n: int) -> Counter[Any]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def slow_mixer(hypothesis: list[str], reference: list[str]) -> float:
    orders = min(4, len(hypothesis), len(reference))
    if orders == 0:
        return 0.0
    logs = 0.0
    for n in range(1, orders + 1):
        own, theirs = grams(hypothesis, n), grams(reference, n)
        logs += math.log((sum((own & theirs).values()) + 1) / (sum(own.values()) + 1))
    short = len(hypothesis) < len(reference)
    penalty = math.exp(1 - (len(reference) + 1) / len(hypothesis)) if short else 1.0
    return penalty * math.exp(logs / orders)


@pytest.mark.parametrize("seed", range(3))
def test_mixer_bleu(seed: int, corpus: Any) -> None:
    hypotheses, references = corpus(seed, 40, most=1)
    bleu = BLEU(references, definition=MIXER, tokenize=str.split, dtype=F64)
    pairs = zip(hypotheses, references, strict=True)
    wanted = torch.tensor([slow_mixer(h.split(), r[0].split()) for h, r in pairs], dtype=F64)
    assert torch.allclose(bleu.score(hypotheses), wanted, atol=1e-12)


def slow_cider(hypotheses: list[str], references: list[list[str]]) -> list[float]:
    """Equation (2) of the paper, by dictionaries."""
    df: Counter[Any] = Counter()
    for refs in references:
        df.update({g for ref in refs for n in range(1, 5) for g in grams(ref.split(), n)})

    def vector(text: str, n: int) -> dict[Any, float]:
        counted = grams(text.split(), n).items()
        return {g: c * math.log(len(references) / max(1, df[g])) for g, c in counted}

    scores = []
    for text, refs in zip(hypotheses, references, strict=True):
        total = 0.0
        for ref in refs:
            for n in range(1, 5):
                own, theirs = vector(text, n), vector(ref, n)
                norm = math.hypot(*own.values()) * math.hypot(*theirs.values())
                dot = sum(own[g] * theirs.get(g, 0.0) for g in own)
                total += dot / norm if norm else 0.0
        scores.append(10 * total / 4 / len(refs))
    return scores


@pytest.mark.parametrize("seed", range(3))
def test_plain_cider(seed: int, corpus: Any) -> None:
    hypotheses, references = corpus(seed, 40)
    wanted = torch.tensor(slow_cider(hypotheses, references), dtype=F64)
    assert torch.allclose(CIDEr(references, dtype=F64).score(hypotheses), wanted, atol=1e-9)


def test_a_perfect_caption_scores_ten_and_repetition_does_not_pay() -> None:
    references = [["a b c d e"], ["f g h i j"], ["k l m n o"]]
    cider = CIDErD(references)
    assert cider.score(["a b c d e", "f g h i j", "x"]).tolist() == pytest.approx([10, 10, 0])
    loop, honest, _ = cider.score(["a b c d e a b c d e", "f g h i", "x"]).tolist()
    assert loop < honest


def test_frequencies_are_fitted_once_shared_and_saved(corpus: Any) -> None:
    hypotheses, references = corpus(1, 30)
    first, second = CIDErD(references), CIDErD(references)
    assert first.df is second.df
    assert CIDErD([["z" + r for r in refs] for refs in references]).df is not first.df
    state = first.df.state_dict()
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    again = DocumentFrequency.from_state(state)
    assert again.fingerprint == first.df.fingerprint
    few = CIDErD(references[:5], df=again)
    assert torch.equal(few.score(hypotheses[:5]), first.score(hypotheses)[:5])


def test_frequencies_of_ids_survive_a_checkpoint(ids: Any) -> None:
    hypotheses, references = ids(0)
    whole = CIDErD(references, eos=0)
    part = CIDErD(references[:3], eos=0, df=DocumentFrequency.from_state(whole.df.state_dict()))
    assert torch.equal(part.score(hypotheses[:3]), whole.score(hypotheses)[:3])


@pytest.mark.parametrize("order", [1, 2, 3])
def test_rouge_n(order: int, corpus: Any) -> None:
    hypotheses, references = corpus(2, 40)
    for combine in (recall_only, None):
        options: dict[str, Any] = {} if combine is None else {"combine": combine}
        got = ROUGEN(references, order=order, dtype=F64, **options).score(hypotheses)
        for text, refs, score in zip(hypotheses, references, got.tolist(), strict=True):
            best = 0.0
            own = grams(text.split(), order)
            for ref in refs:
                theirs = grams(ref.split(), order)
                shared = sum((own & theirs).values())
                recall = shared / max(1, sum(theirs.values()))
                precision = shared / max(1, sum(own.values()))
                both = 2 * precision * recall / (precision + recall) if shared else 0.0
                best = max(best, recall if combine else both)
            assert score == pytest.approx(best, abs=1e-12)


def test_token_error_rate_of_the_lecture() -> None:
    """Δ of two sequences of ten with three wrong positions is 3/10."""
    reference = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    hypothesis = [1, 0, 3, 4, 0, 6, 7, 8, 9, 0]
    rate = TokenErrorRate([[reference], [[1, 2], [3, 4, 5]]], dtype=F64)
    assert rate.score([hypothesis, [3, 4]]).tolist() == pytest.approx([0.3, 1 / 3])
    assert rate.score([[], [1, 2, 3, 4]]).tolist() == pytest.approx([1, 1 / 2])


def test_exact_matches_any_reference() -> None:
    exact = Exact([["a b", "c"], ["d"], ["e f"]])
    assert exact.score(["c", "d d", "e"]).tolist() == [1, 0, 0]


def test_length_distinct_repetition_commonness() -> None:
    texts = ["a b a b a b", "a b", "c", "a b"]
    assert Length().score(texts).tolist() == [6, 2, 1, 2]
    assert Length().corpus(texts) == 11 / 4
    assert DistinctN(order=1).score(texts).tolist() == pytest.approx([1 / 3, 1, 1, 1])
    assert DistinctN(order=2).corpus(texts) == pytest.approx(2 / 7)
    assert Repetition(order=2).score(texts).tolist() == pytest.approx([3 / 5, 0, 0, 0])
    assert Commonness().corpus(texts) == 0.5
    ids, mask = torch.tensor([[1, 2, 0], [1, 0, 9]]), torch.tensor([[True] * 3, [True] * 3])
    assert Length(eos=0)(ids, mask, {}).tolist() == [3, 2]
    assert Commonness(eos=0)(ids, mask, {}).tolist() == [0.5, 0.5]
    assert DistinctN(eos=0).signature == "distinct|n:2|tok:whitespace|rlseq:0.1"
