"""Where runs are written: a folder each, with everything needed to resume, compare and reproduce it.

The files and their fields are described in docs/runs.md.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import platform
import sys
import time
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

from rlseq import checkpoint
from rlseq.metrics.combine import name_of
from rlseq.places import command_line
from rlseq.storage import (
    Damaged,
    Journal,
    Tree,
    locked,
    make_folder,
    read_json,
    read_marked,
    read_sealed,
    remove_drafts,
    sign,
    unsealed,
    write_sealed,
    write_whole,
)
from rlseq.types import OwnLoop

Row = dict[str, float]
Sink = Callable[[Row], None]
SCHEMA = "rlseq.run/3"
COMPARED = ("agent", "env", "policy", "job")  # what must be the same for a run to go on
FREE = ("budget_tokens", "evaluations", "texts", "metrics")  # of a job: what may differ when it goes on


class RunFolder:
    """The folder of one run, held by one process at a time.

    `check` and `hold` change no file; `begin` is called when nothing speaks against the run any more.

    Args:
        path: is made where it does not exist.
        job: what the run was asked for, as plain values, kept in `job.json`.
        command: its settings as they were given, kept in `command.yaml`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        job: Mapping[str, Any] | None = None,
        command: bytes | None = None,
    ) -> None:
        self.path = Path(path)
        self.job, self.command = job, command
        self.checkpoints = self.path / "checkpoints"
        self.metrics = Journal(self.path / "metrics.jsonl")
        self._lock: TextIOWrapper | None = None

    @property
    def started(self) -> bool:
        """Whether there is a run in it already, also one whose `config.json` is lost."""
        return (self.path / "config.json").exists() or bool(checkpoint.steps(self.checkpoints))

    def configured(self, config: Mapping[str, Any]) -> Tree:
        """A configuration with what the job adds to it."""
        return {**config, "job": None if self.job is None else fixed(self.job)}

    def check(self, config: Mapping[str, Any], resume: bool) -> None:
        """Refuse a folder that holds a run which must not, or cannot, go on with this configuration."""
        if not self.started:
            return
        if not resume:
            raise ValueError(
                f"{self.path} already holds a run; resume=True goes on with it, or write to another folder"
            )
        check_same(self.path, config)

    def hold(self) -> None:
        """Keep other processes out."""
        make_folder(self.path)
        self._lock = locked(self.path / "lock")

    def begin(self, config: Mapping[str, Any]) -> None:
        """Write what the run is, and cut off the metrics that will be written again."""
        assert self._lock is not None
        sign(self._lock)
        remove_drafts(self.path)
        remove_drafts(self.path / "samples")
        if not self.started:
            write_sealed(self.path / "config.json", config)
        if self.job is not None:
            write_sealed(self.path / "job.json", self.job)
        if self.command is not None:
            write_whole(self.path / "command.yaml", self.command)
        self.metrics.open()

    def close(self) -> None:
        """Let others in."""
        self.metrics.close()
        if self._lock is not None:
            self._lock.close()

    def rows(self, mark: Mapping[str, Any] | None) -> list[Row]:
        """The lines of `metrics.jsonl` up to a checkpoint's mark, checked."""
        return [json.loads(line) for line in self.metrics.read(mark).splitlines()]

    def append(self, rows: Sequence[Row]) -> None:
        """Add lines to `metrics.jsonl`."""
        self.metrics.append(map(json.dumps, rows))

    def samples(self, update: int, texts: Sequence[Mapping[str, Any]]) -> Tree:
        """Write the texts of an evaluation, one a line, to `samples/UPDATE.jsonl`; returns their mark."""
        folder = self.path / "samples"
        make_folder(folder)
        data = "".join(json.dumps(text, ensure_ascii=False) + "\n" for text in texts).encode()
        write_whole(folder / f"{update:08d}.jsonl", data)
        return {"update": update, "bytes": len(data), "sha256": sha256(data).hexdigest()}

    def alarms(self, said: Sequence[str]) -> None:
        """Write `alarms.json`."""
        write_sealed(self.path / "alarms.json", {"schema": SCHEMA, "alarms": list(said)})

    def results(self, results: Mapping[str, Any]) -> None:
        """Write `results.json`."""
        write_sealed(self.path / "results.json", {"schema": SCHEMA, **results})


def fixed(job: Mapping[str, Any]) -> Tree:
    """The part of a job that must be the same for its run to go on, or to be used."""
    return {name: value for name, value in job.items() if name not in FREE}


