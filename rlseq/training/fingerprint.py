"""The configuration of a run, by which a later call decides whether it can be resumed."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlseq.engine.computing import OFF
from rlseq.metrics.algebra import name_of
from rlseq.types import BasePolicy, SteppedEnv
from rlseq.utils.files import Json, read_json, unsealed
from rlseq.utils.places import command_line
from rlseq.utils.version import __version__

RUN_SCHEMA = "rlseq.run/4"
EARLIER = ("rlseq.run/2", "rlseq.run/3")  # schemas of which `rlseq convert` makes models
FREE = (
    "budget_tokens",
    "evaluations",
    "texts",
    "metrics",
    "imports",
)  # settings that may change when a run is resumed
CHECKED_PARTS = ("agent", "env", "policy", "run")  # parts that must be the same when a run is resumed


def fixed(job: Mapping[str, Any]) -> Json:
    """Return the settings of a run that must be the same when it is resumed or used."""
    return {name: value for name, value in job.items() if name not in FREE}


def configuration(folder: Path) -> Json:
    """Return the configuration of a run; refuse one that was written by another version of rlseq."""
    path = folder / "config.json"
    sealed = read_json(path)
    check_schema(sealed, folder)
    return unsealed(sealed, path)


def check_same(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse a folder whose run is of another configuration."""
    there = configuration(folder)
    _check_settings_remain(folder, there["agent"], config["agent"])
    parts = [part for part in CHECKED_PARTS if config.get(part) is not None]  # a call from Python has no run
    differ = "\n  ".join(line for part in parts for line in differences(there.get(part), config[part], part))
    if differ:
        raise ValueError(
            f"{folder} holds a run of another configuration:\n  {differ}\n"
            "change it back, or write to another folder"
        )


def _check_settings_remain(folder: Path, there: Json, here: Json) -> None:
    """Refuse a run whose agent had settings that it no longer has, which nobody can change back."""
    removed = sorted(there.keys() - here.keys())
    if removed and there["class"] == here["class"]:
        raise ValueError(
            f"{folder} was made by another version of {here['class']}, with the settings "
            f"{', '.join(removed)}; to resume it, use that version, or write to another folder"
        )


def check_schema(config: Mapping[str, Any], folder: Path) -> None:
    """Refuse a run whose configuration another version has written: its files have other fields."""
    there = config.get("schema")
    if there != RUN_SCHEMA:
        advice = f"; `rlseq convert {folder} NEW` makes a model of it" if there in EARLIER else ""
        raise ValueError(
            f"{folder} was made by another version of rlseq (schema {there!r} in config.json, here "
            f"{RUN_SCHEMA!r}){advice}; to resume it, use that version, or write to another folder"
        )


# ── the description of a run ─────────────────────────────────────────────────────────────────────────────


def describe(agent: Any, env: Any) -> dict[str, Any]:
    """Return the configuration of a run: the parts that must not change, the machine and the command."""
    return {
        "schema": RUN_SCHEMA,
        "agent": {"class": type(agent).__name__, **_fields(agent)},
        "env": describe_task(env),
        "policy": described_policy(agent.policy),
        "seed": env.seed,
        "machine": machine(),
        "command": command_line(sys.argv),
    }


def machine() -> dict[str, Any]:
    """Return versions and hardware."""
    return {
        "rlseq": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _fields(thing: Any) -> dict[str, Any]:
    """Return the hyper-parameters of an agent; how it computes only where that is stated."""
    left_out = {"policy", *(name for name in ("compile", "autocast") if getattr(thing, name, OFF) == OFF)}
    return {f.name: _named(getattr(thing, f.name)) for f in fields(thing) if f.name not in left_out}


def _named(value: Any) -> Any:
    """Return a hyper-parameter as JSON: plain values as they are, functions and objects by name."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_named(part) for part in value]
    if isinstance(value, Mapping):
        return {str(name): _named(part) for name, part in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        plain = ((f.name, getattr(value, f.name)) for f in fields(value))
        settings = {n: _named(part) for n, part in plain if not isinstance(part, (Tensor, torch.nn.Module))}
        return {"class": type(value).__name__, **settings}
    return str(getattr(value, "signature", name_of(value)))


def describe_task(env: Any) -> dict[str, Any]:
    """Return the description of a task: class, sizes, seed, reward, checksums of data and vocabularies."""
    if isinstance(env, SteppedEnv):
        return env.describe()
    return {
        "class": type(env).__name__,
        "num_envs": env.rank.all(env.num_envs),
        "max_len": env.max_len,
        "seed": env.seed,
        "items": env.size,
        "data": {n: _digest(data.cpu().contiguous().numpy()) for n, data in env.data_tensors().items()},
        "vocab": _words(env.vocab),
        "source_vocab": env.source_vocab and _words(env.source_vocab),
        "reward": {name: str(getattr(part, "signature", name_of(part))) for name, part in env.parts.items()},
        **({} if env.starts is None else {"starts": type(env.starts).__name__}),
    }


def _words(vocab: Any) -> dict[str, Any]:
    return {"words": len(vocab), "sha256": digest_of_words(vocab.words)}


def digest_of_words(words: Iterable[str]) -> str:
    """Return the checksum of the words of a vocabulary in order."""
    return _digest("\n".join(words).encode())


def described_policy(policy: Any) -> dict[str, Any]:
    """Return the class of a policy and the shapes of its parameters."""
    shapes = {name: list(value.shape) for name, value in policy.state_dict().items()}
    more = policy.describe() if isinstance(policy, BasePolicy) else {}
    return {"class": type(policy).__name__, "parameters": shapes, **more}


def _digest(data: Any) -> str:
    return sha256(data).hexdigest()[:16]


def differences(there: Any, here: Any, path: str) -> Iterator[str]:
    """Yield a line for each difference between two trees of plain values."""
    if isinstance(there, dict) and isinstance(here, dict):
        for name in sorted({*there, *here}):
            yield from differences(there.get(name), here.get(name), f"{path}.{name}")
    elif json.dumps(there) != json.dumps(here):
        yield f"{path} was {there!r}, is {here!r}"
