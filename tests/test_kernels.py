"""Precision and kernels of recurrent networks, as far as a CPU can tell."""

from __future__ import annotations

from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from rlseq.policies.recurrence import Recurrence
from rlseq.utils.kernels import backward_in_full_precision, full_precision, twice_differentiable

cudnn: Any = torch.backends.cudnn
kernels: Any = torch.backends.cuda


def test_recurrences_are_precise_inside_and_as_before_outside() -> None:
    before = cudnn.rnn.fp32_precision
    with full_precision():
        assert cudnn.rnn.fp32_precision == "ieee"
        with full_precision():
            pass
        assert cudnn.rnn.fp32_precision == "ieee"
    assert cudnn.rnn.fp32_precision == before
    assert cudnn.allow_tf32 in (True, False), "an error while convolutions and recurrences differ"


def test_older_versions_have_one_setting_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    old = SimpleNamespace(rnn=SimpleNamespace(), allow_tf32=True)
    monkeypatch.setattr(torch.backends, "cudnn", old)
    with full_precision():
        assert old.allow_tf32 is False
    assert old.allow_tf32 is True


class CudnnSquare(torch.autograd.Function):
    """A function whose node has the name of one of cuDNN."""

    seen: list[str] = []  # noqa: RUF012

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        CudnnSquare.seen.append(cudnn.rnn.fp32_precision)
        (x,) = ctx.saved_tensors
        slope: torch.Tensor = 2 * x * gradients[0]
        return slope


def test_gradients_of_cudnn_are_as_precise_as_its_outputs() -> None:
    before, x = cudnn.rnn.fp32_precision, torch.ones(2, 3, requires_grad=True)
    CudnnSquare.seen.clear()
    square: Any = CudnnSquare
    output = square.apply(x).transpose(0, 1)
    backward_in_full_precision(output)
    output.sum().backward()
    assert CudnnSquare.seen == ["ieee"]
    assert cudnn.rnn.fp32_precision == before
    backward_in_full_precision(x * x)  # of other kernels, nothing
    backward_in_full_precision(torch.ones(1))


def test_gradients_of_gradients_need_other_kernels() -> None:
    assert cudnn.enabled
    with twice_differentiable():
        assert not cudnn.enabled
        assert not kernels.flash_sdp_enabled()
    assert cudnn.enabled


def test_a_copied_recurrence_has_its_weights_in_one_block_again(monkeypatch: pytest.MonkeyPatch) -> None:
    original, flattened = Recurrence(nn.LSTM, 3, 4), []
    monkeypatch.setattr(nn.RNNBase, "flatten_parameters", lambda self: flattened.append(self))
    copy = deepcopy(nn.Sequential(original))[0]
    assert isinstance(copy, Recurrence)
    assert any(module is copy.rnn for module in flattened)
    flattened.clear()
    state = {name: value.clone() for name, value in original.state_dict().items()}
    copy.load_state_dict(state, assign=True)
    assert flattened == [copy.rnn]
    assert all(a is b for a, b in zip(copy._weights[0], copy.rnn.all_weights[0], strict=True))
