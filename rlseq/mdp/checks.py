"""Checks at the boundary: a mistake is refused before it changes anything, and says how to mend it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from rlseq.types import Reward
from rlseq.utils.arguments import shown
from rlseq.utils.memory import check_fits

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
    raise ValueError(f"unknown autoreset_mode {shown(mode)}; known: {names}")


def checked_rows(num_envs: Any) -> int:
    """A number of rows."""
    if not isinstance(num_envs, (int, np.integer)) or num_envs < 1:
        raise ValueError(f"num_envs must be an integer ≥ 1, got {shown(num_envs)}")
    return int(num_envs)


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
    """Items to start from, `[rows / repeat]`, each 0 … size−1; one number will do for one."""
    if not isinstance(repeat, (int, np.integer)) or repeat < 1 or rows % repeat:
        raise ValueError(
            f"repeat must be an integer ≥ 1 that divides num_envs={rows}, got {shown(repeat)}; "
            "num_envs is the number of rows, repeats included"
        )
    if index is None:
        return None
    items = _integers("index", "item numbers", index)
    items = items.reshape(1) if items.ndim == 0 else items
    if items.shape != (rows // repeat,):
        raise ValueError(f"index must have shape ({rows // repeat},), got {tuple(items.shape)}")
    if ((items < 0) | (items >= size)).any():
        raise ValueError(f"index must be 0 … {size - 1}, got {int(items.min())} … {int(items.max())}")
    return items.to(device)


def checked_context(given: Any, index: Tensor, source_vocab: Any) -> dict[str, Tensor]:
    """Contexts as a task's `contexts` gave them, tensors with one row per index, and the index itself."""
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
            "contexts gives a source, but items has none, so that nobody would read it; "
            "pass items={'source': …} too (one row will do), so that its width is known"
        )
    return context


def check_words(policy: Any, vocab: Any, source_vocab: Any) -> None:
    """Refuse a policy of ours that was made for a task with other numbers of words."""
    words: Any = getattr(policy, "words", None)
    if not isinstance(getattr(words, "written", None), int):
        return  # what a policy of another make writes is seen when it writes
    if words.written != len(vocab):
        raise ValueError(
            f"the policy writes {words.written} words, the task has {len(vocab)}; "
            "use the task that it was made for, or rlseq.make_policy(name, env)"
        )
    if source_vocab is not None and words.source not in (None, source_vocab.num_ids):
        raise ValueError(
            f"the policy reads sources of {words.source} ids, the task has {source_vocab.num_ids}; "
            "use the task that it was made for, or rlseq.make_policy(name, env)"
        )


def checked_legal(legal: Any, rows: int, words: int, device: torch.device) -> Tensor | None:
    """The tokens that a task allows, as its `legal` answers; no look at values, which would wait for them."""
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
    raise ValueError(f"`legal` must return bool {wanted[1]} or {wanted[0]} on {device}, or None, got {got}")


def reward_functions(reward: Any) -> dict[str, Reward]:
    """Return the parts of a reward by name: those of a dict or of a weighted sum, else the reward itself."""
    parts = dict(reward if isinstance(reward, Mapping) else getattr(reward, "addends", {"reward": reward}))
    if not parts or not all(callable(part) for part in parts.values()):
        raise TypeError(f"reward must be a function, or a dict of functions, got {shown(reward)}")
    return parts


def named_functions(metrics: Any) -> Mapping[str, Reward]:
    """Metrics by name."""
    if not isinstance(metrics, Mapping) or not all(callable(metric) for metric in metrics.values()):
        raise TypeError(
            'metrics must be a dict of name → function, such as {"bleu": rlseq.metrics.BLEU(references)}, '
            f"got {shown(metrics)}"
        )
    return metrics


def _integers(name: str, what: str, values: Any) -> Tensor:
    """Integers of any kind as int64."""
    if not isinstance(values, Tensor):
        if isinstance(values, range):  # which is short however long what it stands for is
            check_fits(8 * max(abs(values.start), abs(values.stop)), **{name: values.stop})
        array = np.asarray(values)
        values = torch.from_numpy(array.astype(np.int64)) if array.dtype.kind in "iu" else array
    if values.dtype not in _INTEGERS:
        raise TypeError(f"{name} must be integers ({what}), got {values.dtype}")
    integers: Tensor = values.to(torch.int64)
    return integers


def checked_judgement(answer: Any, shape: tuple[int, int]) -> Tensor:
    """Return the answer of a discriminator, if it holds floats `[B, outputs]`; values are not looked at."""
    wanted = f"a discriminator must return float logits [B, outputs] = {shape}"
    if not isinstance(answer, Tensor) or not answer.is_floating_point():
        raise TypeError(f"{wanted}, got {kind_of(answer)}")
    if tuple(answer.shape) != shape:
        raise ValueError(f"{wanted}, got {tuple(answer.shape)}")
    return answer


def kind_of(value: Any) -> str:
    """The type of a value, and of its elements."""
    return f"a tensor of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__


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
