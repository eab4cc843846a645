"""The cells of recurrent networks: the next h and memory, given W x + b and U h + b' of all gates.

    LSTM    i, f, o = σ(W x + b + U hₜ₋₁ + b')      g = tanh(W x + b + U hₜ₋₁ + b')
            cₜ = f cₜ₋₁ + i g                       hₜ = o tanh(cₜ)

    GRU     r, z = σ(W x + b + U hₜ₋₁ + b')         n = tanh(W x + b + r (U hₜ₋₁ + b'))
            hₜ = (1 − z) n + z hₜ₋₁

Each is written twice: `step` is differentiated by PyTorch; `forward` works in place, and `backward` is its
derivative. These two see a memory beside the h that U multiplies: c of an LSTM, and h again of a GRU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_aten: Any = torch.ops.aten  # whose derivatives of σ and tanh write where they are told


@dataclass(frozen=True, eq=False)
class Equations:
    """A cell of g gates; n texts are at work in a step.

    Args:
        memories: the number of tensors that a layer remembers.
        apart: whether the gates see U h + b' apart from W x + b. If not, only their sum matters: they have
            one bias and one gradient.
        step: (W x, memory, U, b, b') → memory, whose first tensor is h.
        forward: (W x + b `[n, g H]`, U h + b', memory) → (h, memory, what else `backward` needs, gates). The
            gates are made of one of the first two, in place. Where h = 0, the second is b' or None, the
            third None.
        backward: (gradient of h `[n, H]`; that of the memory from later steps, of the first texts; memory of
            the step before; what else is kept; gates; two results that it writes, `[n, g H]`: the gradient of
            W x + b, and of U h + b' where that is apart) → gradient of the memory of the step before. The
            first argument is overwritten.
    """

    memories: int
    apart: bool
    step: Callable[..., tuple[Tensor, ...]]
    forward: Callable[[Tensor, Tensor | None, Tensor | None], tuple[Tensor, Tensor, Tensor, Tensor]]
    backward: Callable[[Tensor, Tensor, Tensor | None, Tensor, Tensor, Tensor, Tensor], Tensor]


def _lstm_step(
    entering: Tensor, memory: tuple[Tensor, ...], weight: Tensor, *biases: Tensor
) -> tuple[Tensor, ...]:
    h, c = memory
    gates = torch.addmm(entering + (biases[0] + biases[1]), h, weight.t())
    enter, keep, candidate, show = gates.chunk(4, 1)
    c = torch.addcmul(keep.sigmoid() * c, enter.sigmoid(), tanh(candidate))
    return show.sigmoid() * tanh(c), c


def _lstm_forward(
    entering: Tensor, recalled: Tensor | None, c: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    gates = entering if recalled is None else recalled.add_(entering)
    enter, keep, candidate, show = gates.chunk(4, 1)
    candidate.mul_(2)
    gates.sigmoid_()
    candidate.mul_(2).sub_(1)
    new = enter * candidate
    if c is not None:
        new.addcmul_(keep, c)
    shown = (new * 2).sigmoid_().mul_(2).sub_(1)
    return show * shown, new, shown, gates


def _lstm_backward(
    by_h: Tensor,
    by_later: Tensor,
    c: Tensor | None,
    shown: Tensor,
    gates: Tensor,
    by_gates: Tensor,
    _: Tensor,
) -> Tensor:
    enter, keep, candidate, show = gates.chunk(4, 1)
    by_enter, by_keep, by_candidate, by_show = by_gates.chunk(4, 1)
    _aten.sigmoid_backward(by_h * shown, show, grad_input=by_show)
    by_c = _aten.tanh_backward(by_h.mul_(show), shown)
    by_c[: len(by_later)] += by_later
    _aten.sigmoid_backward(by_c * candidate, enter, grad_input=by_enter)
    _aten.tanh_backward(by_c * enter, candidate, grad_input=by_candidate)
    if c is None:
        by_keep.zero_()
    else:
        _aten.sigmoid_backward(by_c * c[: len(by_c)], keep, grad_input=by_keep)
    return by_c.mul_(keep)  # type: ignore[no-any-return]


def _gru_step(
    entering: Tensor, memory: tuple[Tensor, ...], weight: Tensor, *biases: Tensor
) -> tuple[Tensor, ...]:
    (h,) = memory
    reset, update, candidate = (entering + biases[0]).chunk(3, 1)
    recalled = torch.addmm(biases[1], h, weight.t()).chunk(3, 1)
    update = (update + recalled[1]).sigmoid()
    candidate = tanh(torch.addcmul(candidate, (reset + recalled[0]).sigmoid(), recalled[2]))
    return (torch.lerp(candidate, h, update),)


def _gru_forward(
    gates: Tensor, recalled: Tensor | None, h: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    assert recalled is not None, "there is a bias"
    reset, update, candidate = gates.chunk(3, 1)
    to_candidate = recalled.chunk(3, -1)[2]
    both = 2 * update.shape[1]
    gates[:, :both].add_(recalled[..., :both]).sigmoid_()
    _tanh_(candidate.addcmul_(reset, to_candidate))
    new = candidate * (1 - update) if h is None else torch.lerp(candidate, h, update)
    return new, new, to_candidate, gates


def _gru_backward(
    by_h: Tensor,
    by_later: Tensor,
    h: Tensor | None,
    to_candidate: Tensor,
    gates: Tensor,
    by_gates: Tensor,
    by_recalled: Tensor,
) -> Tensor:
    reset, update, candidate = gates.chunk(3, 1)
    by_reset, by_update, by_candidate = by_gates.chunk(3, 1)
    by_h[: len(by_later)] += by_later
    by_before = by_h * update
    _aten.tanh_backward(by_h - by_before, candidate, grad_input=by_candidate)
    change = candidate.neg() if h is None else h[: len(by_h)] - candidate
    _aten.sigmoid_backward(by_h.mul_(change), update, grad_input=by_update)
    _aten.sigmoid_backward(by_candidate * to_candidate, reset, grad_input=by_reset)
    both = 2 * update.shape[1]
    by_recalled[:, :both] = by_gates[:, :both]
    torch.mul(by_candidate, reset, out=by_recalled[:, both:])
    return by_before


def tanh(x: Tensor) -> Tensor:
    """Return the hyperbolic tangent; on a CPU as 2σ(2x) − 1, as PyTorch's σ takes a ninth of the time."""
    return 2 * (2 * x).sigmoid() - 1 if x.device.type == "cpu" else x.tanh()


def _tanh_(x: Tensor) -> Tensor:
    """Return tanh(x) = 2σ(2x) − 1, in place."""
    return x.mul_(2).sigmoid_().mul_(2).sub_(1)


LSTM = Equations(2, False, _lstm_step, _lstm_forward, _lstm_backward)
GRU = Equations(1, True, _gru_step, _gru_forward, _gru_backward)
