"""Operations that exist for CUDA alone: the fused steps of nn.LSTMCell, nn.GRUCell and of unrolled ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Maybe = Tensor | None


def lstm(x: Tensor, h: Tensor, cell: Tensor, b: Maybe = None, b_h: Maybe = None) -> tuple[Tensor, ...]:
    """Return hₜ, cₜ and the gates, of W x and U h."""
    gates = x + h + _both(b, b_h)
    i, f, g, o = gates.chunk(4, 1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    new = f * cell + i * g
    return o * new.tanh(), new, torch.cat([i, f, g, o], 1)


def lstm_backward(
    grad_h: Maybe, grad_c: Maybe, cell: Tensor, new: Tensor, gates: Tensor, has_bias: bool
) -> tuple[Maybe, ...]:
    """Return the gradients of the gates' inputs, of cₜ₋₁, and of a bias."""
    i, f, g, o = gates.chunk(4, 1)
    shown = new.tanh()
    into_h = torch.zeros_like(new) if grad_h is None else grad_h
    into_c = into_h * o * (1 - shown * shown) + (0 if grad_c is None else grad_c)
    of_gates = torch.cat(
        [
            into_c * g * i * (1 - i),
            into_c * cell * f * (1 - f),
            into_c * i * (1 - g * g),
            into_h * shown * o * (1 - o),
        ],
        1,
    )
    return of_gates, into_c * f, of_gates.sum(0) if has_bias else None


def gru(x: Tensor, h: Tensor, memory: Tensor, b: Maybe = None, b_h: Maybe = None) -> tuple[Tensor, ...]:
    """Return hₜ and what its gradient needs, of W x and U h."""
    x_r, x_z, x_n = (x + _both(b, None)).chunk(3, 1)
    h_r, h_z, h_n = (h + _both(b_h, None)).chunk(3, 1)
    r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
    n = (x_n + r * h_n).tanh()
    return (1 - z) * n + z * memory, torch.cat([r, z, n, memory, h_n], 1)


def gru_backward(grad: Tensor, kept: Tensor, has_bias: bool) -> tuple[Maybe, ...]:
    """Return the gradients of W x, of U h, of hₜ₋₁, and of two biases."""
    r, z, n, memory, h_n = kept.chunk(5, 1)
    of_z, of_n = grad * (memory - n) * z * (1 - z), grad * (1 - z) * (1 - n * n)
    of_r = of_n * h_n * r * (1 - r)
    of_x, of_h = torch.cat([of_r, of_z, of_n], 1), torch.cat([of_r, of_z, of_n * r], 1)
    biases = (of_x.sum(0), of_h.sum(0)) if has_bias else (None, None)
    return of_x, of_h, grad * z, *biases


def _both(b: Maybe, b_h: Maybe) -> Any:
    return (0 if b is None else b) + (0 if b_h is None else b_h)


CELLS: dict[str, Callable[..., Any]] = {
    "_thnn_fused_lstm_cell": lstm,
    "_thnn_fused_lstm_cell_backward_impl": lstm_backward,
    "_thnn_fused_gru_cell": gru,
    "_thnn_fused_gru_cell_backward": gru_backward,
}
