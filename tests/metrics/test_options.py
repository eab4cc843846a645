"""The options of sacreBLEU: smoothing, chrF++ and its epsilon, the tokenizer of TER."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU as TheirBLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER as TheirTER
from sacrebleu.tokenizers.tokenizer_ter import TercomTokenizer

from rlseq.metrics import (
    BLEU,
    TER,
    ChrF,
    ChrFPlusPlus,
    SelfBLEU,
    add_k,
    all_orders,
    effective_orders,
    evaluate,
    floor,
    halving,
    sacrebleu,
    tercom,
    unsmoothed,
)

F64 = torch.float64


def streams(references: list[list[str]]) -> list[list[Any]]:
    most = max(map(len, references))
    return [[refs[k] if k < len(refs) else None for refs in references] for k in range(most)]


def agree(metric: Any, theirs: Any, corpus: tuple[list[str], list[list[str]]], whole: Any = None) -> None:
    hypotheses, references = corpus
    wanted = [theirs.sentence_score(h, r).score for h, r in zip(*corpus, strict=True)]
    assert metric.score(hypotheses).tolist() == pytest.approx(wanted, abs=1e-9)
    pooled = (whole or theirs).corpus_score(hypotheses, streams(references)).score
    assert metric.corpus(hypotheses) == pytest.approx(pooled, abs=1e-9)


SMOOTHINGS = [
    (unsmoothed, "none", None),
    (halving, "exp", None),
    (floor(), "floor", None),
    (floor(0.01), "floor", 0.01),
    (add_k(), "add-k", None),
    (add_k(0.3), "add-k", 0.3),
]


@pytest.mark.parametrize(("smooth", "method", "value"), SMOOTHINGS)
@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_smoothing_is_sacrebleus(
    smooth: Any, method: str, value: Any, order: int, seed: int, corpus: Any
) -> None:
    options: Any = {"smooth_method": method, "smooth_value": value, "max_ngram_order": order}
    text = corpus(seed, 40, longest=6)
    bleu = BLEU(text[1], order=order, definition=sacrebleu(smooth), dtype=F64)
    agree(bleu, TheirBLEU(effective_order=True, **options), text, whole=TheirBLEU(**options))
    for k in range(4):  # corpora of one sentence, where orders without n-grams or matches matter
        one = text[0][k : k + 1], text[1][k : k + 1]
        whole = TheirBLEU(**options).corpus_score(one[0], streams(one[1])).score
        got = BLEU(one[1], order=order, definition=sacrebleu(smooth), dtype=F64).corpus(one[0])
        assert got == pytest.approx(whole, abs=1e-9)


def test_the_signature_names_the_smoothing() -> None:
    assert "def:sacrebleu|" in BLEU([["a"]]).signature
    assert "def:sacrebleu+floor[0.1]|" in BLEU([["a"]], definition=sacrebleu(floor(0.1))).signature
    assert "def:sacrebleu+add-k[1]|" in BLEU([["a"]], definition=sacrebleu(add_k())).signature
    assert "def:sacrebleu+unsmoothed|" in SelfBLEU(definition=sacrebleu(unsmoothed)).signature


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize("make", [floor, add_k])
def test_a_smoothing_by_nothing_is_refused(make: Any, value: float) -> None:
    with pytest.raises(ValueError, match="must be a finite number above 0"):
        make(value)


def test_floor_as_a_reward_adds_up(ids: Any, rows: Any) -> None:
    hypotheses, references = ids(1)
    bleu = BLEU(references, definition=sacrebleu(floor()), eos=0, dtype=F64)
    tokens, mask = rows(hypotheses)
    context = {"index": torch.arange(len(hypotheses))}
    reward = bleu(tokens, mask, context)
    assert bleu.increments(tokens, mask, context).sum(1).tolist() == pytest.approx(reward.tolist(), abs=1e-9)


@pytest.mark.parametrize(("mean", "eps"), [(effective_orders, False), (all_orders, True)])
@pytest.mark.parametrize("words", [0, 1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_chrf_is_sacrebleus(mean: Any, eps: bool, words: int, seed: int, corpus: Any) -> None:
    text = corpus(seed, 40)
    theirs = CHRF(word_order=words, eps_smoothing=eps)
    make: Any = ChrFPlusPlus if words else ChrF
    options = {"word_order": words} if words else {}
    agree(make(text[1], mean=mean, dtype=F64, **options), theirs, text)
    single = make(text[1], mean=mean, **options).score(text[0])
    assert single.dtype == torch.float32
    wanted = [theirs.sentence_score(h, r).score for h, r in zip(*text, strict=True)]
    assert single.tolist() == pytest.approx(wanted, abs=1e-3)


def test_chrf_plus_plus_reads_texts_only(ids: Any) -> None:
    with pytest.raises(TypeError, match="token ids; use ChrF"):
        ChrFPlusPlus(ids(0)[1])
    tokens = torch.ones(1, 2, dtype=torch.int64)
    with pytest.raises(TypeError, match="fitted on words"):
        ChrFPlusPlus([["a b"]])(tokens, tokens > 0, {"index": torch.tensor([0])})


OPTIONS = [dict(zip(("normalized", "no_punct", "asian_support", "case_sensitive"), on, strict=True))
           for on in product([False, True], repeat=4)]  # fmt: skip
PIECES = [
    *"aB1 2.,-&;'\"<>()[]{}$%\n\t:/?!~@s",
    "'s",
    "&quot;",
    "&amp;lt;",
    "\n-",
    "東",
    "京",
    "ひら",
    "カナ",
    "、",
    "。",
    "！",
    "（",
    "ㇰ",
    "㍿",
    "㈱",
    "〈",
]


@pytest.mark.parametrize("options", OPTIONS)
@given(st.one_of(st.text(max_size=30), st.lists(st.sampled_from(PIECES), max_size=12).map("".join)))
def test_tercoms_tokenizer_is_sacrebleus(options: Any, text: str) -> None:
    assert tercom(**options)(text) == TercomTokenizer(**options)(text.rstrip()).split()


@pytest.mark.parametrize("options", OPTIONS)
def test_ter_with_the_options_of_sacrebleu(options: Any, corpus: Any) -> None:
    text = corpus(2, 12)
    agree(TER(text[1], tokenize=tercom(**options), dtype=F64), TheirTER(**options), text)


def test_new_names_can_be_evaluated(corpus: Any) -> None:
    hypotheses, references = corpus(0, 20)
    report = evaluate(hypotheses, references, metrics=["chrf++", "ter_normalized"])
    plus, ter = CHRF(word_order=2), TheirTER(normalized=True)
    assert report["chrf++"] == pytest.approx(
        plus.corpus_score(hypotheses, streams(references)).score, abs=1e-9
    )
    wanted = ter.corpus_score(hypotheses, streams(references)).score
    assert report["ter_normalized"] == pytest.approx(wanted, abs=1e-9)
    assert "chrf++|nw:2|nc:6|beta:2" in report.signatures["chrf++"]
    assert "tok:tercom+norm|" in report.signatures["ter_normalized"]
