"""Checkpoints: a tree of tensors and plain values as safetensors and JSON, never as pickle.

`00000100.safetensors` holds the tensors of a tree, `00000100.json` the rest of it, and checksums of both.
Each is written to a temporary file and renamed, the JSON last: a checkpoint exists when its JSON does. A file
that was truncated or changed is recognised by its checksum, and the checkpoint before it is used.
"""

from __future__ import annotations

import inspect
import json
import random
import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import is_dataclass
from functools import partial
from pathlib import Path
from types import FunctionType, MethodType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors
from torch import Tensor

from rlseq.mdp.sequence_env import SequenceEnv
from rlseq.metrics.algebra import Composite
from rlseq.utils.files import (
    START_ANEW,
    Damaged,
    canonical,
    checksum,
    make_folder,
    remove_drafts,
    write_whole,
)
from rlseq.utils.stateful import Stateful

StateTree = Any
"""Nested dicts, lists and tuples of tensors, numbers, strings, booleans and None."""


FORMAT = "rlseq.checkpoint/1"
GENERATORS = (torch.Generator, np.random.Generator, random.Random)


def save(folder: Path, step: int, state: StateTree, keep: Collection[int] = ()) -> None:
    """Write a checkpoint, whole or not at all; keep the one before it, and those named in `keep`.

    Args:
        folder: the folder of the checkpoints.
        step: the number of this checkpoint; later ones have larger numbers.
        state: the tree to write.
        keep: the steps of checkpoints that are not removed.
    """
    tensors: dict[str, Tensor] = {}
    tree = _pack(state, "state", tensors)
    data = write_tensors(tensors)
    content = {"format": FORMAT, "step": step, "tensors": checksum(data), "state": tree}
    sealed = {"checksum": checksum(canonical(content)), "checkpoint": content}
    try:
        make_folder(folder)
        write_whole(folder / f"{step:08d}.safetensors", data)
        write_whole(folder / f"{step:08d}.json", json.dumps(sealed).encode())
    except OSError as error:
        last = max((there for there in steps(folder) if there < step), default=None)
        intact = "there is none before it" if last is None else f"the one of update {last} is intact"
        message = f"the checkpoint of update {step} could not be written ({error.strerror}); {intact}"
        raise OSError(error.errno, message, str(folder)) from error
    _prune(folder, {*[there for there in steps(folder) if there <= step][-2:], *keep})


def load(folder: Path) -> tuple[int, StateTree] | None:
    """Return the step and the state of the newest intact checkpoint; None if there has never been one."""
    problems: list[Damaged] = []
    for step in reversed(steps(folder)):
        try:
            state = read(folder, step)
        except Damaged as problem:
            problems.append(problem)
            continue
        for passed in problems:
            warnings.warn(f"{passed}; the checkpoint before it is used", stacklevel=2)
        return step, state
    if problems:
        raise Damaged(f"{problems[0]}, and no other checkpoint in {folder} is intact; {START_ANEW}")
    return None


def read(folder: Path, step: int) -> StateTree:
    """Return the state of one checkpoint; `Damaged` names a file that was changed after it was written."""
    path = folder / f"{step:08d}.json"
    content = _content(path)
    beside = path.with_suffix(".safetensors")
    try:
        data = beside.read_bytes()
    except OSError as error:
        raise Damaged(f"{beside} cannot be read ({error.strerror})") from error
    if content["tensors"] != checksum(data):
        raise Damaged(f"{beside} was changed after it was written (its checksum differs)")
    return _unpack(content["state"], read_tensors(data))


def _content(path: Path) -> StateTree:
    """Return the JSON of a checkpoint after checking it."""
    try:
        sealed = json.loads(path.read_bytes())
        content = sealed["checkpoint"]
        intact = sealed["checksum"] == checksum(canonical(content))
        written_as = content["format"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise Damaged(f"{path} cannot be read ({error})") from error
    if not intact:
        raise Damaged(f"{path} was changed after it was written (its checksum differs)")
    if written_as != FORMAT or content["step"] != int(path.stem):
        raise Damaged(f"{path} holds step {content['step']} in format {written_as!r}, wanted {FORMAT!r}")
    return content


def steps(folder: Path) -> list[int]:
    """Return the steps of all checkpoints in a folder, in order."""
    return sorted(int(path.stem) for path in _numbered(folder, "json"))


def _numbered(folder: Path, suffix: str) -> list[Path]:
    """Return the files of a folder whose names are those of checkpoints."""
    return [path for path in folder.glob(f"{'[0-9]' * 8}*.{suffix}") if path.stem.isdecimal()]


# ── the state of a run ────────────────────────────────────────────────────────────────────────────


def state_of(agent: Any, env: Any) -> StateTree:
    """Return everything that later updates depend on: the states of agent, task and random numbers."""
    legacy: Any = np.random.get_state()
    return {
        "policy": agent.policy.state_dict(),
        "agent": agent.state_dict(),
        "env": env.state_dict(),
        "torch": torch.get_rng_state(),
        "cuda": list(torch.cuda.get_rng_state_all()) if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": (legacy[0], torch.from_numpy(legacy[1].astype(np.int64)), *legacy[2:]),
    }


def restore(agent: Any, env: Any, state: StateTree) -> None:
    """Restore the states of an agent, its task and all random numbers that `state_of` returned."""
    agent.policy.load_state_dict(state["policy"])
    agent.load_state_dict(state["agent"])
    env.load_state_dict(state["env"])
    torch.set_rng_state(state["torch"])
    for device, cuda in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
        torch.cuda.set_rng_state(cuda, device)
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))


