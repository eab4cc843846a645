"""The folder of a run, with everything needed to resume, compare and reproduce it.

The files and their fields are described in docs/guides/runs.md.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from rlseq.training import checkpoint
from rlseq.training.fingerprint import (
    RUN_SCHEMA,
    check_same,
    configuration,
    differences,
    digest_of_words,
    fixed,
)
from rlseq.utils.files import (
    Damaged,
    Journal,
    Json,
    locked,
    make_folder,
    read_marked,
    read_sealed,
    remove_drafts,
    sign,
    write_sealed,
    write_whole,
)

Row = dict[str, float]
Sink = Callable[[Row], None]


MODEL = "model.json"  # the description in the folder of a saved model


class RunFolder:
    """The folder of one run, held by one process at a time.

    `check` and `hold` change no file; `begin` is called after all checks have passed.

    Args:
        path: the folder, which is created if it does not exist.
        run: the configuration of the run as plain values, kept in `run.json` (`rlseq.training.run_config`).
        command: its settings as they were given, kept in `command.yaml`.
        first: the scores of the policy before training, kept in `start.json`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        run: Mapping[str, Any] | None = None,
        command: bytes | None = None,
        first: Mapping[str, float] | None = None,
    ) -> None:
        self.path = Path(path)
        self.run, self.command, self.first = run, command, first
        self.checkpoints = self.path / "checkpoints"
        self.metrics = Journal(self.path / "metrics.jsonl")
        self._lock: TextIOWrapper | None = None

    @property
    def started(self) -> bool:
        """Whether the folder already holds a run, even one whose `config.json` is lost."""
        return (self.path / "config.json").exists() or bool(checkpoint.steps(self.checkpoints))

    def configured(self, config: Mapping[str, Any]) -> Json:
        """Return a configuration with the settings of `run.json` that must stay the same."""
        return {**config, "run": None if self.run is None else fixed(self.run)}

    def check(self, config: Mapping[str, Any], resume: bool) -> None:
        """Refuse a folder that holds a model, or a run that must not or cannot be resumed as configured."""
        if (self.path / MODEL).exists():
            raise ValueError(f"{self.path} holds a saved model; write the run to another folder")
        if not self.started:
            return
        if not resume:
            raise ValueError(
                f"{self.path} already holds a run; resume=True resumes it, or write to another folder"
            )
        check_same(self.path, config)

    def hold(self) -> None:
        """Lock the folder against other processes."""
        make_folder(self.path)
        self._lock = locked(self.path / "lock")

    def begin(self, config: Mapping[str, Any], run: Mapping[str, Any], words: Mapping[str, Any]) -> None:
        """Write the description of the run, and truncate the metrics that will be written again.

        Args:
            config: the configuration, by which a later call recognises the run.
            run: the configuration as plain values, if the folder was not given one.
            words: the vocabularies and sizes of the task, in full.
        """
        assert self._lock is not None
        sign(self._lock)
        remove_drafts(self.path)
        remove_drafts(self.path / "samples")
        if not self.started:
            write_sealed(self.path / "words.json", words)
            if self.first is not None:
                write_sealed(self.path / "start.json", self.first)
            write_sealed(self.path / "config.json", config)
        write_sealed(self.path / "run.json", self.run if self.run is not None else run)
        if self.command is not None:
            write_whole(self.path / "command.yaml", self.command)
        self.metrics.open()

    def close(self) -> None:
        """Close the files and release the lock."""
        self.metrics.close()
        if self._lock is not None:
            self._lock.close()

    def rows(self, mark: Mapping[str, Any] | None) -> list[Row]:
        """Return the lines of `metrics.jsonl` up to the mark of a checkpoint, after checking them."""
        return [json.loads(line) for line in self.metrics.read(mark).splitlines()]

    def append(self, rows: Sequence[Row]) -> None:
        """Add lines to `metrics.jsonl`."""
        self.metrics.append(map(json.dumps, rows))

    def samples(self, update: int, texts: Sequence[Mapping[str, Any]]) -> Json:
        """Write the texts of an evaluation, one a line, to `samples/UPDATE.jsonl`; return their mark."""
        folder = self.path / "samples"
        make_folder(folder)
        data = "".join(json.dumps(text, ensure_ascii=False) + "\n" for text in texts).encode()
        write_whole(folder / f"{update:08d}.jsonl", data)
        return {"update": update, "bytes": len(data), "sha256": sha256(data).hexdigest()}

    def alarms(self, said: Sequence[str]) -> None:
        """Write `alarms.json`."""
        write_sealed(self.path / "alarms.json", {"schema": RUN_SCHEMA, "alarms": list(said)})

    def results(self, results: Mapping[str, Any]) -> None:
        """Write `results.json`."""
        write_sealed(self.path / "results.json", {"schema": RUN_SCHEMA, **results})


def read_run(folder: Path) -> Json:
    """Return the configuration of a run as plain values; refuse one that was changed since the run began."""
    path = folder / "run.json"
    run = read_sealed(path)
    begun = configuration(folder)["run"]
    differ = "".join(f"\n  {line}" for line in differences(begun or fixed(run), fixed(run), "run"))
    if differ:
        raise Damaged(
            f"{path} is not the configuration with which the run began:{differ}\n"
            "restore a copy of it, or use another run"
        )
    return run


def read_words(folder: Path) -> Json:
    """Return the vocabularies of a run; refuse others than those that its configuration names."""
    path = folder / "words.json"
    words = read_sealed(path)
    for name in ("vocab", "source_vocab"):
        known, found = configuration(folder)["env"].get(name), words.get(name)
        listed = found and found.get(
            "words", words["vocab"]["words"]
        )  # of one tokenizer they stand there once
        if known is not None and (listed is None or digest_of_words(listed) != known["sha256"]):
            raise Damaged(f"{path} holds another {name} than the run began with; restore a copy of it")
    return words


def read_results(folder: Path) -> Json:
    """Return the results of a run."""
    return read_sealed(folder / "results.json")


def read_state(folder: Path, best: bool = False) -> Any:
    """Return the state in the checkpoint that the results of a run name, or in its best one.

    An older checkpoint is never used in its place, because the scores would be those of another policy.
    """
    checkpoints = folder / "checkpoints"
    found: Json = read_results(folder) if best or (folder / "results.json").exists() else {"checkpoint": None}
    if best and found["best"] is None:
        raise ValueError(f"{folder} has no best checkpoint, because it was never evaluated; use its last one")
    step = found["best"]["update"] if best else found["checkpoint"]
    if step is None:  # stopped before its results were written
        step = max(checkpoint.steps(checkpoints), default=None)
    if step is None:
        raise ValueError(f"{folder} has no checkpoint")
    return checkpoint.read(checkpoints, step)


def read_metrics(folder: Path, results: Mapping[str, Any]) -> list[Row]:
    """Return the metrics of a run on which its results are based."""
    lines = read_marked(folder / "metrics.jsonl", results["metrics"]).splitlines()
    return [json.loads(line) for line in lines]


def read_samples(folder: Path, results: Mapping[str, Any]) -> list[Json]:
    """Return the texts of the last evaluation of a run."""
    mark = results["samples"]
    if mark is None:
        return []
    data = read_marked(folder / "samples" / f"{mark['update']:08d}.jsonl", mark)
    return [json.loads(line) for line in data.decode().split("\n")[:-1]]
