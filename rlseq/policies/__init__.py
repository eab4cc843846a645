"""Policies: `make_policy(name, env, **sizes)`, all under the one protocol of `rlseq.types.Policy`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from rlseq.engine import sequence_env, task_of
from rlseq.errors import check_options, pick
from rlseq.policies.captioner import Att2in as Att2in
from rlseq.policies.captioner import captioner
from rlseq.policies.mlp import MLP, Signals
from rlseq.policies.positions import Learned as Learned
from rlseq.policies.positions import Rotary as Rotary
from rlseq.policies.recurrent import Recurrent
from rlseq.policies.seq2seq import Seq2Seq
from rlseq.policies.transformer import Transformer as Transformer
from rlseq.policies.words import Words

POLICIES: dict[str, Callable[..., nn.Module]] = {
    "lstm": partial(Recurrent, nn.LSTM),
    "gru": partial(Recurrent, nn.GRU),
    "seq2seq": partial(Seq2Seq, nn.LSTM),
    "transformer": Transformer,
    "captioner": captioner,
    "mlp": MLP,
}


def make_policy(name: str, env: Any, *, seed: int | None = None, **sizes: Any) -> Any:
    """A policy by name, on the task's device.

    Args:
        name: "lstm", "gru", "seq2seq", "transformer" or "captioner" for texts, "mlp" for
            `rlseq.adapters.GymEnv`.
        env: the task; it decides vocabularies, source and device.
        seed: of the initial weights; the task's own seed when not given.
        **sizes: `hidden`, `embedding`, `layers`, `dropout`, `value=True` for a value head; of a transformer
            also `heads` and `positions` (`Learned` or `Rotary`); of a captioner `decoder` (`Att2in` or
            `Transformer`); of an mlp those of `rlseq.policies.mlp.MLP`.
    """
    build = pick(POLICIES, name, "policy")
    env = task_of(env)
    check_options(sizes, size_names(build), f"policy {name!r}")
    _check_values(sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(env.seed if seed is None else seed)
        return build(_reads(build, env), **sizes).to(env.device)


def _reads(build: Callable[..., nn.Module], env: Any) -> Signals | Words:
    """What a policy must know of a task."""
    return Signals.of(env) if build is MLP else Words.of(sequence_env(env))


def size_names(build: Callable[..., nn.Module]) -> set[str]:
    """The sizes that a policy has."""
    parameters = inspect.signature(build).parameters.values()
    return {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}


def _check_values(sizes: Mapping[str, Any]) -> None:
    """Numbers that can be sizes; which of them fit each other, the policy itself knows."""
    for name in ("hidden", "embedding", "layers", "heads"):
        size = sizes.get(name, 1)
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"{name} must be an integer ≥ 1, got {size!r}")
    if not 0 <= sizes.get("dropout", 0.0) < 1:
        raise ValueError(f"dropout must be in [0, 1), got {sizes['dropout']!r}")
