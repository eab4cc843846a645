"""The folders of the runs of a comparison, all inside the folder of the comparison."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from rlseq.utils.files import locked

NAME_LENGTH = 200  # characters of a name
TASK = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*)/([A-Za-z0-9.-]+-v\d+)")  # an id as Gymnasium advises
TASK_FOLDER = re.compile(r".+_[A-Za-z0-9.-]+-v\d+")  # of such ids alone
ORDINARY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@+=-]{0,63}(?<!\.)")
DEVICES = {"con", "prn", "aux", "nul", *(f"{kind}{n}" for kind in ("com", "lpt") for n in range(10))}
WRITTEN = (
    *("alarms.json", "config.json", "error.txt", "memorisation.json", "run.json", "log.txt", "metrics.jsonl"),
    *("results.json", "start.json", "temperatures.json", "words.json", "samples/*.jsonl"),
    *("report.html", "tables.md"),
    *("tensorboard/events.*", "checkpoints/*.json", "checkpoints/*.safetensors", ".*.draft", "*/.*.draft"),
)


def folder_name(name: str) -> str:
    """Return the name of the folder of a task or an agent; different names have different folders.

    Ordinary names stay as they are, and `rlseq/Copy-v0` becomes `rlseq_Copy-v0`. Any other name keeps its
    harmless characters, followed by `~` and a checksum, so that it can neither be a path nor a reserved name.
    """
    task = TASK.fullmatch(name)
    plain = f"{task[1]}_{task[2]}" if task else name
    ambiguous = not task and TASK_FOLDER.fullmatch(name)
    if ORDINARY.fullmatch(plain) and not ambiguous and plain.split(".")[0].lower() not in DEVICES:
        return plain
    harmless = re.sub(r"[^A-Za-z0-9]+", "-", name)[:32].strip("-")
    return f"{harmless or 'name'}~{sha256(name.encode()).hexdigest()[:16]}"


def check_names(names: Iterable[object], kind: str) -> None:
    """Refuse names that cannot be printed, and two that a file system may not distinguish."""
    seen: dict[str, str] = {}
    for name in names:
        if not isinstance(name, str) or not 0 < len(name) <= NAME_LENGTH or not name.isprintable():
            raise ValueError(
                f"the name of {kind} must be 1 to {NAME_LENGTH} printable characters, got {name!a:.60}"
            )
        other = seen.setdefault(folder_name(name).casefold(), name)
        if other != name:
            raise ValueError(
                f"the names {other!r} and {name!r} differ in upper and lower case only, "
                "which not every file system keeps apart; rename one"
            )


def check_inside(folder: Path, runs: Iterable[Path]) -> None:
    """Refuse links in the folders of runs, and on the way to them: their targets would be written."""
    parents: set[Path] = set()
    for run in runs:
        parents |= {run, *(parent for parent in run.parents if folder in parent.parents)}
    for path in sorted(parents):
        _refuse_link(path)
    for run in runs:
        for place, folders, files in os.walk(run):
            for name in (*folders, *files):
                _refuse_link(Path(place) / name)


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise ValueError(
            f"{path} is a link; a comparison writes into its own folder only: "
            "remove the link, or write to another folder"
        )


def clear(run: Path) -> None:
    """Remove the files that a run has written, and no others, so that it can start again."""
    with locked(run / "lock"):
        for pattern in WRITTEN:
            for path in run.glob(pattern):
                path.unlink()