def check_same(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse a folder whose run is of another configuration."""
    there = configuration(folder)
    parts = [part for part in COMPARED if config.get(part) is not None]  # a call from Python has no job
    differ = [line for part in parts for line in differences(there.get(part), config[part], part)]
    if differ:
        raise ValueError(
            f"{folder} holds a run of another configuration:\n  "
            + "\n  ".join(differ)
            + "\nchange it back, or write to another folder"
        )


def configuration(folder: Path) -> Tree:
    """The configuration of a run; one that another version of rlseq has written is refused."""
    path = folder / "config.json"
    sealed = read_json(path)
    check_schema(sealed, folder)
    return unsealed(sealed, path)


def read_job(folder: Path) -> Tree:
    """The job of a run, which must be the one that the run was begun with."""
    path = folder / "job.json"
    job = read_sealed(path)
    differ = "".join(f"\n  {line}" for line in differences(configuration(folder)["job"], fixed(job), "job"))
    if differ:
        raise Damaged(
            f"{path} is not what the run was begun with:{differ}\nput back a copy of it, or use another run"
        )
    return job


def read_results(folder: Path) -> Tree:
    """The results of a run."""
    return read_sealed(folder / "results.json")


def read_state(folder: Path, best: bool = False) -> Any:
    """The state in the checkpoint that a run's results name, or in its best one.

    An older one is never taken in its place: its scores would be those of another policy.
    """
    checkpoints = folder / "checkpoints"
    found: Tree = read_results(folder) if best or (folder / "results.json").exists() else {"checkpoint": None}
    if best and found["best"] is None:
        raise ValueError(
            f"{folder} has no best checkpoint, because it was never evaluated; take its last one"
        )
    step = found["best"]["update"] if best else found["checkpoint"]
    if step is None:  # stopped before its results were written
        step = max(checkpoint.steps(checkpoints), default=None)
    if step is None:
        raise ValueError(f"{folder} has no checkpoint")
    return checkpoint.read(checkpoints, step)


def read_metrics(folder: Path, results: Mapping[str, Any]) -> list[Row]:
    """The lines of a run's metrics that its results stand on."""
    lines = read_marked(folder / "metrics.jsonl", results["metrics"]).splitlines()
    return [json.loads(line) for line in lines]


def read_samples(folder: Path, results: Mapping[str, Any]) -> list[Tree]:
    """The texts of a run's last evaluation."""
    mark = results["samples"]
    if mark is None:
        return []
    data = read_marked(folder / "samples" / f"{mark['update']:08d}.jsonl", mark)
    return [json.loads(line) for line in data.decode().split("\n")[:-1]]


def check_schema(config: Mapping[str, Any], folder: Path) -> None:
    """Refuse a run whose configuration another version has written: its files have other fields."""
    there = config.get("schema")
    if there != SCHEMA:
        raise ValueError(
            f"{folder} was made by another version of rlseq (schema {there!r} in config.json, "
            f"here {SCHEMA!r}); use that version, or another folder"
        )


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
        "command": command_line(sys.argv),
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
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.summary.writer.record_writer import RecordWriter

    place = folder / "tensorboard"
    place.mkdir(exist_ok=True)
    # Not torch's SummaryWriter, which puts the name of the machine into the name of the file.
    paths = (place / f"events.out.tfevents.{number:06d}.rlseq" for number in itertools.count())
    writer = RecordWriter(next(path for path in paths if not path.exists()).open("xb"))

    def write(**event: Any) -> None:
        writer.write(event_pb2.Event(wall_time=time.time(), **event).SerializeToString())

    def tell(row: Row) -> None:
        values = [
            summary_pb2.Summary.Value(tag=name, simple_value=value)
            for name, value in row.items()
            if name != "update"
        ]
        write(step=int(row["update"]), summary=summary_pb2.Summary(value=values))
        writer.flush()

    write(step=update + 1, file_version="brain.Event:2")
    # What an earlier file says of later steps is dropped by its readers.
    write(step=update + 1, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))
    return tell, writer.close


def wandb_service(project: str | None) -> Any:
    """The module of Weights & Biases, where a project is named."""
    if project is None:
        return None
    try:
        return importlib.import_module("wandb")
    except ImportError:
        raise ValueError("wandb is not installed: pip install 'rlseq[log]', or leave it out") from None


def wandb(
    service: Any, config: Mapping[str, Any], project: str | None
) -> tuple[Sink, Callable[[], None]] | None:
    """Scalars for Weights & Biases, where there is a service."""
    if service is None:
        return None
    run = service.init(project=project, config=dict(config))
    return lambda row: run.log(row, step=int(row["update"])), run.finish
