"""LSTMs and GRUs that are unrolled here against PyTorch's layer: values, gradients, padding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rlseq
from rlseq.policies.recurrence import Recurrence, looked_up
from rlseq.utils.kernels import twice_differentiable

B, T, E, H, BESIDE = 7, 5, 3, 4, 2
CELLS = pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def answers(recurrence: Recurrence, inputs: dict[str, Any], lengths: Tensor) -> list[Tensor]:
    """The states of real places, and the gradients of the inputs and the weights."""
    features = recurrence.unroll(**inputs)
    real = (torch.arange(T) < lengths.unsqueeze(1)).unsqueeze(2)
    leaves = [
        inputs["x"],
        *inputs.get("memory", ()),
        *([inputs["beside"]] if "beside" in inputs else []),
        *recurrence.parameters(),
    ]
    found = (features.where(real, 0.0), (features.sin() * numbers(B, T, H, seed=1)).where(real, 0.0).sum())
    return [found[0].detach(), *torch.autograd.grad(found[1], leaves)]


@CELLS
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("more", ["", "lookup", "memory beside", "lookup memory beside"])
@pytest.mark.parametrize("ragged", [False, True])
def test_values_and_gradients_are_those_of_torch(cell: Any, layers: int, more: str, ragged: bool) -> None:
    torch.manual_seed(0)
    recurrence = Recurrence(cell, E + BESIDE * ("beside" in more), H, layers).double()
    lengths = torch.tensor([2, 5, 1, 5, 3, 1, 4] if ragged else [T] * B)
    inputs: dict[str, Any] = {"x": numbers(B, T, E), "lengths": lengths if ragged else None}
    if "lookup" in more:
        inputs |= {"x": numbers(3, E), "which": torch.arange(B * T).view(B, T) % 3}
    if "memory" in more:
        inputs["memory"] = tuple(
            numbers(B, H, seed=2 + i).requires_grad_() for i in range(recurrence.memories)
        )
    if "beside" in more:
        inputs["beside"] = numbers(B, BESIDE, seed=9).requires_grad_()
    inputs["x"].requires_grad_()
    found = answers(recurrence, inputs, lengths)
    with twice_differentiable():
        wanted = answers(recurrence, inputs, lengths)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@CELLS
def test_values_and_gradients_are_those_of_steps(cell: Any) -> None:
    torch.manual_seed(0)
    recurrence, x = Recurrence(cell, E, H, layers=2).double(), numbers(B, T, E).requires_grad_()
    memory = recurrence.from_first(numbers(B, H, seed=2).requires_grad_())
    leaves, states, later = [x, memory[0], *recurrence.parameters()], [], memory
    for t in range(T):
        h, later = recurrence.step(recurrence.entering(x[:, t]), later)
        states.append(h)
    found, wanted = recurrence.unroll(x, memory), torch.stack(states, 1)
    slopes = [torch.autograd.grad(each.sin().sum(), leaves) for each in (found, wanted)]
    for one, other in zip((found, *slopes[0]), (wanted, *slopes[1]), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        assert torch.equal(recurrence.unroll(x, memory), found)


@CELLS
def test_large_matrices_take_other_products(cell: Any) -> None:
    torch.manual_seed(0)
    recurrence, words = Recurrence(cell, 64, 128), torch.arange(64 * 6).view(64, 6) % 9
    embedding = nn.Embedding(9, 64)
    x, which = looked_up(words, embedding, nn.Dropout())
    assert which is None, "dropout is on"
    x, which = looked_up(words, embedding, nn.Dropout(0.0))
    assert which is not None
    lengths, gradients = torch.arange(64) % 6 + 1, []
    for wanted in (False, True):
        kept: dict[str, Any] = {} if wanted else {"which": which, "lengths": lengths}
        features = recurrence.unroll(embedding(words) if wanted else x, **kept)
        real = torch.arange(6) < lengths.unsqueeze(1)
        with torch.no_grad():
            gradients.append([features[real]])
        loss = features[real].square().sum()
        gradients[-1] += torch.autograd.grad(loss, [embedding.weight, *recurrence.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@CELLS
def test_frozen_weights_get_no_gradient_and_a_second_gradient_is_torchs(cell: Any) -> None:
    recurrence = Recurrence(cell, E, H).double().requires_grad_(False)
    x = numbers(B, T, E).requires_grad_()
    recurrence.unroll(x).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert all(parameter.grad is None for parameter in recurrence.parameters())
    with twice_differentiable():
        slow = recurrence.unroll(x)
    (slope,) = torch.autograd.grad(slow.square().sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.square().sum(), x)
    assert bool(curvature.any())
    assert torch.backends.mkldnn.enabled


@CELLS
def test_texts_of_one_word_have_no_gradient_of_the_recurrent_weight(cell: Any) -> None:
    recurrence = Recurrence(cell, E, H).double()
    recurrence.unroll(numbers(B, 1, E)).sum().backward()  # type: ignore[no-untyped-call]
    slope = dict(recurrence.rnn.named_parameters())["weight_hh_l0"].grad
    assert slope is not None
    assert not slope.any()


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_padding_of_a_source_is_not_read(name: str) -> None:
    """A source that is padded further has the same answers, bit for bit."""
    env = rlseq.make("rlseq/G2P-v0", num_envs=48)
    policy = rlseq.make_policy(name, env, hidden=16, embedding=8)
    context = dict(env.begin())
    narrow = int((context["source"] != policy.words.source_pad).sum(1).max())
    (start, *_), context["source"] = policy.start(context), context["source"][:, :narrow]
    assert torch.equal(start, policy.start(context)[0])
