"""Every metric against its reference implementation, on random and on natural-looking text."""

from __future__ import annotations

import random
from typing import Any

import pytest
import sacrebleu
import torch
from hypothesis import given
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from rapidfuzz.distance import Levenshtein

from rlseq.metrics import (
    BLEU,
    COCO,
    ROUGEL,
    TER,
    ChrF,
    CIDErD,
    EditDistance,
    ErrorRate,
    SelfBLEU,
)
from rlseq.metrics.tokenize import whitespace

F64 = torch.float64
SEEDS = range(4)


def line(smallest: int) -> st.SearchStrategy[str]:
    words = st.lists(st.sampled_from("abcd"), min_size=smallest, max_size=9)
    return words.map(" ".join)


sample = st.tuples(line(0), st.lists(line(1), min_size=1, max_size=4))
pairs = st.lists(sample, min_size=2, max_size=6)


def split(sample: list[tuple[str, list[str]]]) -> tuple[list[str], list[list[str]]]:
    return [hypothesis for hypothesis, _ in sample], [refs for _, refs in sample]


def streams(references: list[list[str]]) -> list[list[Any]]:
    """sacreBLEU wants the k-th references of all items together, None where there is none."""
    most = max(map(len, references))
    return [[refs[k] if k < len(refs) else None for refs in references] for k in range(most)]


def coco(hypotheses: list[str], references: list[list[str]]) -> tuple[Any, Any]:
    return dict(enumerate(references)), {i: [line] for i, line in enumerate(hypotheses)}


def close(got: torch.Tensor, wanted: Any, scale: float) -> None:
    want = torch.tensor(list(wanted), dtype=F64)
    tolerance = 1e-9 if got.dtype == F64 else 1e-5 * scale
    assert (got.double() - want).abs().max() <= tolerance


def check_bleu(hypotheses: list[str], references: list[list[str]], dtype: torch.dtype) -> None:
    bleu = BLEU(references, dtype=dtype)
    both = zip(hypotheses, references, strict=True)
    close(bleu.score(hypotheses), [sacrebleu.sentence_bleu(h, r).score for h, r in both], 100)
    wanted = sacrebleu.corpus_bleu(hypotheses, streams(references)).score
    assert bleu.corpus(hypotheses) == pytest.approx(wanted, abs=1e-9)


def check_bleu_coco(hypotheses: list[str], references: list[list[str]], dtype: torch.dtype) -> None:
    corpus, sentences = Bleu(4).compute_score(*coco(hypotheses, references), verbose=0)
    for order in range(1, 5):
        bleu = BLEU(references, order=order, definition=COCO, tokenize=whitespace, dtype=dtype)
        close(bleu.score(hypotheses), sentences[order - 1], 1)
        assert bleu.corpus(hypotheses) == pytest.approx(corpus[order - 1], abs=1e-9)


def check_cider(hypotheses: list[str], references: list[list[str]], dtype: torch.dtype) -> None:
    corpus, sentences = Cider().compute_score(*coco(hypotheses, references))
    cider = CIDErD(references, dtype=dtype)
    close(cider.score(hypotheses), sentences, 10)
    assert cider.corpus(hypotheses) == pytest.approx(corpus, abs=1e-9 if dtype == F64 else 1e-4)


def check_rouge(hypotheses: list[str], references: list[list[str]], dtype: torch.dtype) -> None:
    corpus, sentences = Rouge().compute_score(*coco(hypotheses, references))
    rouge = ROUGEL(references, dtype=dtype)
    close(rouge.score(hypotheses), sentences, 1)
    assert rouge.corpus(hypotheses) == pytest.approx(corpus, abs=1e-9 if dtype == F64 else 1e-5)


def check_chrf(hypotheses: list[str], references: list[list[str]], dtype: torch.dtype) -> None:
    chrf = ChrF(references, dtype=dtype)
    both = zip(hypotheses, references, strict=True)
    close(chrf.score(hypotheses), [sacrebleu.sentence_chrf(h, r).score for h, r in both], 100)
    wanted = sacrebleu.corpus_chrf(hypotheses, streams(references)).score
    assert chrf.corpus(hypotheses) == pytest.approx(wanted, abs=1e-9)


