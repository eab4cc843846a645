"""Checks at the boundary: a mistake is refused before it changes anything, and says how to mend it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

_INTEGERS = {getattr(torch, f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)}


def usable_device(device: str | torch.device) -> torch.device:
    """The device, if this machine has it."""
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        have = "cpu" + ", cuda" * torch.cuda.is_available()
        raise ValueError(f"device {str(device)!r} is not usable here ({error}); use one of: {have}") from None


def autoreset_mode_of(mode: str | AutoresetMode) -> AutoresetMode:
    """Gymnasium's autoreset mode from its name."""
    if isinstance(mode, AutoresetMode):
        return mode
    for known in AutoresetMode:
        if str(mode).replace("_", "").replace("-", "").lower() == known.value.lower():
            return known
    names = ", ".join(known.value for known in AutoresetMode)
    raise ValueError(f"unknown autoreset_mode {mode!r}; known: {names}")


def checked_rows(num_envs: Any) -> int:
    """A number of rows."""
    if not isinstance(num_envs, int) or num_envs < 1:
        raise ValueError(f"num_envs must be an integer ≥ 1, got {num_envs!r}")
    return num_envs


def checked_actions(actions: Any, rows: int, words: int, device: torch.device) -> Tensor:
    """Tokens `[B]` as int64 on the device."""
    tokens = _integers("actions", "token ids", actions)
    if tokens.shape != (rows,):
        raise ValueError(f"actions must have shape ({rows},), one token per row, got {tuple(tokens.shape)}")
    wrong = (tokens < 0) | (tokens >= words)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(f"tokens must be 0 … {words - 1}, got {int(tokens[row])} in row {row}")
    return tokens.to(device)


def checked_index(index: Any, size: int, rows: int, repeat: Any, device: torch.device) -> Tensor | None:
    """Items to start from, `[rows / repeat]` or `[rows]`, each 0 … size−1."""
    if not isinstance(repeat, int) or repeat < 1 or rows % repeat:
        raise ValueError(
            f"repeat must be an integer ≥ 1 that divides num_envs={rows}, got {repeat!r}; "
            "num_envs is the number of rows, repeats included"
        )
    if index is None:
        return None
    items = _integers("index", "item numbers", index)
    if items.shape not in ((rows // repeat,), (rows,)):
        raise ValueError(f"index must have shape ({rows // repeat},), got {tuple(items.shape)}")
    if ((items < 0) | (items >= size)).any():
        raise ValueError(f"index must be 0 … {size - 1}, got {int(items.min())} … {int(items.max())}")
    return items.to(device)


def _integers(name: str, what: str, values: Any) -> Tensor:
    """Integers of any kind as int64."""
    if not isinstance(values, Tensor):
        array = np.asarray(values)
        values = torch.from_numpy(array.astype(np.int64)) if array.dtype.kind in "iu" else array
    if values.dtype not in _INTEGERS:
        raise TypeError(f"{name} must be integers ({what}), got {values.dtype}")
    integers: Tensor = values.to(torch.int64)
    return integers


def checked_reward(name: str, value: Any, mask: Tensor, due: Tensor) -> Tensor:
    """What a reward returned: finite floats `[B]` where `due`, or `[B, T]` where `mask`; 0 elsewhere."""
    if not isinstance(value, Tensor):
        raise TypeError(f"reward {name!r} must return a torch.Tensor, got {type(value).__name__}")
    wanted = (tuple(mask.shape[:1]), tuple(mask.shape))
    if tuple(value.shape) not in wanted:
        raise ValueError(
            f"reward {name!r} must return shape {wanted[0]} (one per text) or {wanted[1]} (one per token), "
            f"got {tuple(value.shape)}"
        )
    reward: Tensor = value.detach().to(mask.device, torch.float32)
    due = mask if reward.ndim == 2 else due
    bad = ~reward.isfinite() & due
    if bad.any():
        row = int(bad.nonzero()[0][0])
        raise ValueError(f"reward {name!r} is {reward[row].tolist()} in row {row}; it must be finite")
    return reward.masked_fill(~due, 0.0)
