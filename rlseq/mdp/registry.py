"""Ids of tasks: `register` one, and `gym.make`, `gym.make_vec` and `rlseq.make` all know it."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any, get_args

import gymnasium as gym
from typing_extensions import get_type_hints

from rlseq.utils.arguments import PositiveInt, checked_arguments
from rlseq.utils.errors import check_options, hint


@checked_arguments
def register(id: str, task: str | type) -> None:
    """Register a task with Gymnasium.

    Args:
        id: such as `"rlseq/Copy-v0"`.
        task: a `SequenceEnv` subclass, or `"module:Class"`, imported when it is first made.
    """
    if not isinstance(task, type) and str(task).count(":") != 1:
        raise ValueError(f"task must be a SequenceEnv subclass or 'module:Class', got {task!r}")
    gym.register(
        id,
        entry_point="rlseq.mdp.registry:make_one",
        vector_entry_point="rlseq.mdp.registry:make_many",
        order_enforce=False,  # the task's own error says what to call
        kwargs={"task": task},
    )


@checked_arguments
def make(
    id: str, num_envs: PositiveInt = 1, device: Any = "cpu", seed: int | None = 0, **options: Any
) -> Any:
    """Make a task with tensors on `device`: a `SequenceEnv` of `num_envs` episodes in lock-step.

    Args:
        id: a registered id; `rlseq.envs` lists them.
        num_envs: B, the number of rows.
        device: where contexts, tokens and rewards live.
        seed: of contexts and of sampling; None draws one.
        **options: the task's own, and those of `EnvOptions`.
    """
    return _build(_registered(id), options, num_envs=num_envs, device=device, seed=seed)


def task_class(id: str) -> type:
    """Return the class of a registered task."""
    return _imported(_registered(id))


def _registered(id: str) -> str | type:
    """Return what `register` was given."""
    spec = gym.registry.get(id)
    if spec is None or "task" not in spec.kwargs:
        raise ValueError(f"unknown id {id!r}{hint(id, ids())}")
    task: str | type = spec.kwargs["task"]
    return task


def ids() -> list[str]:
    """Return all registered ids that `make` knows."""
    return sorted(name for name, spec in gym.registry.items() if "task" in spec.kwargs)


def make_many(task: str | type, num_envs: int = 1, **options: Any) -> Any:
    """Make a task for `gym.make_vec`: the same class, with NumPy arrays in and out."""
    return _build(task, options, num_envs=num_envs, tensors=False)


def make_one(task: str | type, **options: Any) -> Any:
    """Make a task for `gym.make`: one row of the same class."""
    from rlseq.mdp.single import SingleEnv

    for name in ("num_envs", "autoreset_mode", "tensors"):
        if name in options:
            raise TypeError(f"gym.make makes one episode; {name} belongs to gym.make_vec or rlseq.make")
    if options.get("render_mode") == "rgb_array":  # stable-baselines3 tries it, and catches this error
        raise TypeError("a text has no picture: render_mode must be 'ansi', 'human' or None, not 'rgb_array'")
    return SingleEnv(_build(task, options, tensors=False, autoreset_mode="Disabled"))


def _build(task: str | type, options: dict[str, Any], **fixed: Any) -> Any:
    cls = _imported(task)
    check_options(options, option_names(cls), cls.__name__)
    env = cls(**{**options, **fixed})
    env.made_from = next((id for id in ids() if gym.registry[id].kwargs["task"] == task), ""), options
    return env


def _imported(task: str | type) -> type:
    """Return a class as it is, or imported by its name `"module:Class"`."""
    if isinstance(task, type):
        return task
    module, name = task.split(":")
    cls: type = getattr(import_module(module), name)
    return cls


def option_names(cls: Any) -> set[str]:
    """Return the keyword options of a task: its own, and those of every task where it passes them on."""
    parameters = inspect.signature(cls).parameters.values()
    names = {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    return names.union(*(named.__annotations__ for named in options_passed_on(cls)))


def options_passed_on(cls: Any) -> list[Any]:
    """Return the classes that name the options which a task passes on; none where it passes none on."""
    from rlseq.mdp.sequence_env import EnvOptions

    for passed_on in inspect.signature(cls).parameters.values():
        if passed_on.kind is passed_on.VAR_KEYWORD:
            typed = str(passed_on.annotation).startswith("Unpack[")
            named = get_args(get_type_hints(cls.__init__)[passed_on.name])[0] if typed else EnvOptions
            return [EnvOptions] if named is EnvOptions else [named, EnvOptions]
    return []
