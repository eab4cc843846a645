from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlseq.metrics import (
    BLEU,
    CIDErD,
    Constant,
    EditDistance,
    KLShaped,
    LengthPenalty,
    Overlong,
    Shuffled,
)
from rlseq.utils.masks import at_last

EOS = 0


@pytest.fixture
def case(ids: Any, rows: Any) -> Any:
    hypotheses, references = ids(7)
    tokens, mask = rows([[*line, EOS] for line in hypotheses])
    return references, tokens, mask, {"index": torch.arange(len(tokens))}


def test_a_weighted_sum(case: Any) -> None:
    references, *call = case
    bleu, cider = BLEU(references, eos=EOS), CIDErD(references, eos=EOS)
    both = 0.5 * bleu + cider / 2 - bleu * 0.25
    wanted = 0.25 * bleu(*call) + 0.5 * cider(*call)
    assert torch.allclose(both(*call), wanted, rtol=1e-5)
    gains = both.increments(*call)
    assert torch.allclose(gains.sum(1), wanted, atol=1e-3)
    assert "bleu|" in both.signature
    assert "cider_d|" in both.signature


def test_parts_are_named_and_unweighted(case: Any) -> None:
    references, *call = case
    bleu = BLEU(references, eos=EOS)

    def brevity(tokens: Tensor, mask: Tensor, context: Any) -> Tensor:
        return -mask.sum(1).float()

    total = 2 * bleu + brevity + BLEU(references, eos=EOS, order=2)
    assert list(total.parts) == ["bleu", "brevity", "bleu_2"]
    assert torch.equal(total.parts["bleu"](*call), bleu(*call))
    assert list(total.clip(0, 1).parts) == list(total.parts)
    reverse = brevity + bleu
    assert list(reverse.parts) == ["brevity", "bleu"]


def test_a_sum_with_a_dense_reward_pays_the_rest_at_the_last_token(case: Any) -> None:
    references, tokens, mask, context = case
    bleu, edit = BLEU(references, eos=EOS), EditDistance(references, eos=EOS)
    both = bleu.dense() + edit
    value = both(tokens, mask, context)
    assert value.shape == tokens.shape
    assert not value[~mask].any()
    terminal = bleu(tokens, mask, context) + edit(tokens, mask, context)
    assert torch.allclose(value.sum(1), terminal, atol=1e-3)
    last = mask.sum(1) - 1
    paid = value - bleu.increments(tokens, mask, context)
    assert torch.allclose(paid.gather(1, last[:, None])[:, 0], edit(tokens, mask, context), atol=1e-4)


def test_clipping_and_shifting(case: Any) -> None:
    references, *call = case
    edit = EditDistance(references, eos=EOS, dtype=torch.float64)
    clipped = edit.clip(0, 1)
    assert torch.equal(clipped(*call), edit(*call).clamp(0, 1))
    assert torch.allclose(clipped.increments(*call).sum(1), clipped(*call))
    assert torch.equal(edit.shift(-0.5)(*call), edit(*call) - 0.5)
    assert clipped.name == "clip[0,1](edit_distance)"
    dense = edit.dense().clip(-0.1, 0.1)
    assert not dense(*call)[~call[1]].any()


def test_length_penalties() -> None:
    mask = torch.arange(10) < torch.tensor([2, 6, 8, 10])[:, None]
    tokens = torch.ones(4, 10, dtype=torch.int64)
    assert LengthPenalty(0.5)(tokens, mask, {}).tolist() == [-1, -3, -4, -5]
    soft = Overlong(limit=10, margin=4)
    assert soft(tokens, mask, {}).tolist() == [0, 0, -0.5, -1]
    for penalty in (LengthPenalty(0.5), soft):
        gains = penalty.increments(tokens, mask, {})
        assert torch.allclose(gains.sum(1), penalty(tokens, mask, {}))
        assert not gains[~mask].any()


def test_controls(case: Any) -> None:
    references, *call = case
    edit = EditDistance(references, eos=EOS)
    assert Constant(0.3)(*call).tolist() == pytest.approx([0.3] * len(call[0]))
    value, dealt = edit(*call), Shuffled(edit, seed=1)(*call)
    assert torch.equal(value.sort().values, dealt.sort().values)
    assert not torch.equal(value, dealt)
    assert torch.equal(dealt, Shuffled(edit, seed=1)(*call))
    with pytest.raises(ValueError, match="shuffle before dense"):
        Shuffled(edit.dense())(*call)


class Uniform:
    """A policy with one log-probability for everything."""

    def __init__(self, log_prob: float) -> None:
        self.log_prob = log_prob

    def evaluate(self, actions: Tensor, context: Any) -> Any:
        return SimpleNamespace(log_probs=torch.full(actions.shape, self.log_prob))


def test_kl_shaping(case: Any) -> None:
    references, tokens, mask, context = case
    edit = EditDistance(references, eos=EOS)
    shaped = KLShaped(edit, Uniform(-1.0), Uniform(-3.0), beta=0.1)
    value = shaped(tokens, mask, context)
    wanted = at_last(edit(tokens, mask, context), mask) - 0.2 * mask
    assert torch.allclose(value, wanted, atol=1e-6)
    assert list(shaped.parts) == ["edit_distance"]
    dense = KLShaped(edit.dense(), Uniform(-1.0), Uniform(-3.0), beta=0.1)
    assert torch.allclose(dense(tokens, mask, context).sum(1), value.sum(1), atol=1e-5)


def test_dropout_is_no_divergence(case: Any) -> None:
    class Dropping(torch.nn.Module):
        def evaluate(self, actions: Tensor, context: Any) -> Any:
            noise = torch.nn.functional.dropout(torch.ones(actions.shape), 0.5, self.training)
            return SimpleNamespace(log_probs=-noise)

    policy = Dropping().train()
    shaped = KLShaped(Constant(0.0), policy, policy, beta=1.0)
    assert not shaped(*case[1:]).any()
    assert policy.training
