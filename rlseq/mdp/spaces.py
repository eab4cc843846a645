"""Observations and infos in the layout of Gymnasium."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from rlseq.types import NOISE, Context
from rlseq.vocab import Vocab

Info = dict[str, Any]


def observation_space(
    vocab: Vocab,
    max_len: int,
    source_vocab: Vocab | None,
    items: Context,
    observed: Mapping[str, tuple[float, float]],
    noise: int = 0,
) -> gym.spaces.Dict:
    """Return the space of `prefix` [T], `length` [1], and what else is seen: source, items and noise."""
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
    if noise:
        spaces[NOISE] = gym.spaces.Box(-np.inf, np.inf, (noise,), np.float32)
    return gym.spaces.Dict(spaces)


def seen_as(value: Tensor) -> Tensor:
    """Return a copy in the type of its space: float32 of floats, bytes (images) as they are, else int32."""
    if value.dtype == torch.uint8:
        return value.clone()
    return value.to(torch.float32 if value.is_floating_point() else torch.int32, copy=True)


def object_array(values: Sequence[Any], rows: Sequence[int], size: int) -> Any:
    """Return an array of objects, None in the rows that are not named."""
    array = np.full(size, None, dtype=object)
    for row, value in zip(rows, values, strict=True):
        array[row] = value
    return array


def with_masks(info: Mapping[str, Any], rows: Any) -> Info:
    """Add a `_name` array beside each entry that says which rows have it, as Gymnasium's vector infos do."""
    out: Info = {}
    for name, value in info.items():
        if name.startswith("_"):
            continue
        out[name] = with_masks(value, rows) if isinstance(value, dict) else value
        out[f"_{name}"] = rows
    return out


def row_of_info(info: Mapping[str, Any], row: int) -> Info:
    """Return the info of one row, without the `_name` arrays."""
    return {
        name: row_of_info(value, row) if isinstance(value, dict) else value[row]
        for name, value in info.items()
        if not name.startswith("_") and (f"_{name}" not in info or info[f"_{name}"][row])
    }
