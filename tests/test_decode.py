"""The sampler against the softmax, and the values that say how to decode."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

from rlseq.engine.categorical import FORBIDDEN, inverse_cdf, sample_from_logits
from rlseq.engine.compiled import quietly
from rlseq.engine.decode import Greedy, Sample, acting_logits
from rlseq.types import Behaviour


def draws(logits: Tensor, n: int, temperature: float = 1.0) -> Tensor:
    """`n` tokens of one distribution, in large batches."""
    generator = torch.Generator().manual_seed(1)
    decode, drawn = Sample(temperature), []
    for start in range(0, n, 2000):
        rows = min(2000, n - start)
        uniform = torch.rand(rows, generator=generator, dtype=torch.float64)
        acting = acting_logits(logits.expand(rows, -1), Behaviour(temperature))
        drawn.append(decode.choose(acting, uniform)[0])
    return torch.cat(drawn)


def p_value(tokens: Tensor, probs: Tensor) -> float:
    """Chi-square test of counts against probabilities; rare tokens are pooled to expect at least 20."""
    expected = (probs.double() * len(tokens)).numpy()
    order = np.argsort(expected)
    pools = np.minimum((expected[order].cumsum() // 20).astype(int), int(len(tokens) // 20) - 1)
    counts = np.bincount(tokens.numpy(), minlength=len(expected))[order]
    observed = np.bincount(pools, counts)
    wanted = np.bincount(pools, expected[order])
    kept = wanted > 0
    return float(chisquare(observed[kept], wanted[kept] * observed.sum() / wanted.sum()).pvalue)


@pytest.mark.parametrize(("words", "n"), [(5, 100_000), (5000, 100_000), (50_000, 40_000)])
def test_sampler_draws_from_the_softmax(words: int, n: int) -> None:
    logits = torch.randn(1, words, generator=torch.Generator().manual_seed(2)) * 2
    assert p_value(draws(logits, n), logits[0].double().softmax(0)) > 1e-3


def test_the_chi_square_test_can_fail() -> None:
    logits = torch.randn(1, 5000, generator=torch.Generator().manual_seed(2)) * 2
    assert p_value(draws(logits, 100_000), (logits[0] * 1.05).double().softmax(0)) < 1e-6


def test_temperature_is_part_of_what_is_sampled() -> None:
    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(3))
    tokens = draws(logits, 50_000, temperature=0.5)
    assert p_value(tokens, (logits[0] / 0.5).double().softmax(0)) > 1e-3
    assert p_value(tokens, logits[0].double().softmax(0)) < 1e-6


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([0.0, 1e-30, 0.1, 1.0, 7.0]), min_size=1, max_size=40), st.data())
def test_inverse_cdf_is_the_inverse_of_the_cdf(weights: list[float], data: st.DataObject) -> None:
    if sum(weights) == 0:
        return
    u = data.draw(st.floats(0, 1, exclude_max=True))
    token = int(inverse_cdf(torch.tensor([weights]), torch.tensor([u], dtype=torch.float64)))
    assert weights[token] > 0
    cdf = np.cumsum(np.array(weights, dtype=np.float32).astype(np.float64))
    target, slack = u * cdf[-1], 1e-6 * cdf[-1]
    assert (cdf[token - 1] if token else 0.0) - slack <= target <= cdf[token] + slack


def test_forbidden_tokens_are_never_drawn_and_never_nan() -> None:
    support = torch.zeros(1, 100, dtype=torch.bool)
    support[0, [3, 97]] = True
    logits = acting_logits(torch.zeros(5000, 100), Behaviour(support=support))
    uniform = torch.rand(5000, dtype=torch.float64)
    uniform[0], uniform[1] = 0.0, 1 - 2**-53
    token, log_norm = Sample().choose(logits, uniform)
    assert set(token.tolist()) == {3, 97}
    torch.testing.assert_close(log_norm, torch.full((5000,), math.log(2.0)))
    assert logits.min() == FORBIDDEN


@pytest.mark.parametrize("words", [2, 97, 1000])
def test_compiled_code_draws_the_same(words: int) -> None:
    """Ninety-seven words fill their blocks up; blocks may be forbidden, −∞, or no numbers at all."""
    generator = torch.Generator().manual_seed(words)
    logits = torch.randn(32, words, generator=generator) * 3
    uniform = torch.rand(32, generator=generator, dtype=torch.float64)
    logits[1, : words // 2], logits[2, (words + 1) // 2 :] = -math.inf, FORBIDDEN
    logits[3, :-1], logits[4], logits[5, 0] = FORBIDDEN, logits[4] + 1e4, math.nan
    with torch.no_grad(), quietly():
        compiled = torch.compile(sample_from_logits, dynamic=False, options={"cpp_wrapper": True})
        (token, log_norm), (again, log_norm_again) = (
            sample_from_logits(logits, uniform),
            compiled(logits, uniform),
        )
    sane = [row for row in range(32) if row != 5]
    assert token[sane].tolist() == again[sane].tolist()
    torch.testing.assert_close(log_norm, logits.logsumexp(-1), equal_nan=True)
    torch.testing.assert_close(log_norm_again, log_norm, equal_nan=True)
    assert bool(log_norm[5].isnan())


def test_greedy_takes_the_most_likely_and_reports_its_probability() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]])
    token, log_norm = Greedy().choose(logits, torch.rand(2))
    assert token.tolist() == [1, 0]
    torch.testing.assert_close(log_norm, logits.logsumexp(-1))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_must_be_positive(temperature: float) -> None:
    with pytest.raises(ValueError, match=r"temperature must be a finite number > 0"):
        Sample(temperature)


def test_a_nucleus_holds_the_token_with_which_its_probability_is_reached() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    for top_p, kept in ((0.4, 1), (0.6, 2), (0.85, 3), (0.99, 4)):
        support = Sample(top_p=top_p).support(logits)
        assert support is not None
        assert support.tolist() == [[place < kept for place in range(4)]]