def check_ter(hypotheses: list[str], references: list[list[str]], dtype: torch.dtype) -> None:
    ter = TER(references, dtype=dtype)
    both = zip(hypotheses, references, strict=True)
    close(ter.score(hypotheses), [sacrebleu.sentence_ter(h, r).score for h, r in both], 100)
    wanted = sacrebleu.corpus_ter(hypotheses, streams(references)).score
    assert ter.corpus(hypotheses) == pytest.approx(wanted, abs=1e-9)


def check_edit(hypotheses: list[str], references: list[list[str]], dtype: torch.dtype) -> None:
    nearest = []
    for hypothesis, refs in zip(hypotheses, references, strict=True):
        words = hypothesis.split()
        found = [(Levenshtein.distance(words, ref.split()), -len(ref.split())) for ref in refs]
        nearest.append(min(found))
    distances = [distance for distance, _ in nearest]
    close(EditDistance(references, dtype=dtype).score(hypotheses), distances, 1)
    rate = ErrorRate(references, dtype=dtype)
    close(rate.score(hypotheses), [distance / -length for distance, length in nearest], 1)
    pooled = sum(distances) / sum(-length for _, length in nearest)
    assert rate.corpus(hypotheses) == pytest.approx(pooled, abs=1e-9)


CHECKS = [check_bleu, check_bleu_coco, check_cider, check_rouge, check_chrf, check_ter, check_edit]


@pytest.mark.parametrize("dtype", [F64, torch.float32], ids=str)
@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("seed", SEEDS)
def test_natural_text(check: Any, dtype: torch.dtype, seed: int, corpus: Any) -> None:
    check(*corpus(seed, 60), dtype)


@pytest.mark.parametrize("check", CHECKS)
@given(sample=pairs)
def test_random_text(check: Any, sample: list[tuple[str, list[str]]]) -> None:
    check(*split(sample), F64)


@pytest.mark.parametrize("check", [check_bleu, check_chrf, check_cider, check_rouge, check_edit])
def test_long_text(check: Any, corpus: Any) -> None:
    check(*corpus(9, 12, longest=150, most=4), F64)


@pytest.mark.parametrize("length", [1, 31, 32, 33, 63, 64, 65, 128, 129])
def test_references_at_the_edge_of_a_machine_word(length: int) -> None:
    draw = random.Random(length)
    references = [[" ".join(draw.choices("abc", k=length))] for _ in range(6)]
    hypotheses = [" ".join(draw.choices("abc", k=draw.randint(1, 2 * length))) for _ in range(5)]
    for check in (check_edit, check_rouge):
        check([*hypotheses, references[5][0]], references, F64)


@pytest.mark.parametrize("longest", [40, 70])
def test_ter_beyond_its_beam(longest: int, corpus: Any) -> None:
    check_ter(*corpus(11, 3, longest=longest, most=2), F64)


def test_self_bleu_is_bleu_against_all_others(corpus: Any) -> None:
    hypotheses, _ = corpus(5, 30)
    wanted = []
    for i, hypothesis in enumerate(hypotheses):
        others = hypotheses[:i] + hypotheses[i + 1 :]
        wanted.append(sacrebleu.sentence_bleu(hypothesis, others, tokenize="none").score)
    close(SelfBLEU(dtype=F64).score(hypotheses), wanted, 100)


def test_golden_values() -> None:
    """nlg-eval's example: BLEU .55/.428174/.284043/.201143, ROUGE-L .522104, CIDEr 1.242192."""
    hypotheses = [
        "this is the model generated sentence1 which seems good enough",
        "this is sentence2 which has been generated by your model",
    ]
    references = [
        [
            "this is one reference sentence for sentence1",
            "this is one more reference sentence for sentence1",
        ],
        [
            "this is a reference sentence for sentence2 which was generated by your model",
            "this is the second reference sentence for sentence2",
        ],
    ]
    for order, wanted in enumerate([0.55, 0.428174, 0.284043, 0.201143], 1):
        bleu = BLEU(references, order=order, definition=COCO)
        assert bleu.corpus(hypotheses) == pytest.approx(wanted, abs=5e-7)
    assert ROUGEL(references).corpus(hypotheses) == pytest.approx(0.522104, abs=5e-7)
    assert CIDErD(references).corpus(hypotheses) == pytest.approx(1.242192, abs=5e-7)
