"""What a discriminator's logits `[…, outputs]` pay, `[…]`. With two outputs D is the product of both."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Value = Callable[[Tensor], Tensor]


def probability(logits: Tensor) -> Tensor:
    """D, in [0, 1] (SeqGAN)."""
    return logits.sigmoid().prod(-1)


def log_probability(logits: Tensor) -> Tensor:
    """Log D: steep where texts are bad; never above 0, so short texts lose less."""
    return F.logsigmoid(logits).sum(-1)


def surprise(logits: Tensor) -> Tensor:
    """−log(1 − D): steep where texts are good; never below 0, so long texts gain more."""
    if logits.shape[-1] == 1:
        return F.softplus(logits).squeeze(-1)
    return -torch.log1p(-probability(logits).clamp(max=1 - 1e-6))


def logit(logits: Tensor) -> Tensor:
    """Log D/(1 − D), which is the sum of the two above; also the output of a critic without sigmoid."""
    return logits.sum(-1)


def odds(logits: Tensor) -> Tensor:
    """D / (1 − D), an estimate of p_data / π (MaliGAN); above 10⁴ it says no more."""
    return logits.sum(-1).clamp(max=9.21).exp()
