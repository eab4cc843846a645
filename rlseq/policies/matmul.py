"""Products of large matrices on a CPU by oneDNN, which PyTorch uses for bfloat16 but not for float32.

For float32 PyTorch calls MKL, which uses 256-bit instructions on processors of AMD. oneDNN uses the 512-bit
ones where there are any: on an EPYC of 2025 its products take half the time (docs/how/performance.md).
"""

from __future__ import annotations

from functools import partial
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST = 1 << 20  # multiplications from which oneDNN's larger cost of a call does not matter
ROUND = 32  # numbers of rows are multiples of it
_torch: Any = torch  # whose functions below have no types
AVAILABLE = _torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"


def affine(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x Wᵀ + b, as `torch.nn.functional.linear`.

    Args:
        x: `[…, k]`.
        weight: W, `[m, k]`.
        bias: b, `[m]`.
    """
    if not _is_large(x, weight):
        return F.linear(x, weight, bias)
    flat = x.reshape(-1, x.shape[-1])
    if torch.is_grad_enabled():
        found: Tensor = _Linear.apply(flat, weight, bias)  # type: ignore[no-untyped-call]
    else:  # in a step of a rollout the call of a function with a gradient is a fifth of the product
        found = _by_onednn(flat, weight, bias)
    return found.view(*x.shape[:-1], len(weight))


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return a b of matrices, without a gradient."""
    return _by_onednn(a, b.t()) if _is_large(a, b.t()) else a @ b


def product_of_columns(a: Tensor, b: Tensor) -> Tensor:
    """Return aᵀ b: oneDNN copies the transposed first matrix, so that is the smaller."""
    if a.shape[1] > b.shape[1]:
        return product_of_columns(b, a).t()
    spare = len(a) % ROUND if _is_large(a.t(), b.t()) else 0
    if not spare:
        return affine(a.t(), b.t())
    # oneDNN makes code for every new number of rows, which takes longer than a product of a few of them.
    return torch.addmm(affine(a[:-spare].t(), b[:-spare].t()), a[-spare:].t(), b[-spare:])


class Linear(nn.Linear):
    """A linear layer that uses `affine`."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x Wᵀ + b."""
        return affine(x, self.weight, self.bias)


def speed_up(model: nn.Module) -> None:
    """Have the linear layers of a model use `affine`, and GPT-2's GELU one kernel instead of eight."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.forward = MethodType(_forward, module)  # type: ignore[method-assign]
        elif type(module).__name__ == "Conv1D" and hasattr(module, "nf"):  # GPT-2's, with a transposed weight
            module.forward = MethodType(_forward_transposed, module)
        elif type(module).__name__ == "NewGELUActivation":
            module.forward = partial(F.gelu, approximate="tanh")


def _forward(module: Any, x: Tensor) -> Tensor:
    return affine(x, module.weight, module.bias)


def _forward_transposed(module: Any, x: Tensor) -> Tensor:
    return affine(x, module.weight.t(), module.bias)


def _is_large(x: Tensor, weight: Tensor) -> bool:
    """Return whether a product is one of large float32 matrices on a CPU that oneDNN makes faster."""
    return (
        AVAILABLE
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() * len(weight) >= SMALLEST
        and not torch.is_autocast_enabled("cpu")
    )


_LIBRARY = _torch.library.Library("rlseq", "DEF")
_LIBRARY.define("affine(Tensor x, Tensor weight, Tensor? bias) -> Tensor")


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return found


def _shape(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(len(x), len(weight))


# An operator of its own, because the compiler takes the weights of oneDNN's for constants.
_LIBRARY.impl("affine", _linear, "CPU")
torch.library.register_fake("rlseq::affine", _shape, lib=_LIBRARY)


def _by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    found: Tensor = torch.ops.rlseq.affine(_dense(_rounded(x)), _dense(weight), bias)
    return found[: len(x)]


def _rounded(x: Tensor) -> Tensor:
    """Return a matrix with rows of zeros up to a multiple of ROUND, where these are few.

    oneDNN makes code for every new shape, which takes as long as the product of some hundred rows.
    """
    spare = -len(x) % ROUND
    return torch.cat([x, x.new_zeros(spare, x.shape[1])]) if 0 < spare * 8 <= len(x) else x


def _dense(x: Tensor) -> Tensor:
    """Return a matrix without gaps between its rows or columns, with which oneDNN takes 100 times as long."""
    return x if x.is_contiguous() or x.t().is_contiguous() else x.contiguous()


class _Linear(torch.autograd.Function):
    """x Wᵀ + b and its derivatives, each of which is such a product, too, and can be differentiated again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _by_onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            affine(slope, weight.t()) if needs_x else None,
            product_of_columns(slope, x) if needs_weight else None,
            slope.sum(0) if needs_bias else None,
        )
