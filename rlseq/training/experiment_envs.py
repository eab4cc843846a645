"""The training task and the test task of an id: their items, metrics, rewards and controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import partial
from typing import Any

import torch

from rlseq.mdp.registry import make, option_names, task_class
from rlseq.metrics import Constant, Shuffled
from rlseq.metrics.registry import BY_NAME, OF_SETS
from rlseq.types import Context, Reward
from rlseq.utils.errors import hint

CONTROLS = ("constant", "shuffled")


ALWAYS = ("reward", "length")  # reported of every task


HELD_OUT = "held-out items"


TRAINING = "training items: this task declares no held-out data"


def held_out(id: str) -> dict[str, Any]:
    """The options that make a task with the items that it holds out; none where it declares no such data."""
    declared = getattr(task_class(id), "held_out", None)
    if not isinstance(declared, Mapping | None):
        raise TypeError(
            f"{task_class(id).__name__}.held_out must be a mapping of options, such as {{'split': 'test'}}, "
            f"or None, got {declared!r}"
        )
    return dict(declared or {})


def tested_on(id: str) -> str:
    """The kind of items that a task is tested on, in words."""
    return HELD_OUT if held_out(id) else TRAINING


def number_tested(selection: Mapping[str, Any]) -> str:
    """The number of items in a test, in words that stand before their kind; nothing for a single item."""
    size, texts = selection["size"], selection["texts"]
    return f"{texts:,} of {size:,} " if texts < size else f"{size:,} " if size > 1 else ""


def training_env(id: str, options: Mapping[str, Any], reward: str | None, seed: int) -> Any:
    """The task as an agent sees it: with its own reward, with another as its reward, or with a control."""
    tested = held_out(id)
    if tested and tested.items() <= options.items():
        same = " ".join(f"{name}={value}" for name, value in tested.items())
        raise ValueError(
            f"{same} is what {id} is tested on; leave it out, so that other items are trained on"
        )
    options = {"num_envs": 64, **options, "seed": seed}
    env = make(id, **options)
    if reward == "constant":
        env.parts = {"constant": Constant()}
    elif reward == "shuffled":
        env.parts = {f"shuffled_{name}": Shuffled(part, seed=seed) for name, part in env.parts.items()}
    elif reward is not None:
        if "reward" in option_names(task_class(id)):
            with suppress(ValueError):  # not one of the task's own
                return make(id, **{**options, "reward": reward})
        env.parts = {reward: metric(env, reward)}
    return env


def testing_env(id: str, options: Mapping[str, Any], metrics: Sequence[str] | None) -> Any:
    """The task as it is tested, with its own reward and the metrics asked for.

    Its items are those that it holds out, or its training items where it declares no held-out data.
    """
    own = {**options, **held_out(id), "num_envs": 250, "seed": 0}
    env = make(id, **own)
    if metrics is not None:
        env.metrics = {name: metric(env, name) for name in metrics if name not in ALWAYS}
    return env


def metric(env: Any, name: str) -> Reward:
    """A metric of a task by name: one of its own, or one of `rlseq.metrics`, fitted on its references."""
    if name in env.metrics:
        own: Reward = env.metrics[name]
        return own
    if name in OF_SETS:
        counted: Reward = OF_SETS[name](eos=env.vocab.eos)
        return counted
    if name not in BY_NAME:
        raise ValueError(f"unknown metric {name!r}{hint(name, {*env.metrics, *BY_NAME, *OF_SETS, *ALWAYS})}")
    context = env.contexts(torch.arange(env.size, device=env.device))
    if "references" not in context:
        raise ValueError(
            f"{type(env).__name__} cannot have the metric {name!r}, which needs references; "
            f"it has: {', '.join(sorted({*env.metrics, *OF_SETS, *ALWAYS}))}"
        )
    build: Any = BY_NAME[name]
    cls: Any = build.func if isinstance(build, partial) else build
    names = {field.name for field in fields(cls)}
    fitted: Reward = build(
        reference_ids(context, env.vocab.eos), **({"eos": env.vocab.eos} if "eos" in names else {})
    )
    return fitted


def reference_ids(context: Context, end: int | None) -> list[list[list[int]]]:
    """The references of every item as ids, without EOS."""
    references, lengths = context["references"].tolist(), context["reference_lengths"].tolist()
    return [
        [[i for i in row[:n] if i != end] for row, n in zip(rows, sizes, strict=True) if n]
        for rows, sizes in zip(references, lengths, strict=True)
    ]
