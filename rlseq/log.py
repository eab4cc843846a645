"""Where runs are written: a folder each, with everything needed to resume, compare and reproduce it.

The files and their fields are described in docs/runs.md.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlseq.checkpoint import write_whole
from rlseq.metrics.combine import name_of
from rlseq.types import OwnLoop

Row = dict[str, float]
Sink = Callable[[Row], None]
SCHEMA = "rlseq.run/2"
COMPARED = ("agent", "env", "policy")  # what must be the same for a run to go on


class RunFolder:
    """The folder of one run, held by one process at a time.

    Args:
        path: is made where it does not exist.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        self.checkpoints = self.path / "checkpoints"
        self._lock = locked(self.path / "lock")
        self._metrics: TextIOWrapper | None = None

    @property
    def started(self) -> bool:
        """Is there a run in it already?"""
        return (self.path / "config.json").exists()

    def close(self) -> None:
        """Let others in."""
        if self._metrics is not None:
            self._metrics.close()
        self._lock.close()

    def configure(self, config: Mapping[str, Any]) -> None:
        """Write `config.json`; a folder that holds a run of another configuration is refused."""
        path = self.path / "config.json"
        if path.exists():
            check_same(self.path, config)
        else:
            write_json(path, config)

    def append(self, rows: Sequence[Row]) -> None:
        """Add lines to `metrics.jsonl`."""
        if self._metrics is None:
            self._metrics = (self.path / "metrics.jsonl").open("a", encoding="utf-8")
        self._metrics.writelines(json.dumps(row) + "\n" for row in rows)
        self._metrics.flush()

    def rows(self, until: int) -> list[Row]:
        """The lines of `metrics.jsonl` up to an update; later ones, which will be repeated, are cut off."""
        path = self.path / "metrics.jsonl"
        kept = []
        for line in path.read_text("utf-8").splitlines() if path.exists() else []:
            with contextlib.suppress(json.JSONDecodeError):  # a kill may leave half a line
                row = json.loads(line)
                if row["update"] <= until:
                    kept.append(row)
        write_whole(path, "".join(json.dumps(row) + "\n" for row in kept).encode())
        return kept

    def samples(self, update: int, texts: Sequence[Mapping[str, Any]]) -> None:
        """Write what an evaluation saw, one text a line, to `samples/UPDATE.jsonl`."""
        folder = self.path / "samples"
        folder.mkdir(exist_ok=True)
        lines = "".join(json.dumps(text, ensure_ascii=False) + "\n" for text in texts)
        write_whole(folder / f"{update:08d}.jsonl", lines.encode())

    def results(self, results: Mapping[str, Any]) -> None:
        """Write `results.json`."""
        write_json(self.path / "results.json", {"schema": SCHEMA, **results})


