"""Attention of a single query on a CPU, in the form in which models of transformers call it.

While a text is written there is one query a row. PyTorch's fused kernel is made for many: with 64 rows, 4
heads and 23 keys two products and a softmax take two thirds of its time, and the compiler can fuse what lies
between them (docs/how/performance.md).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

SPED_UP = "sdpa_but_for_one_query"


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **more: Any
) -> tuple[Tensor, None]:
    """Return softmax(q·kᵀ · scaling + mask) v, `[B, n, heads, d]`, as the "sdpa" of transformers.

    Args:
        module: the layer that attends.
        query: `[B, heads, n, d]`.
        key: `[B, groups, m, d]`; heads of a group share keys and values.
        value: `[B, groups, m, d]`.
        attention_mask: 0 where it may look, else the least number, `[B, 1 or heads, n, m]`.
        **more: what else a layer says: its `scaling`, `dropout`, a `position_bias` that is added.
    """
    if attention_mask is None or not _one_query(query, attention_mask, more):
        found: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **more)
        return found
    rows, heads, _, width = query.shape
    shared = heads // key.shape[1]  # by so many heads
    bias, scaling = more.get("position_bias"), more.get("scaling")
    seen = attention_mask if bias is None else attention_mask + bias
    if seen.shape[1] > 1:
        seen = seen.reshape(len(seen), -1, shared, seen.shape[3])
    q = query.reshape(rows, -1, shared, width) * (width**-0.5 if scaling is None else scaling)
    return ((q @ key.mT + seen).softmax(-1) @ value).reshape(rows, 1, heads, width), None


def _one_query(query: Tensor, mask: Tensor, more: dict[str, Any]) -> bool:
    """Return whether a call is one of a step of a rollout on a CPU, without what only the kernel knows."""
    return (
        query.shape[2] == 1
        and query.device.type == "cpu"
        and query.dtype == torch.float32
        and mask.dtype == torch.float32
        and not (more.get("dropout") or more.get("softcap") or more.get("output_attentions"))
    )


def speed_up_attention(model: Any) -> None:
    """Have a model that attends by "sdpa" attend by this."""
    if model.config._attn_implementation == "sdpa" and model._can_set_attn_implementation():
        AttentionInterface.register(SPED_UP, attend)
        AttentionMaskInterface.register(SPED_UP, sdpa_mask)
        model.set_attn_implementation(SPED_UP)
