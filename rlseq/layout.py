"""How Gymnasium wants observations and infos laid out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from rlseq.vocab import Vocab

Info = dict[str, Any]


def observation_space(
    vocab: Vocab, max_len: int, source: tuple[Sequence[int], Vocab] | None
) -> gym.spaces.Dict:
    """`prefix` [T] and `length` [1]; `source`, of a shape and a vocabulary, where the task has one."""
    spaces: dict[str, gym.Space[Any]] = {
        "prefix": gym.spaces.Box(0, vocab.num_ids - 1, (max_len,), np.int32),
        "length": gym.spaces.Box(0, max_len, (1,), np.int32),
    }
    if source is not None:
        shape, words = source
        spaces["source"] = gym.spaces.Box(0, words.num_ids - 1, tuple(shape), np.int32)
    return gym.spaces.Dict(spaces)


def scattered(values: Sequence[Any], rows: Sequence[int], size: int) -> Any:
    """Objects in their rows, None in the others."""
    array = np.full(size, None, dtype=object)
    for row, value in zip(rows, values, strict=True):
        array[row] = value
    return array


def flagged(info: Mapping[str, Any], rows: Any) -> Info:
    """Beside each entry a `_name` array that says which rows have it, as Gymnasium's vector infos do."""
    out: Info = {}
    for name, value in info.items():
        if name.startswith("_"):
            continue
        out[name] = flagged(value, rows) if isinstance(value, dict) else value
        out[f"_{name}"] = rows
    return out


def row_of(info: Mapping[str, Any], row: int) -> Info:
    """One row's info: what it has, without the flags."""
    return {
        name: row_of(value, row) if isinstance(value, dict) else value[row]
        for name, value in info.items()
        if not name.startswith("_") and (f"_{name}" not in info or info[f"_{name}"][row])
    }
