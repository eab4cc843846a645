"""The reward call: EOS, padding, batch-mates, items, increments; the same for every metric."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rlseq.metrics import (
    BLEU,
    COCO,
    MIXER,
    ROUGEL,
    ROUGEN,
    TER,
    ChrF,
    CIDEr,
    CIDErD,
    EditDistance,
    ErrorRate,
    Exact,
    TokenErrorRate,
    negative,
)

EOS = 0
METRICS: dict[str, Any] = {
    "bleu": BLEU,
    "bleu_coco": lambda refs, **k: BLEU(refs, definition=COCO, **k),
    "bleu_mixer": lambda refs, **k: BLEU(refs, definition=MIXER, **k),
    "cider": CIDEr,
    "cider_d": CIDErD,
    "rouge_l": ROUGEL,
    "rouge_n": ROUGEN,
    "chrf": ChrF,
    "edit": EditDistance,
    "minus_distance": lambda refs, **k: EditDistance(refs, gain=negative, **k),
    "error_rate": ErrorRate,
    "exact": Exact,
    "token_error_rate": TokenErrorRate,
    "ter": TER,
}
DENSE = [name for name in METRICS if name != "ter"]
everything = pytest.mark.parametrize("name", METRICS)


def context(rows: int) -> dict[str, Tensor]:
    return {"index": torch.arange(rows)}


@pytest.fixture
def case(ids: Any, rows: Any) -> Any:
    """Hypotheses (EOS at the end of most), references, tokens and mask."""
    hypotheses, references = ids(3)
    closed = [[*line, EOS] if i % 5 else line for i, line in enumerate(hypotheses)]
    return closed, references, *rows(closed)


@everything
def test_eos_is_a_scored_word(name: str, case: Any) -> None:
    """The reward with eos equals the score of the same ids with EOS written out as a word."""
    hypotheses, references, tokens, mask = case
    metric = METRICS[name](references, eos=EOS, dtype=torch.float64)
    written = [[[*ref, EOS] for ref in refs] for refs in references]
    plain = METRICS[name](written, dtype=torch.float64)
    got = metric(tokens, mask, context(len(tokens)))
    assert torch.equal(got, plain(tokens, mask, context(len(tokens))))
    assert torch.equal(metric.score(hypotheses), plain.score(hypotheses))
    if name not in ("edit", "minus_distance", "error_rate", "token_error_rate", "ter"):
        assert torch.equal(got, metric.score(hypotheses))


@everything
def test_stopping_early_and_not_stopping_score_differently(name: str) -> None:
    """A fragment "with a" and the same words with EOS are different hypotheses."""
    metric = METRICS[name]([[[1, 2]], [[3, 4, 5]]], eos=EOS)
    tokens = torch.tensor([[1, 2, EOS], [1, 2, 9]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    stopped, fragment = metric(tokens, mask, {"index": torch.tensor([0, 0])}).tolist()
    assert stopped > fragment


@everything
def test_nothing_after_the_first_eos_counts(name: str, case: Any) -> None:
    _, references, tokens, mask = case
    metric = METRICS[name](references, eos=EOS)
    wanted = metric(tokens, mask, context(len(tokens)))
    tail = torch.randint(0, 9, (len(tokens), 4), generator=torch.Generator().manual_seed(0))
    ended = (tokens == EOS) & mask
    longer = torch.cat([tokens, tail], 1)
    beyond = torch.cat([mask | (ended.cumsum(1) > 0), ended.any(1, keepdim=True).expand(-1, 4)], 1)
    assert torch.equal(metric(longer, beyond, context(len(tokens))), wanted)


@everything
@pytest.mark.parametrize("pad", [EOS, 7, -5, 10**12])
def test_padding_changes_nothing(name: str, pad: int, case: Any, rows: Any) -> None:
    hypotheses, references, tokens, mask = case
    metric = METRICS[name](references, eos=EOS)
    wanted = metric(tokens, mask, context(len(tokens)))
    padded, longer = rows(hypotheses, pad, extra=3)
    assert torch.equal(metric(padded, longer, context(len(tokens))), wanted)


@everything
def test_a_row_does_not_depend_on_its_batch_mates(name: str, case: Any) -> None:
    _, references, tokens, mask = case
    metric = METRICS[name](references, eos=EOS)
    together = metric(tokens, mask, context(len(tokens)))
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(1))
    shuffled = metric(tokens[order], mask[order], {"index": order})
    assert torch.equal(shuffled, together[order])
    for row in range(0, len(tokens), 7):
        one = slice(row, row + 1)
        alone = metric(tokens[one], mask[one], {"index": torch.tensor([row])})
        assert torch.equal(alone, together[one])


@everything
def test_several_samples_of_one_item(name: str, case: Any) -> None:
    _, references, tokens, mask = case
    metric = METRICS[name](references, eos=EOS)
    once = metric(tokens, mask, context(len(tokens)))
    index = torch.arange(len(tokens)).repeat_interleave(3)
    thrice = metric(tokens[index], mask[index], {"index": index})
    assert torch.equal(thrice, once.repeat_interleave(3))


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_increments_sum_to_the_reward(name: str, dtype: torch.dtype, case: Any) -> None:
    _, references, tokens, mask = case
    metric = METRICS[name](references, eos=EOS, dtype=dtype)
    reward = metric(tokens, mask, context(len(tokens)))
    gains = metric.increments(tokens, mask, context(len(tokens)))
    assert gains.dtype == dtype
    assert gains.shape == tokens.shape
    assert not gains[~mask].any()
    scale = 100 if name in ("bleu", "chrf") else 10
    tolerance = 1e-6 * (scale if dtype == torch.float32 else 1)
    some = mask.any(1)  # nothing is paid for nothing
    assert (gains.sum(1) - reward)[some].abs().max() <= tolerance


@pytest.mark.parametrize("name", DENSE)
def test_an_increment_is_the_gain_over_the_shorter_prefix(name: str, case: Any) -> None:
    _, references, tokens, mask = case
    metric = METRICS[name](references, eos=EOS, dtype=torch.float64)
    gains = metric.increments(tokens, mask, context(len(tokens))).cumsum(1)
    for step in range(1, tokens.shape[1] + 1):
        seen = mask & (torch.arange(tokens.shape[1]) < step)
        prefix = metric(tokens, seen, context(len(tokens)))
        there = mask[:, step - 1]
        assert torch.allclose(gains[there, step - 1], prefix[there], atol=1e-9)


def test_increments_with_references_of_several_words_of_bits(ids: Any, rows: Any) -> None:
    """Beyond 64 tokens a bit vector has several words; what was yielded must not change later."""
    generator = torch.Generator().manual_seed(0)
    references = [[torch.randint(1, 5, (150,), generator=generator).tolist()] for _ in range(5)]
    hypotheses = [torch.randint(1, 5, (170,), generator=generator).tolist() for _ in range(5)]
    tokens, mask = rows(hypotheses)
    for make in (EditDistance, ROUGEL):
        metric = make(references, dtype=torch.float64)
        gains = metric.increments(tokens, mask, context(5)).cumsum(1)
        for step in (1, 63, 64, 65, 128, 170):
            prefix = metric(tokens[:, :step], mask[:, :step], context(5))
            assert torch.allclose(gains[:, step - 1], prefix, atol=1e-9)


@everything
def test_large_batches_are_judged_in_parts(name: str, case: Any, monkeypatch: Any) -> None:
    _, references, tokens, mask = case
    metric = METRICS[name](references, eos=EOS)
    wanted = metric(tokens, mask, context(len(tokens)))
    monkeypatch.setattr("rlseq.metrics.base.CELLS", 3000)
    assert torch.equal(metric(tokens, mask, context(len(tokens))), wanted)


@everything
def test_no_rows_at_all(name: str, case: Any) -> None:
    _, references, tokens, mask = case
    metric = METRICS[name](references, eos=EOS)
    assert metric(tokens[:0], mask[:0], {"index": torch.arange(0)}).shape == (0,)


@everything
def test_an_unknown_token_matches_nothing(name: str, case: Any) -> None:
    """An id above all those of the references is a word like any other, and not one of theirs."""
    _, references, tokens, mask = case
    metric = METRICS[name](references)
    high = torch.where(tokens == 1, 10**6, tokens)
    low = torch.where(tokens == 1, 10, tokens)
    assert torch.equal(metric(high, mask, context(len(tokens))), metric(low, mask, context(len(tokens))))


def test_ter_has_no_increments(case: Any) -> None:
    _, references, tokens, mask = case
    with pytest.raises(TypeError, match="no increments"):
        TER(references).increments(tokens, mask, context(len(tokens)))


@everything
def test_signature_and_silence(name: str, case: Any, capfd: Any) -> None:
    hypotheses, references, tokens, mask = case
    metric = METRICS[name](references, eos=EOS)
    metric(tokens, mask, context(len(tokens)))
    metric.corpus(hypotheses)
    assert "eos:0" in metric.signature
    assert "rlseq:" in metric.signature
    assert capfd.readouterr() == ("", "")


def test_signature_of_the_issue() -> None:
    cider = CIDErD([["a b"], ["c d"]])
    assert cider.signature.startswith("cider_d|n:4|sigma:6|df:corpus:2|scale:10|")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@everything
def test_the_device_follows_the_tokens(name: str, case: Any) -> None:
    _, references, tokens, mask = case
    metric = METRICS[name](references, eos=EOS, dtype=torch.float64)
    wanted = metric(tokens, mask, context(len(tokens)))
    index = {"index": torch.arange(len(tokens)).cuda()}
    got = metric(tokens.cuda(), mask.cuda(), index)
    assert got.is_cuda
    assert torch.allclose(got.cpu(), wanted, atol=1e-9)


@everything
def test_moving_one_metric_leaves_others_alone(name: str, case: Any) -> None:
    """Fitted tables may be shared, so that `to` makes copies."""
    _, references, tokens, mask = case
    metric = METRICS[name](references, eos=EOS)
    other = METRICS[name](references, eos=EOS)
    wanted = other(tokens, mask, context(len(tokens)))
    metric.to("meta")
    assert torch.equal(other(tokens, mask, context(len(tokens))), wanted)
