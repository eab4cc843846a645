"""Policies: `make_policy(name, env, **sizes)`, all under the one protocol of `rlseq.types.Policy`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from rlseq.engine import sequence_env
from rlseq.env import SequenceEnv
from rlseq.errors import check_options, pick
from rlseq.policies.recurrent import Recurrent


def recurrent(cell: type[nn.LSTM] | type[nn.GRU], env: SequenceEnv, **sizes: Any) -> nn.Module:
    """A recurrent policy with the vocabularies of a task."""
    check_options(sizes, {"hidden", "embedding", "value"}, "a recurrent policy")
    if env.source_vocab is not None:
        sizes |= {"source_ids": env.source_vocab.num_ids, "source_pad": env.source_vocab.pad}
    return Recurrent(cell, words=len(env.vocab), ids=env.vocab.num_ids, bos=env.vocab.bos, **sizes)


POLICIES: dict[str, Callable[..., nn.Module]] = {
    "lstm": partial(recurrent, nn.LSTM),
    "gru": partial(recurrent, nn.GRU),
}


def make_policy(name: str, env: Any, *, seed: int | None = None, **sizes: Any) -> Any:
    """A policy by name, on the task's device.

    Args:
        name: "lstm" or "gru".
        env: the task; it decides vocabularies, source and device.
        seed: of the initial weights; the task's own seed when not given.
        **sizes: `hidden`, `embedding`, `value=True` for a value head.
    """
    build = pick(POLICIES, name, "policy")
    env = sequence_env(env)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(env.seed if seed is None else seed)
        return build(env, **sizes).to(env.device)
