"""Tables of shaping: potentials and costs by name, each with a weight, from a YAML file or a dictionary.

A file:

    potentials: {rouge_l: 0.5, length: 0.1}   # these leave the best policy the best
    costs: {living: 0.01, repetition: 0.2}    # these do not
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlseq.envs.wrappers.rewards import E, Potential, potential_of, shaped, with_reward
from rlseq.mdp.sequence_env import SequenceEnv
from rlseq.metrics.fitting import named_reward, references_of
from rlseq.metrics.registry import METRICS
from rlseq.types import Context, Reward
from rlseq.utils.arguments import Share, checked_arguments, shown
from rlseq.utils.errors import hint, in_one_line

ShapingTable = Mapping[str, Mapping[str, float]]  # "potentials" and "costs", each a weight by name


def length(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    """Return the number of tokens so far, as a share of T, `[B, T]`."""
    return mask.cumsum(1) / tokens.shape[1]


def variety(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    """Return the number of different tokens so far, as a share of T, `[B, T]`."""
    return (mask & ~_seen(tokens, mask)).cumsum(1) / tokens.shape[1]


def living(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    """Return 1 for every token, `[B, T]`."""
    return mask.float()


def repetition(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    """Return 1 for a token that repeats the one before it, `[B, T]`."""
    same = torch.nn.functional.pad(tokens[:, 1:] == tokens[:, :-1], (1, 0))
    return (same & mask).float()


def again(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    """Return 1 for a token that the text has already, `[B, T]`."""
    return (_seen(tokens, mask) & mask).float()


def _seen(tokens: Tensor, mask: Tensor) -> Tensor:
    """Return whether a token occurs earlier in its row, `[B, T]`."""
    same = (tokens.unsqueeze(2) == tokens.unsqueeze(1)) & mask.unsqueeze(1)
    return same.tril(-1).any(2)


POTENTIALS: dict[str, Potential] = {"length": length, "variety": variety}  # and metrics that have increments
TOKEN_COSTS: dict[str, Callable[[Tensor, Tensor, Context], Tensor]] = {
    "living": living,
    "repetition": repetition,
    "again": again,
}


@checked_arguments
def with_shaping(env: E, table: Mapping[str, Any], gamma: Share = 1.0) -> E:
    """Return the task with the potentials and costs of a table, each a part of the reward by its name.

    Args:
        env: the task.
        table: `{"potentials": {name: weight}, "costs": {name: weight}}`.
        gamma: the discount with which the agent sums rewards.
    """
    table = checked_table(table, "shaping")
    for name, weight in table.get("potentials", {}).items():
        env = shaped(env, _weighted(weight, _potential(env, name)), gamma, f"potential_{name}")
    for name, weight in table.get("costs", {}).items():
        env = with_reward(env, f"cost_{name}", _weighted(-weight, TOKEN_COSTS[name]))
    return env


@checked_arguments
def read_shaping(path: str | PathLike[str]) -> ShapingTable:
    """Return the table in a YAML file; errors name the file and the key."""
    import yaml

    try:
        found = yaml.safe_load(Path(path).read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as YAML: {in_one_line(error)}") from None
    return checked_table(found, str(path))


def checked_table(found: Any, where: str) -> ShapingTable:
    """Return a table, or refuse what is none.

    Args:
        found: what should be a table.
        where: the file that it was read from, for errors.
    """
    known = {"potentials": {*POTENTIALS, *_metrics()}, "costs": {*TOKEN_COSTS}}
    if not isinstance(found, Mapping) or not found:
        raise ValueError(f"{where} must hold potentials and costs, names with weights, got {shown(found)}")
    for kind, weights in found.items():
        if kind not in known:
            raise ValueError(f"{where}: unknown key {shown(kind)}{hint(str(kind), known)}")
        if not isinstance(weights, Mapping):
            raise ValueError(f"{where}: {kind} must hold names with weights, got {shown(weights)}")
        for name, weight in weights.items():
            if name not in known[kind]:
                raise ValueError(
                    f"{where}: {kind} has an unknown name {name!r}{hint(str(name), known[kind])}"
                )
            number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
            if not number or not isfinite(weight):
                raise ValueError(f"{where}: {kind}.{name} must be a finite number, got {shown(weight)}")
    return {kind: {name: float(weight) for name, weight in found[kind].items()} for kind in found}


def _metrics() -> set[str]:
    return {row.name for row in METRICS.values() if row.make}


def _potential(env: SequenceEnv, name: str) -> Potential:
    """Return a potential by its name; of a metric, its score of every prefix."""
    if name in POTENTIALS:
        return POTENTIALS[name]
    metric = named_reward(name, references_of(env))
    try:
        potential = potential_of(metric)
        context = env.contexts(torch.zeros(1, dtype=torch.int64, device=env.device))
        text = torch.zeros(1, env.max_len, dtype=torch.int64, device=env.device)
        potential(text, torch.ones_like(text).bool(), {**context, "index": text[:, 0]})
    except TypeError as error:
        raise ValueError(f"the metric {name} is no potential of this task: {error}") from None
    return potential


def _weighted(weight: float, function: Callable[[Tensor, Tensor, Context], Tensor]) -> Reward:
    return lambda tokens, mask, context: weight * function(tokens, mask, context)
