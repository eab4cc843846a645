"""The kernels that PyTorch chooses on a GPU: their precision, and how often they can be differentiated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def full_precision() -> Iterator[None]:
    """Let recurrent networks of cuDNN multiply in float32 inside, and not in TF32, which is the default.

    TF32 has 10 bits of mantissa; cuBLAS, which multiplies everywhere else, does not use it by default. The
    setting is of the process and is restored: `torch.backends.cudnn.allow_tf32` is an error while it differs
    between recurrences and convolutions.
    """
    owner, name, wanted = _precision_setting()
    before = getattr(owner, name)
    setattr(owner, name, wanted)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _precision_setting() -> tuple[Any, str, Any]:
    """Return the object and the name of the setting, and its value for float32."""
    rnn = torch.backends.cudnn.rnn
    if hasattr(rnn, "fp32_precision"):
        return rnn, "fp32_precision", "ieee"
    return torch.backends.cudnn, "allow_tf32", False  # before torch 2.9, of convolutions too


def backward_in_full_precision(output: Tensor) -> None:
    """Let the gradient of a recurrent network of cuDNN be computed in `full_precision`, as its output was.

    Args:
        output: of the network; where other kernels have made it, nothing is changed.
    """
    node: Any = output.grad_fn
    while node is not None and "Cudnn" not in node.name():  # below the transposition of batch_first
        node = node.next_functions[0][0] if node.next_functions else None
    if node is None:
        return
    during = ExitStack()

    def begin(gradients: Any) -> None:
        during.enter_context(full_precision())

    def end(of_inputs: Any, of_outputs: Any) -> None:
        during.close()

    node.register_prehook(begin)
    node.register_hook(end)


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Use kernels inside that can be differentiated twice: fused attention and fast recurrences cannot.

    Recurrences are fast by cuDNN on a GPU, and on a CPU by `rlseq.policies.unroll`, for which oneDNN stands.
    """
    libraries: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.mkldnn)
    before = [library.enabled for library in libraries]
    try:
        for library in libraries:
            library.enabled = False
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        for library, enabled in zip(libraries, before, strict=True):
            library.enabled = enabled
