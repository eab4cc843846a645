"""Checkpoints: a tree of tensors and plain values as safetensors and JSON. No pickle is ever read.

`00000100.safetensors` holds the tensors of a tree, `00000100.json` the rest of it, and checksums of both.
Each is written beside its place and renamed, the JSON last: a checkpoint is there when its JSON is. What is
cut off or changed later is noticed by its checksum, and the checkpoint before it is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import warnings
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors
from torch import Tensor, nn

Tree = Any
"""Nested dicts, lists and tuples of tensors, numbers, strings, booleans and None."""

FORMAT = "rlseq.checkpoint/1"


class Damaged(RuntimeError):
    """A checkpoint is not what was written."""


def save(folder: Path, step: int, state: Tree, keep: Collection[int] = ()) -> None:
    """Write a checkpoint, whole or not at all; the one before it stays, and those that are to be kept.

    Args:
        folder: of the checkpoints.
        step: names this one; later ones have larger numbers.
        state: what to write.
        keep: steps that are not removed.
    """
    tensors: dict[str, Tensor] = {}
    tree = _pack(state, "state", tensors)
    data = write_tensors(tensors)
    content = {"format": FORMAT, "step": step, "tensors": _checksum(data), "state": tree}
    sealed = {"checksum": _checksum(_canonical(content)), "checkpoint": content}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / f"{step:08d}.safetensors", data)
        write_whole(folder / f"{step:08d}.json", json.dumps(sealed).encode())
    except OSError as error:
        last = max((there for there in steps(folder) if there < step), default=None)
        intact = "there is none before it" if last is None else f"the one of update {last} is intact"
        message = f"the checkpoint of update {step} could not be written ({error.strerror}); {intact}"
        raise OSError(error.errno, message, str(folder)) from error
    _prune(folder, {*[there for there in steps(folder) if there <= step][-2:], *keep})


def load(folder: Path) -> tuple[int, Tree] | None:
    """The newest intact checkpoint: its step and state; None where there never was one."""
    for step in reversed(steps(folder)):
        try:
            return step, read(folder, step)
        except Damaged as problem:
            warnings.warn(
                f"checkpoint {step} in {folder}: {problem}; the one before it is used", stacklevel=2
            )
    if steps(folder):
        raise Damaged(
            f"no checkpoint in {folder} is intact; start anew in another folder, or remove this one"
        )
    return None


def read(folder: Path, step: int) -> Tree:
    """The state of one checkpoint, checked."""
    try:
        sealed = json.loads((folder / f"{step:08d}.json").read_bytes())
        content = sealed["checkpoint"]
        if sealed["checksum"] != _checksum(_canonical(content)):
            raise Damaged("its JSON does not have the checksum it was written with")
        data = (folder / f"{step:08d}.safetensors").read_bytes()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"it cannot be read ({error})") from error
    if content["format"] != FORMAT:
        raise Damaged(f"its format is {content['format']!r}, wanted {FORMAT!r}")
    if content["tensors"] != _checksum(data):
        raise Damaged("its tensors do not have the checksum they were written with")
    return _unpack(content["state"], read_tensors(data))


def steps(folder: Path) -> list[int]:
    """The checkpoints that are there, in order."""
    return sorted(int(path.stem) for path in folder.glob("[0-9]*.json"))


def write_whole(path: Path, data: bytes) -> None:
    """A file that is there entirely or as it was: written beside its place, synchronised, renamed."""
    draft = path.with_name(f".{path.name}.draft")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name, too
    finally:
        os.close(folder)


# ── what there is to remember ────────────────────────────────────────────────────────────────────────────


def state_of(agent: Any, env: Any) -> Tree:
    """Everything that later updates depend on: the agent's state, and every random generator."""
    legacy: Any = np.random.get_state()
    return {
        "policy": agent.policy.state_dict(),
        "agent": agent.state_dict(),
        "generators": {path: _generator_state(found) for path, found in _generators(agent, env)},
        "torch": torch.get_rng_state(),
        "cuda": list(torch.cuda.get_rng_state_all()) if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": (legacy[0], torch.from_numpy(legacy[1].astype(np.int64)), *legacy[2:]),
    }


def restore(agent: Any, env: Any, state: Tree) -> None:
    """Put an agent, its environment and all random generators back to where `state_of` saw them."""
    agent.policy.load_state_dict(state["policy"])
    agent.load_state_dict(state["agent"])
    found = dict(_generators(agent, env))
    if set(found) != set(state["generators"]):
        differ = ", ".join(sorted(set(found) ^ set(state["generators"])))
        raise ValueError(f"random generators are not those of the checkpoint: {differ}")
    for path, generator in found.items():
        _set_generator(generator, state["generators"][path])
    torch.set_rng_state(state["torch"])
    for device, cuda in enumerate(state["cuda"]):
        torch.cuda.set_rng_state(cuda, device)
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))


def _generators(agent: Any, env: Any) -> Iterator[tuple[str, Any]]:
    """Random generators of an agent, of an environment, and of its rewards, by where they are."""
    seen: set[int] = set()
    yield from _walk(agent, "agent", seen, 5)
    yield from _walk(env, "env", seen, 5)


def _walk(thing: Any, path: str, seen: set[int], depth: int) -> Iterator[tuple[str, Any]]:
    if id(thing) in seen or depth < 0:
        return
    seen.add(id(thing))
    if isinstance(thing, (torch.Generator, np.random.Generator)):
        yield path, thing
        return
    if isinstance(thing, Mapping):
        parts = [(name, part) for name, part in thing.items() if isinstance(name, str)]
    elif isinstance(thing, (list, tuple)):
        parts = [(str(i), part) for i, part in enumerate(thing[:100])]
    elif isinstance(thing, (Tensor, nn.Module, torch.optim.Optimizer, type)) or not hasattr(
        thing, "__dict__"
    ):
        return
    else:
        parts = sorted(vars(thing).items())
    for name, part in parts:
        yield from _walk(part, f"{path}.{name}", seen, depth - 1)


def _generator_state(generator: Any) -> Tree:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    return json.dumps(_plain(generator.bit_generator.state))


def _set_generator(generator: Any, state: Tree) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    else:
        generator.bit_generator.state = json.loads(state)


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's."""
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


# ── trees as JSON ────────────────────────────────────────────────────────────────────────────────────────


def _pack(tree: Tree, path: str, tensors: dict[str, Tensor]) -> Any:
    """JSON for a tree; its tensors are put beside, by their path."""
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


def _unpack(packed: Any, tensors: Mapping[str, Tensor]) -> Tree:
    if not isinstance(packed, dict):
        return packed
    ((kind, value),) = packed.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {key: _unpack(part, tensors) for key, part in value}
    parts = [_unpack(part, tensors) for part in value]
    return parts if kind == "list" else tuple(parts)


def _canonical(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _checksum(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _prune(folder: Path, keep: Collection[int]) -> None:
    """Remove other checkpoints, among them damaged ones that are newer, and what broken-off writing left."""
    for step in steps(folder):
        if step not in keep:
            (folder / f"{step:08d}.json").unlink()
    for path in folder.glob("*.safetensors"):
        if not path.with_suffix(".json").exists():
            path.unlink()
    for path in folder.glob(".*.draft"):
        path.unlink()
