"""Bad input: one clear error each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rlseq.metrics import (
    BLEU,
    CIDErD,
    DistinctN,
    EditDistance,
    LengthPenalty,
    Overlong,
    SelfBLEU,
    WeightedSum,
    evaluate,
)

REFS = [["a b c", "a c"], ["d e"], ["f g h"]]
IDS = [[[1, 2, 3]], [[4, 5]]]
TOKENS, MASK = torch.tensor([[1, 2], [4, 5]]), torch.ones(2, 2, dtype=torch.bool)


def test_references_must_be_lists() -> None:
    with pytest.raises(TypeError, match=r"got 2 strings for 2 items; wrap each in a list"):
        BLEU(["a b", "c d"])
    with pytest.raises(TypeError, match="references must be a sequence or a RefTable, got 'a b c'"):
        BLEU("a b c")
    with pytest.raises(TypeError, match="which is one reference; wrap it"):
        BLEU([[1, 2, 3], [4, 5]])
    with pytest.raises(TypeError, match=r"references\[0\] must be a list of references, got int"):
        BLEU([3, 4])


def test_empty_references() -> None:
    with pytest.raises(ValueError, match="references is empty"):
        BLEU([])
    with pytest.raises(ValueError, match=r"references\[1\] is empty"):
        BLEU([["a"], []])


def test_transposed_references_are_named() -> None:
    transposed = [["a b", "c d", "e f"], ["a c", "c e", "e g"]]
    with pytest.raises(ValueError, match=r"3 hypotheses for 2 items.*transposed"):
        BLEU(transposed).score(["a b", "c d", "e f"])


def test_lengths_that_disagree() -> None:
    with pytest.raises(ValueError, match="2 hypotheses for 3 items"):
        BLEU(REFS).score(["a", "b"])
    with pytest.raises(ValueError, match="4 hypotheses for 3 items"):
        CIDErD(REFS).corpus(["a", "b", "c", "d"])


def test_hypotheses_must_be_lines() -> None:
    with pytest.raises(TypeError, match="hypotheses must be a list of texts"):
        BLEU(REFS).score("a b c")
    with pytest.raises(TypeError, match="NoneType"):
        BLEU(REFS).score(["a", None, "b"])
    with pytest.raises(TypeError, match="token ids"):
        BLEU(IDS).score([[1.5, 2.0], [1]])


def test_words_and_ids_do_not_mix() -> None:
    with pytest.raises(TypeError, match="all texts or all token ids"):
        BLEU([["a b"], [[1, 2]]])
    with pytest.raises(TypeError, match="all texts or all token ids"):
        BLEU(REFS).score([[1], [2], [3]])
    with pytest.raises(TypeError, match="eos=0 is a token id"):
        BLEU(REFS, eos=0)


def test_a_metric_on_words_is_no_reward_on_ids() -> None:
    with pytest.raises(TypeError, match="fitted on words"):
        BLEU(REFS)(TOKENS, MASK, {"index": torch.arange(2)})


def test_a_tokenizer_may_return_ids() -> None:
    letters = {"a": 1, "b": 2}
    metric = BLEU([["ab"], ["ba"]], tokenize=lambda text: [letters[c] for c in text], eos=0)
    tokens = torch.tensor([[1, 2, 0], [2, 1, 0]])
    reward = metric(tokens, tokens >= 0, {"index": torch.arange(2)})
    assert reward.tolist() == pytest.approx([100, 100])
    assert metric.score(["ab", "ba"]).tolist() == pytest.approx([100, 100])


def test_tokens_outside_the_vocabulary() -> None:
    metric = BLEU(IDS, vocab_size=6)
    index = {"index": torch.arange(2)}
    with pytest.raises(ValueError, match=r"\[0, 6\).*got 6"):
        metric(torch.tensor([[1, 6], [4, 5]]), MASK, index)
    with pytest.raises(ValueError, match="got -1"):
        metric(torch.tensor([[1, -1], [4, 5]]), MASK, index)
    unseen = torch.tensor([[True, False], [True, True]])
    metric(torch.tensor([[1, -1], [4, 5]]), unseen, index)  # padding may be anything
    with pytest.raises(ValueError, match=r"\[0, 5\), got 5"):
        BLEU(IDS, vocab_size=5)
    with pytest.raises(ValueError, match="got -3"):
        BLEU([[[1, -3]]])
    with pytest.raises(ValueError, match="got 7"):
        metric.score([[7], [1]])


def test_an_index_outside_the_fitted_items() -> None:
    for wrong in (2, -1):
        with pytest.raises(ValueError, match=rf"\[0, 2\).*got {wrong}"):
            BLEU(IDS)(TOKENS, MASK, {"index": torch.tensor([0, wrong])})
    with pytest.raises(ValueError, match='no "index"'):
        BLEU(IDS)(TOKENS, MASK, {})
    with pytest.raises(ValueError, match=r"must be \[B\], got \[3\] for 2 rows"):
        BLEU(IDS)(TOKENS, MASK, {"index": torch.arange(3)})


def test_shapes() -> None:
    with pytest.raises(ValueError, match=r"\[B, T\], got \[2, 2\] and \[2, 3\]"):
        BLEU(IDS)(TOKENS, torch.ones(2, 3, dtype=torch.bool), {"index": torch.arange(2)})


def test_one_item_is_no_corpus() -> None:
    with pytest.raises(ValueError, match=r"at least 2 items, got 1.*df=CIDErD"):
        CIDErD([["a b c"]])
    corpus = CIDErD(REFS)
    alone = CIDErD([["a b c", "a c"]], df=corpus.df)
    assert torch.equal(alone.score(["a b"]), corpus.score(["a b", "x", "y"])[:1])


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_weights_must_be_finite(weight: float) -> None:
    with pytest.raises(ValueError, match=r"must be (a )?finite"):
        weight * BLEU(REFS)
    with pytest.raises(ValueError, match=r"must be (a )?finite"):
        LengthPenalty(weight)
    with pytest.raises(ValueError, match=r"must be (a )?finite"):
        WeightedSum([(weight, BLEU(REFS))])
    with pytest.raises(ValueError, match=r"must be (a )?finite"):
        BLEU(REFS).clip(0, weight)


def test_nonsense_combinations() -> None:
    bleu: Any = BLEU(REFS)
    with pytest.raises(TypeError, match=r"use \.shift"):
        bleu + 3
    with pytest.raises(TypeError, match="must be a number, got str"):
        bleu * "2"
    with pytest.raises(ValueError, match="divided by 0"):
        bleu / 0
    with pytest.raises(ValueError, match="low ≤ high"):
        bleu.clip(1, 0)
    with pytest.raises(ValueError, match="0 < margin ≤ limit"):
        Overlong(limit=5, margin=6)
    with pytest.raises(TypeError, match="no increments"):
        BLEU(REFS).__class__.dense(DistinctN())


def test_sets() -> None:
    with pytest.raises(ValueError, match="with each other, got 1"):
        SelfBLEU().score(["a b"])


def test_unknown_metrics_and_options() -> None:
    with pytest.raises(ValueError, match="unknown metric 'ciderd'; did you mean 'cider_d'"):
        evaluate(["a", "b", "c"], REFS, metrics=["ciderd"])
    with pytest.raises(TypeError, match="has the option 'colour'"):
        evaluate(["a", "b", "c"], REFS, metrics=["bleu"], colour="red")


def test_edit_distance_of_an_empty_hypothesis() -> None:
    assert EditDistance(REFS).score(["", "", ""]).tolist() == [2, 2, 3]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BLEU(REFS, order=0), r"order must be an integer in \[1, 64\], got 0"),
        (lambda: DistinctN(order=0), r"order must be an integer in \[1, 64\], got 0"),
        (lambda: CIDErD(REFS, sigma=0), "sigma must be a finite number > 0, got 0"),
        (lambda: BLEU(REFS, dtype=torch.int32), "dtype must be a type of fractions.*got torch.int32"),
        (lambda: BLEU(IDS, eos=9, vocab_size=6), "eos must be a token id of the vocabulary, got eos=9"),
        (lambda: DistinctN(eos=-1), "eos must be "),
    ],
)
def test_settings_without_sense(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_weights_may_be_numpys() -> None:
    half: Any = np.float32(0.5)
    assert (BLEU(REFS) * half).terms[0][0] == 0.5