def check_saved(agent: Any, env: Any) -> None:
    """Refuse an agent, a task or a reward with state that checkpoints would not store."""
    saved = {id(part) for part in (agent.policy, *agent.stateful_parts().values())}
    for name, part in vars(agent).items():
        if isinstance(part, Stateful) and id(part) not in saved:
            raise TypeError(
                f"the agent's {name} has a state that checkpoints would lose; let the agent's "
                "`stateful_parts` return it (rlseq.policy_gradient.agent.Agent)"
            )
        _check_generators(f"the agent's {name}", part)
    for name, reward in getattr(env, "parts", {}).items():
        _check_generators(f"the reward {name!r}", reward)
    if isinstance(env, SequenceEnv) and type(env).state_dict is SequenceEnv.state_dict:
        own = {name: value for name, value in vars(env).items() if name not in ("generator", "_np_random")}
        _check_generators("the task", SimpleNamespace(**own))


def _check_generators(name: str, part: Any) -> None:
    """Refuse a random generator in an object that has no `state_dict`."""
    if isinstance(part, GENERATORS):
        raise TypeError(
            f"{name} is a random generator that checkpoints would lose; give what holds it `state_dict()` "
            "and `load_state_dict(state)`, as docs/guides/runs.md shows"
        )
    if isinstance(part, MethodType):
        _check_generators(name, part.__self__)
    elif isinstance(part, Composite):
        for inner, reward in part.components.items():
            _check_generators(f"{name}: {inner}", reward)
    elif not isinstance(part, Stateful):
        for held, value in _held(part):
            # A dataclass may be made of others, as `Stepwise(scorer)` is.
            if is_dataclass(part) or isinstance(value, GENERATORS):
                _check_generators(f"{name}: {held}", value)


def _held(part: Any) -> Iterable[tuple[Any, Any]]:
    """Return the attributes of an object, or the variables that a function uses, by name."""
    if isinstance(part, FunctionType):
        used = inspect.getclosurevars(part)
        return {**used.nonlocals, **used.globals}.items()
    if isinstance(part, partial):
        return [*enumerate(part.args), *part.keywords.items()]
    return getattr(part, "__dict__", {}).items()


# ── trees as JSON ────────────────────────────────────────────────────────────────────────────────────────


def _pack(tree: StateTree, path: str, tensors: dict[str, Tensor]) -> Any:
    """Return a tree as JSON values; its tensors are collected in `tensors` by their path."""
    if tree is None or isinstance(tree, (bool, int, float, str)):
        return tree
    if isinstance(tree, Tensor):
        tensors[path] = tree.detach().cpu().contiguous().clone()  # clone: tied weights share memory
        return {"tensor": path}
    if isinstance(tree, Mapping):
        return {"dict": [[key, _pack(value, f"{path}.{key}", tensors)] for key, value in tree.items()]}
    if isinstance(tree, (list, tuple)):
        kind = "list" if isinstance(tree, list) else "tuple"
        return {kind: [_pack(part, f"{path}.{i}", tensors) for i, part in enumerate(tree)]}
    raise TypeError(
        f"a checkpoint holds tensors, numbers, strings, dicts and lists, got {type(tree)} at {path}"
    )


def _unpack(packed: Any, tensors: Mapping[str, Tensor]) -> StateTree:
    if not isinstance(packed, dict):
        return packed
    ((kind, value),) = packed.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {key: _unpack(part, tensors) for key, part in value}
    parts = [_unpack(part, tensors) for part in value]
    return parts if kind == "list" else tuple(parts)


def packed(state: StateTree) -> bytes:
    """Return a tree as bytes, for another process."""
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_pack(state, "state", tensors)).encode()
    return len(tree).to_bytes(8, "big") + tree + write_tensors(tensors)


def unpacked(data: bytes) -> StateTree:
    """Return the tree of which `packed` has made bytes."""
    end = 8 + int.from_bytes(data[:8], "big")
    return _unpack(json.loads(data[8:end]), read_tensors(data[end:]))


def _prune(folder: Path, keep: Collection[int]) -> None:
    """Remove all other checkpoints, including newer damaged ones, and files of interrupted writes."""
    for step in steps(folder):
        if step not in keep:
            (folder / f"{step:08d}.json").unlink()
    for path in _numbered(folder, "safetensors"):
        if not path.with_suffix(".json").exists():
            path.unlink()
    remove_drafts(folder)