def check_same(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse a folder whose run is of another configuration."""
    there = json.loads((folder / "config.json").read_text("utf-8"))
    check_schema(there, folder)
    differ = [line for part in COMPARED for line in differences(there.get(part), config[part], part)]
    if differ:
        raise ValueError(
            f"{folder} holds a run of another configuration:\n  "
            + "\n  ".join(differ)
            + "\nchange it back, or write to another folder"
        )


def check_schema(config: Mapping[str, Any], folder: Path) -> None:
    """Refuse a run whose configuration another version has written: what it lacks cannot be compared."""
    there = config.get("schema")
    if there != SCHEMA:
        raise ValueError(
            f"{folder} was made by another version of rlseq (schema {there!r}, here {SCHEMA!r}); "
            "use that version, or another folder"
        )


def write_json(path: Path, content: Any) -> None:
    """Readable JSON, whole or not at all."""
    write_whole(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def locked(path: Path) -> TextIOWrapper:
    """An open file that no other process holds; the system frees it when its holder ends, however it ends."""
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise ValueError(
            f"{path.parent} is being written by process {holder}; wait for it, or write to another folder"
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


# ── what a run is ────────────────────────────────────────────────────────────────────────────────────────


def describe(agent: Any, env: Any) -> dict[str, Any]:
    """The configuration of a run: what must be the same to resume it, and where it was started."""
    return {
        "schema": SCHEMA,
        "agent": {"class": type(agent).__name__, **_fields(agent)},
        "env": env.describe() if isinstance(env, OwnLoop) else _env(env),
        "policy": _policy(agent.policy),
        "seed": env.seed,
        "machine": machine(),
        "command": " ".join(sys.argv),
    }


def machine() -> dict[str, Any]:
    """Versions and hardware."""
    return {
        "rlseq": version("rlseq") if _installed("rlseq") else "from source",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _installed(name: str) -> bool:
    try:
        return bool(version(name))
    except importlib.metadata.PackageNotFoundError:
        return False


def _fields(thing: Any) -> dict[str, Any]:
    return {
        field.name: _named(getattr(thing, field.name)) for field in fields(thing) if field.name != "policy"
    }


def _named(value: Any) -> Any:
    """A hyper-parameter as JSON: values as they are, functions and objects by name."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_named(part) for part in value]
    if isinstance(value, Mapping):
        return {str(name): _named(part) for name, part in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        plain = {f.name: getattr(value, f.name) for f in fields(value)}
        settings = {
            name: part for name, part in plain.items() if not isinstance(part, (Tensor, torch.nn.Module))
        }
        return {"class": type(value).__name__, **{name: _named(part) for name, part in settings.items()}}
    return str(getattr(value, "signature", name_of(value)))


def _env(env: Any) -> dict[str, Any]:
    return {
        "class": type(env).__name__,
        "num_envs": env.num_envs,
        "max_len": env.max_len,
        "seed": env.seed,
        "items": env.size,
        "data": {name: _digest(value.cpu().contiguous().numpy()) for name, value in env.drawn_from().items()},
        "vocab": _words(env.vocab),
        "source_vocab": env.source_vocab and _words(env.source_vocab),
        "reward": {name: str(getattr(part, "signature", name_of(part))) for name, part in env.parts.items()},
    }


def _words(vocab: Any) -> dict[str, Any]:
    return {"words": len(vocab), "sha256": _digest("\n".join(vocab.words).encode())}


def _policy(policy: Any) -> dict[str, Any]:
    shapes = {name: list(value.shape) for name, value in policy.state_dict().items()}
    return {"class": type(policy).__name__, "parameters": shapes}


def _digest(data: Any) -> str:
    return sha256(data).hexdigest()[:16]


def differences(there: Any, here: Any, path: str) -> Iterator[str]:
    """Where two trees of plain values differ, a line each."""
    if isinstance(there, dict) and isinstance(here, dict):
        for name in sorted({*there, *here}):
            yield from differences(there.get(name), here.get(name), f"{path}.{name}")
    elif json.dumps(there) != json.dumps(here):
        yield f"{path} was {there!r}, is {here!r}"


# ── who else is told ─────────────────────────────────────────────────────────────────────────────────────


@cache
def _say_once(message: str) -> None:
    sys.stderr.write(f"rlseq: {message}\n")


def tensorboard(folder: Path, update: int) -> tuple[Sink, Callable[[], None]] | None:
    """Scalars as TensorBoard reads them, from an update on; None, said once, where it is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        _say_once(
            "no TensorBoard files: pip install 'rlseq[log]' adds them; metrics.jsonl has the same numbers"
        )
        return None
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "tensorboard"), purge_step=update + 1)

    def tell(row: Row) -> None:
        for name, value in row.items():
            if name != "update":
                writer.add_scalar(name, value, int(row["update"]))

    return tell, writer.close


def wandb(config: Mapping[str, Any], project: str | None) -> tuple[Sink, Callable[[], None]] | None:
    """Scalars for Weights & Biases, where a project is named."""
    if project is None:
        return None
    try:
        import wandb as service
    except ImportError:
        raise ValueError("wandb is not installed: pip install 'rlseq[log]', or leave it out") from None
    run = service.init(project=project, config=dict(config))
    return lambda row: run.log(row, step=int(row["update"])), run.finish
