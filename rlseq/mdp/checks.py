"""Checks of what a task is given and of what its own functions answer, before anything is changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from rlseq.types import Reward
from rlseq.utils.arguments import shown
from rlseq.utils.flags import refuse_where
from rlseq.utils.memory import check_fits
from rlseq.utils.ranks import own_device

_INTEGERS = {getattr(torch, f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)}


def usable_device(device: str | torch.device) -> torch.device:
    """Return the device, if this machine has it."""
    try:
        found = torch.empty(0, device=own_device(device)).device
        torch.Generator(found)  # which every task needs
        return found
    except (RuntimeError, AssertionError) as error:
        have = "cpu" + ", cuda" * torch.cuda.is_available()
        raise ValueError(f"device {str(device)!r} is not usable here ({error}); use one of: {have}") from None


def autoreset_mode_of(mode: str | AutoresetMode) -> AutoresetMode:
    """Return Gymnasium's autoreset mode from its name."""
    if isinstance(mode, AutoresetMode):
        return mode
    for known in AutoresetMode:
        if str(mode).replace("_", "").replace("-", "").lower() == known.value.lower():
            return known
    names = ", ".join(known.value for known in AutoresetMode)
    raise ValueError(f"unknown autoreset_mode {shown(mode)}; known: {names}")


def checked_rows(num_envs: Any) -> int:
    """Return a number of rows as an int."""
    if not isinstance(num_envs, (int, np.integer)) or num_envs < 1:
        raise ValueError(f"num_envs must be an integer ≥ 1, got {shown(num_envs)}")
    return int(num_envs)


def checked_integers(name: str, what: str, values: Any) -> Tensor:
    """Return integers of any kind as int64; `name` and `what` say in an error which they are."""
    if not isinstance(values, Tensor):
        if isinstance(values, range):  # the array is large where the range is long
            check_fits(8 * max(abs(values.start), abs(values.stop)), **{name: values.stop})
        array = np.asarray(values)
        values = torch.from_numpy(array.astype(np.int64)) if array.dtype.kind in "iu" else array
    if values.dtype not in _INTEGERS:
        raise TypeError(f"{name} must be integers ({what}), got {values.dtype}")
    integers: Tensor = values.to(torch.int64)
    return integers


def checked_actions(actions: Any, rows: int, words: int, device: torch.device) -> Tensor:
    """Return tokens `[B]` as int64 on the device."""
    tokens = checked_integers("actions", "token ids", actions)
    if tokens.shape != (rows,):
        raise ValueError(f"actions must have shape ({rows},), one token per row, got {tuple(tokens.shape)}")
    wrong = (tokens < 0) | (tokens >= words)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(f"tokens must be 0 … {words - 1}, got {int(tokens[row])} in row {row}")
    return tokens.to(device)


def checked_index(index: Any, size: int, rows: int, repeat: Any, device: torch.device) -> Tensor | None:
    """Return the items to start from, `[rows / repeat]`, each 0 … size−1; a single one may be a number."""
    if not isinstance(repeat, (int, np.integer)) or repeat < 1 or rows % repeat:
        raise ValueError(
            f"repeat must be an integer ≥ 1 that divides num_envs={rows}, got {shown(repeat)}; "
            "num_envs is the number of rows, repeats included"
        )
    if index is None:
        return None
    items = checked_integers("index", "item numbers", index)
    items = items.reshape(1) if items.ndim == 0 else items
    if items.shape != (rows // repeat,):
        raise ValueError(f"index must have shape ({rows // repeat},), got {tuple(items.shape)}")
    refuse_where(
        ((items < 0) | (items >= size)).any(),
        lambda: ValueError(f"index must be 0 … {size - 1}, got {int(items.min())} … {int(items.max())}"),
    )
    return items.clamp(0, size - 1) if items.is_cuda else items.to(device)


def checked_context(given: Any, index: Tensor, source_vocab: Any) -> dict[str, Tensor]:
    """Return what a task's `contexts` answered, tensors with one row per index, and the index itself."""
    if not isinstance(given, Mapping):
        raise TypeError(f"`contexts` must return a dict of tensors, got {type(given).__name__}")
    context: dict[str, Any] = {**given, "index": index}
    for name, value in context.items():
        if not isinstance(value, Tensor) or value.shape[:1] != index.shape or value.device != index.device:
            got = (
                f"{tuple(value.shape)} on {value.device}"
                if isinstance(value, Tensor)
                else type(value).__name__
            )
            raise ValueError(
                f"context {name!r} must be a tensor with B = {len(index)} rows on {index.device}, got {got}"
            )
    if "source" in context and context["source"].dtype not in _INTEGERS:
        raise TypeError(f"context 'source' must be integers (token ids), got {context['source'].dtype}")
    if "source" in context and source_vocab is None:
        raise ValueError(
            "contexts gives a source, but items has none, so no policy would read it; "
            "pass items={'source': …} too (one row will do), from which its width is known"
        )
    return context


def checked_legal(legal: Any, rows: int, words: int, device: torch.device) -> Tensor | None:
    """Return what a task's `legal` answered; values are not looked at, as that would wait for the device."""
    wanted = (words,), (rows, words)
    if legal is None or (
        isinstance(legal, Tensor)
        and legal.dtype == torch.bool
        and tuple(legal.shape) in wanted
        and legal.device == device
    ):
        return legal
    got = type(legal).__name__
    if isinstance(legal, Tensor):
        got = f"{legal.dtype} {tuple(legal.shape)} on {legal.device}"
    raise ValueError(
        f"`legal` must return bool {wanted[1]} or {wanted[0]} on {device}, a function that does, or None, "
        f"got {got}"
    )


def reward_functions(reward: Any) -> dict[str, Reward]:
    """Return the parts of a reward by name: those of a dict or of a weighted sum, else the reward itself."""
    parts = dict(reward if isinstance(reward, Mapping) else getattr(reward, "addends", {"reward": reward}))
    if not parts or not all(callable(part) for part in parts.values()):
        raise TypeError(f"reward must be a function, or a dict of functions, got {shown(reward)}")
    return parts


class WrongShape(ValueError):
    """A reward returned a tensor of another shape than its texts need."""


def checked_reward(name: str, value: Any, mask: Tensor, due: Tensor) -> Tensor:
    """Return what a reward answered: finite floats `[B]` where `due`, `[B, T]` where `mask`; else 0."""
    if not isinstance(value, Tensor):
        raise TypeError(f"reward {name!r} must return a torch.Tensor, got {type(value).__name__}")
    wanted = (tuple(mask.shape[:1]), tuple(mask.shape))
    if tuple(value.shape) not in wanted:
        raise WrongShape(
            f"reward {name!r} must return shape {wanted[0]} (one per text) or {wanted[1]} (one per token), "
            f"got {tuple(value.shape)}"
        )
    reward: Tensor = value.detach().to(mask.device, torch.get_default_dtype())
    due = mask if reward.ndim == 2 else due
    bad = ~reward.isfinite() & due

    def error() -> ValueError:
        row = int(bad.nonzero()[0][0])
        return ValueError(f"reward {name!r} is {reward[row].tolist()} in row {row}; it must be finite")

    refuse_where(bad.any(), error)
    return reward.masked_fill(~due, 0.0)
