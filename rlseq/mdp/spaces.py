"""How Gymnasium wants observations and infos laid out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from rlseq.types import Context
from rlseq.vocab import Vocab

Info = dict[str, Any]


Ranges = Mapping[str, tuple[float, float]]  # of items: their lowest and highest number


def observation_space(
    vocab: Vocab, max_len: int, source_vocab: Vocab | None, items: Context, observed: Ranges
) -> gym.spaces.Dict:
    """`prefix` [T] and `length` [1]; `source`, where there are words for it; what is `observed` beside."""
    spaces: dict[str, gym.Space[Any]] = {
        "prefix": gym.spaces.Box(0, vocab.num_ids - 1, (max_len,), np.int32),
        "length": gym.spaces.Box(0, max_len, (1,), np.int32),
    }
    if source_vocab is not None:
        shape = tuple(items["source"].shape[1:])
        spaces["source"] = gym.spaces.Box(0, source_vocab.num_ids - 1, shape, np.int32)
    for name, (low, high) in observed.items():
        if name not in items:
            raise ValueError(f"observed {name!r} is not among items {sorted(items)}; one row of it will do")
        shown = seen_as(items[name][:1]).numpy(force=True)
        spaces[name] = gym.spaces.Box(low, high, shown.shape[1:], shown.dtype.type)
    return gym.spaces.Dict(spaces)


def seen_as(value: Tensor) -> Tensor:
    """A copy in the type of its space: float32 of any float, bytes (images) as they are, else int32."""
    if value.dtype == torch.uint8:
        return value.clone()
    return value.to(torch.float32 if value.is_floating_point() else torch.int32, copy=True)


def object_array(values: Sequence[Any], rows: Sequence[int], size: int) -> Any:
    """Objects in their rows, None in the others."""
    array = np.full(size, None, dtype=object)
    for row, value in zip(rows, values, strict=True):
        array[row] = value
    return array


def with_masks(info: Mapping[str, Any], rows: Any) -> Info:
    """Beside each entry a `_name` array that says which rows have it, as Gymnasium's vector infos do."""
    out: Info = {}
    for name, value in info.items():
        if name.startswith("_"):
            continue
        out[name] = with_masks(value, rows) if isinstance(value, dict) else value
        out[f"_{name}"] = rows
    return out


def row_of(info: Mapping[str, Any], row: int) -> Info:
    """One row's info: what it has, without the flags."""
    return {
        name: row_of(value, row) if isinstance(value, dict) else value[row]
        for name, value in info.items()
        if not name.startswith("_") and (f"_{name}" not in info or info[f"_{name}"][row])
    }
