"""Attention, for one query and for many."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def attention(q: Tensor, keys: Tensor, values: Tensor, seen: Tensor | None) -> Tensor:
    """softmax(q·kᵀ/√d + seen) v.

    Args:
        q: `[…, n, d]`.
        keys: `[…, m, d]`.
        values: `[…, m, d]`.
        seen: 0 for what may be looked at, else −∞, broadcastable to `[…, n, m]`; None for the words so far.
    """
    if seen is not None and q.shape[-2] == 1 and keys.dtype == torch.float32 and keys.device.type == "cpu":
        # The fused kernel is made for many queries; for one, two products take half of its time. (In
        # bfloat16 they would round what the kernel, which scores the same words later, does not.)
        shares: Tensor = (q @ keys.mT * float(q.shape[-1] ** -0.5) + seen).softmax(-1)
        return shares @ values
    a: Tensor = F.scaled_dot_product_attention(q, keys, values, attn_mask=seen, is_causal=seen is None)
    return a


def seen_where(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where it is allowed to look, else −∞: as attention wants it, and would make it every time."""
    return torch.zeros_like(allowed, dtype=dtype).masked_fill_(~allowed, -torch.inf)
