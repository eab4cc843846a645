"""Checks of policies, of what they answer, of forced tokens and of metrics."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from rlseq.mdp.checks import checked_integers
from rlseq.mdp.sequence_env import SequenceEnv
from rlseq.types import Evaluation, Reward, State
from rlseq.utils.arguments import shown
from rlseq.utils.flags import refuse_where


def check_device(policy: Any, device: torch.device) -> None:
    """Refuse a policy on another device than the task."""
    home = next(policy.parameters(), None) if isinstance(policy, torch.nn.Module) else None
    if home is not None and home.device != device:
        raise ValueError(
            f"the policy is on {home.device}, the task on {device}; move it with policy.to({str(device)!r}), "
            f"or make the task with device={str(home.device)!r}"
        )


def check_words(policy: Any, env: SequenceEnv) -> None:
    """Refuse a policy of rlseq that was made for a task with another number of words, or other noise."""
    words: Any = getattr(policy, "words", None)
    if not isinstance(getattr(words, "written", None), int):
        return  # any other policy is checked at its first step
    vocab, source_vocab = env.vocab, env.source_vocab
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
    _check_noise(type(policy).__name__, words.noise, env.noise)


def _check_noise(policy: str, read: int, drawn: int) -> None:
    """Refuse a policy that has no input for the noise that the task draws, or reads more or less of it."""
    if read == drawn:
        return
    if not read:
        raise ValueError(
            f"the task draws noise z of {drawn} numbers for every text, and this {policy} has no input for "
            "it; make the policy for this task, rlseq.make_policy(name, env), or the task without "
            f"noise={drawn}"
        )
    raise ValueError(
        f"the policy reads noise z of {read} numbers, and the task draws {drawn or 'none'}; make the task "
        f"with noise={read}"
    )


def check_takes_behaviour(policy: Any) -> None:
    """Refuse a policy whose `evaluate` takes no behaviour, where one has to be scored."""
    if len(signature(policy.evaluate).parameters) < 3:
        raise TypeError(
            f"{type(policy).__name__}.evaluate(actions, context) cannot score what was written with a "
            "temperature, top-k, top-p or a task's mask; let it take `behaviour` too (rlseq.types.Behaviour)"
        )


def checked_forcing(
    forced: Any, steps: Any, shape: tuple[int, int], words: int, device: torch.device
) -> tuple[Tensor, Tensor] | None:
    """Return forced tokens `[B, F]`, and where they are forced, bool `[B, F]`; `shape` is `(B, T)`."""
    if forced is None:
        if steps is not None:
            raise ValueError(f"forced_steps={shown(steps)} without forced tokens; pass forced=[B, F]")
        return None
    tokens = checked_integers("forced", "token ids", forced).to(device)
    if tokens.ndim != 2 or len(tokens) != shape[0] or tokens.shape[1] > shape[1]:
        raise ValueError(
            f"forced must be [B, F] with B={shape[0]} rows and F ≤ T={shape[1]} tokens, "
            f"got {tuple(tokens.shape)}"
        )
    longest = tokens.shape[1]
    given = longest if steps is None else steps
    steps = checked_integers("forced_steps", "numbers of tokens", given).to(device)
    if steps.shape not in ((), (shape[0],)):
        raise ValueError(f"forced_steps must be one number or ({shape[0]},), got {tuple(steps.shape)}")
    where = (torch.arange(longest, device=device) < steps.reshape(-1, 1)).expand(tokens.shape)
    too_many = (steps < 0) | (steps > longest)
    unknown = ((tokens < 0) | (tokens >= words)) & where

    def error() -> ValueError:
        if too_many.any():
            return ValueError(
                f"forced_steps must be 0 … {longest}, the forced tokens given, got {steps.tolist()}"
            )
        return ValueError(
            f"forced tokens must be 0 … {words - 1}, got {int(tokens.min())} … {int(tokens.max())}"
        )

    refuse_where(too_many.any() | unknown.any(), error)
    return (tokens.clamp(0, words - 1) if tokens.is_cuda else tokens), where


def check_written(log_probs: Tensor, stuck: Tensor | None, mask: Tensor) -> None:
    """Refuse texts whose logits held NaN or infinity, or that went on where no token was allowed.

    Args:
        log_probs: of the tokens written, `[B, T]`.
        stuck: True where no token was allowed, `[B, T]`; None where there was always one.
        mask: True on the tokens written, `[B, T]`.
    """
    wrong = ~log_probs.isfinite()

    def error() -> ValueError:
        if stuck is None or wrong.any():
            rows = wrong.any(1).nonzero().flatten().tolist()
            return ValueError(
                f"the policy's logits hold NaN or infinity in rows {rows[:8]}; nothing was judged"
            )
        rows = (stuck & mask).any(1).nonzero().flatten().tolist()
        return ValueError(f"no token is legal in rows {rows[:8]}; `legal` must allow at least one")

    refuse_where((wrong if stuck is None else wrong | (stuck & mask)).any(), error)


def checked_step(answer: Any, rows: int, words: int) -> tuple[Tensor, State]:
    """Return the logits of the next token and the new state, if that is the answer of a policy's `step`."""
    wanted = f"a policy's step must return (logits, state) with float logits [B, V] = {(rows, words)}"
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise TypeError(f"{wanted}, got {type(answer).__name__}")
    return checked_floats(wanted, answer[0], (rows, words)), answer[1]


def checked_evaluation(answer: Any, shape: tuple[int, ...]) -> Evaluation:
    """Return the answer of a policy's `evaluate`, if it holds floats `[B, T]`."""
    if not isinstance(answer, Evaluation):
        raise TypeError(
            f"a policy's evaluate must return rlseq.types.Evaluation, got {type(answer).__name__}"
        )
    for name in ("log_probs", "entropy", "values", "top"):
        value = getattr(answer, name)
        if value is not None or name in ("log_probs", "entropy"):
            checked_floats(f"{name} of a policy's evaluate must be floats [B, T] = {shape}", value, shape)
    return answer


def checked_floats(wanted: str, value: Any, shape: tuple[int, ...]) -> Tensor:
    """Return floats of a shape; values are not looked at, because that would wait for the device."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        got = f"a tensor of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{wanted}, got {got}")
    if tuple(value.shape) != shape:
        raise ValueError(f"{wanted}, got {tuple(value.shape)}")
    return value


def named_functions(metrics: Any) -> Mapping[str, Reward]:
    """Return metrics, if they are functions by name."""
    if not isinstance(metrics, Mapping) or not all(callable(metric) for metric in metrics.values()):
        raise TypeError(
            'metrics must be a dict of name → function, such as {"bleu": rlseq.metrics.BLEU(references)}, '
            f"got {shown(metrics)}"
        )
    return metrics
