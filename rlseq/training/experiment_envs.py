"""Training tasks and test tasks by id: their items, metrics, rewards and controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from rlseq.discriminators.reward_model import load_reward
from rlseq.mdp.registry import make, option_names, task_class
from rlseq.mdp.task_spec import TaskSpec
from rlseq.metrics import Constant, Shuffled
from rlseq.metrics.fitting import (
    HasReferences,
    LazyMetric,
    is_sum,
    named_metric,
    named_reward,
    references_of,
)
from rlseq.metrics.registry import CONTROLS as CONTROLS
from rlseq.metrics.registry import METRICS, row_of
from rlseq.types import Reward

OF_PATH = "path="  # begins the name of a reward model: path=FOLDER
ALWAYS = ("reward", "length")  # reported of every task
HELD_OUT = "held-out items"
TRAINING = "training items: this task declares no held-out data"


def held_out(id: str) -> dict[str, Any]:
    """Return the options for the held-out items of a task; empty if it declares none."""
    declared = getattr(task_class(id), "held_out", None)
    if not isinstance(declared, Mapping | None):
        raise TypeError(
            f"{task_class(id).__name__}.held_out must be a mapping of options, such as {{'split': 'test'}}, "
            f"or None, got {declared!r}"
        )
    return dict(declared or {})


def held_out_options(id: str) -> dict[str, Any]:
    """Return the options with which a task is tested."""
    return {**held_out(id), "num_envs": 250, "seed": 0}


def tested_on(id: str) -> str:
    """Return a description of the items that a task is tested on."""
    return HELD_OUT if held_out(id) else TRAINING


def number_tested(selection: Mapping[str, Any]) -> str:
    """Return the number of items in a test as text to put before their description; empty for one item."""
    size, texts = selection["size"], selection["texts"]
    return f"{texts:,} of {size:,} " if texts < size else f"{size:,} " if size > 1 else ""


def task_with_words(id: str, options: Mapping[str, Any], words: TaskSpec | None) -> Any:
    """Return a task, with the vocabularies and sizes of a trained policy if they are given.

    Args:
        id: the id of the task.
        options: the options of the task.
        words: vocabularies and sizes of the policy. A task that makes its vocabularies from data takes these
            instead; any other task must have the same ones.
    """
    if words is None:
        return make(id, **options)
    known = option_names(task_class(id))
    given = {"words": words} if "words" in known else {"vocab": words.vocab, "max_len": words.max_len}
    env = make(id, **{**{name: value for name, value in given.items() if name in known}, **options})
    for name in ("vocab", "source_vocab"):
        if getattr(env, name) != getattr(words, name):
            raise ValueError(
                f"{id} has another {name} than the policy was made for: {_lacking(env, words, name)}; use "
                "options of the task that give the same words, or train a policy on this task"
            )
    return env


def _lacking(env: Any, words: TaskSpec, name: str) -> str:
    """Return a description of the difference between two vocabularies."""
    here, there = (set(getattr(found, name).words if getattr(found, name) else ()) for found in (env, words))
    only = min(here ^ there, default=None)
    where = "the task" if only in here else "training"
    example = "" if only is None else f", and {only!r} is only in {where}"
    return f"{len(here):,} words in place of {len(there):,}{example}"


def training_env(
    id: str, options: Mapping[str, Any], reward: str | None, seed: int, words: TaskSpec | None = None
) -> Any:
    """Return the training task: with its own reward, with another metric as its reward, or with a control."""
    tested = held_out(id)
    if tested and tested.items() <= options.items():
        same = " ".join(f"{name}={value}" for name, value in tested.items())
        raise ValueError(
            f"{same} is what {id} is tested on; leave it out, so that other items are trained on"
        )
    options = {"num_envs": 64, **options, "seed": seed}
    env = task_with_words(id, options, words)
    if reward == "constant":
        env.parts = {"constant": Constant()}
    elif reward == "shuffled":
        env.parts = {f"shuffled_{name}": Shuffled(part, seed=seed) for name, part in env.parts.items()}
    elif reward is not None and reward.startswith(OF_PATH):
        env.parts = {reward: metric(env, reward)}
    elif reward is not None:
        if "reward" in option_names(task_class(id)):
            with suppress(ValueError):  # a task may know fewer names
                return task_with_words(id, {**options, "reward": reward}, words)
        env.parts = {reward: named_reward(reward, _references(env, reward), own_rewards(env))}
    return env


def testing_env(
    id: str,
    options: Mapping[str, Any],
    metrics: Sequence[str] | None,
    words: TaskSpec | None = None,  # noqa: PT028
    trained_on: str | None = None,  # noqa: PT028
) -> Any:
    """Return the test task, with its own reward, the requested metrics, and the metric that is trained on.

    Its items are the held-out ones, or the training items if the task declares no held-out data.
    """
    env = task_with_words(id, {**options, **held_out_options(id)}, words)
    if metrics is not None:
        env.metrics = {name: metric(env, name) for name in metrics if name not in ALWAYS}
    if trained_on is not None and trained_on not in (*CONTROLS, *ALWAYS, *env.metrics):
        env.metrics = {**env.metrics, trained_on: metric(env, trained_on)}
    return env


def metric(env: Any, name: str) -> Reward:
    """Return a metric by name: one of the task, or one of `rlseq.metrics` fitted on its references.

    `path=FOLDER` is the reward model in a folder.
    """
    if name.startswith(OF_PATH):
        return load_reward(name.removeprefix(OF_PATH), env)
    return named_metric(name, _references(env, name), own_rewards(env) if is_sum(name) else env.metrics)


def own_rewards(env: Any) -> dict[str, Reward]:
    """Return the metrics that are a task's own; those of `rlseq.metrics` have other figures as rewards."""
    return {name: part for name, part in env.metrics.items() if not isinstance(part, LazyMetric)}


def _references(env: Any, name: str) -> HasReferences | None:
    """Return the references of a task; refuse a metric that needs references if there are none."""
    corpus = references_of(env)
    if corpus is None and name not in env.metrics and row_of(name).needs_references:
        alone = [row.name for row in METRICS.values() if row.make and not row.needs_references]
        raise ValueError(
            f"{type(env).__name__} cannot have the metric {name!r}, which needs references; "
            f"it has: {', '.join(sorted({*env.metrics, *alone, *ALWAYS}))}"
        )
    return corpus
