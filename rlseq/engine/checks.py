"""Checks of policies, forced tokens and logits before and after a rollout."""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch
from torch import Tensor

from rlseq.mdp.checks import _integers, kind_of
from rlseq.types import Evaluation, State
from rlseq.utils.arguments import shown


def check_device(policy: Any, device: torch.device) -> None:
    """Refuse a policy that is elsewhere than the task."""
    home = next(policy.parameters(), None) if isinstance(policy, torch.nn.Module) else None
    if home is not None and home.device != device:
        raise ValueError(
            f"the policy is on {home.device}, the task on {device}; move it with policy.to({str(device)!r}), "
            f"or make the task with device={str(home.device)!r}"
        )


def checked_forcing(
    forced: Any, steps: Any, shape: tuple[int, int], words: int, device: torch.device
) -> tuple[Tensor, Tensor] | None:
    """Forced tokens `[B, F]`, and where they are forced, bool `[B, F]`; `shape` is `(B, T)`."""
    if forced is None:
        if steps is not None:
            raise ValueError(f"forced_steps={shown(steps)} without forced tokens; pass forced=[B, F]")
        return None
    tokens = _integers("forced", "token ids", forced).to(device)
    if tokens.ndim != 2 or len(tokens) != shape[0] or tokens.shape[1] > shape[1]:
        raise ValueError(
            f"forced must be [B, F] with B={shape[0]} rows and F ≤ T={shape[1]} tokens, "
            f"got {tuple(tokens.shape)}"
        )
    longest = tokens.shape[1]
    steps = _integers("forced_steps", "numbers of tokens", longest if steps is None else steps).to(device)
    if steps.shape not in ((), (shape[0],)):
        raise ValueError(f"forced_steps must be one number or ({shape[0]},), got {tuple(steps.shape)}")
    if ((steps < 0) | (steps > longest)).any():
        raise ValueError(f"forced_steps must be 0 … {longest}, the forced tokens given, got {steps.tolist()}")
    where = (torch.arange(longest, device=device) < steps.reshape(-1, 1)).expand(tokens.shape)
    if (((tokens < 0) | (tokens >= words)) & where).any():
        raise ValueError(
            f"forced tokens must be 0 … {words - 1}, got {int(tokens.min())} … {int(tokens.max())}"
        )
    return tokens, where


def check_written(log_probs: Tensor, support: Tensor | None, mask: Tensor) -> None:
    """Refuse texts that came from logits that are no numbers, or where nothing was allowed."""
    if not log_probs.isfinite().all():
        rows = (~log_probs.isfinite().all(1)).nonzero().flatten().tolist()
        raise ValueError(f"the policy's logits hold NaN or infinity in rows {rows[:8]}; nothing was judged")
    stuck = mask & ~(mask if support is None else support.any(-1))
    if stuck.any():
        rows = stuck.any(1).nonzero().flatten().tolist()
        raise ValueError(f"no token is legal in rows {rows[:8]}; `legal` must allow at least one")


def check_takes_behaviour(policy: Any) -> None:
    """Refuse a policy that could only score itself, where another distribution acted."""
    if len(signature(policy.evaluate).parameters) < 3:
        raise TypeError(
            f"{type(policy).__name__}.evaluate(actions, context) cannot score what was written with a "
            "temperature, top-k, top-p or a task's mask; let it take `behaviour` too (rlseq.types.Behaviour)"
        )


def checked_step(answer: Any, rows: int, words: int) -> tuple[Tensor, State]:
    """Return the logits of the next token and the new state, if that is the answer of a policy's `step`.

    Values are not looked at, because that would wait for the device.
    """
    wanted = f"a policy's step must return (logits, state) with float logits [B, V] = {(rows, words)}"
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise TypeError(f"{wanted}, got {type(answer).__name__}")
    logits, state = answer
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        raise TypeError(f"{wanted}, got {kind_of(logits)}")
    if logits.shape != (rows, words):
        raise ValueError(f"{wanted}, got {tuple(logits.shape)}")
    return logits, state


def checked_evaluation(answer: Any, shape: tuple[int, ...]) -> Evaluation:
    """Return the answer of a policy's `evaluate`, if it holds floats `[B, T]`; values are not looked at."""
    if not isinstance(answer, Evaluation):
        raise TypeError(
            f"a policy's evaluate must return rlseq.types.Evaluation, got {type(answer).__name__}"
        )
    for name in ("log_probs", "entropy", "values", "top"):
        value = getattr(answer, name)
        if value is None and name in ("values", "top"):
            continue
        wanted = f"{name} of a policy's evaluate must be floats [B, T] = {shape}"
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise TypeError(f"{wanted}, got {kind_of(value)}")
        if tuple(value.shape) != shape:
            raise ValueError(f"{wanted}, got {tuple(value.shape)}")
    return answer
