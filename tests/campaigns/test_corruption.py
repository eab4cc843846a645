"""Damaged files of runs and comparisons: what reads them is exact, or names the file in a line.

Every file × every damage × every command: the outcome is the one of the undamaged folder, or status 2 and one
line that names the file. A traceback, or another number, fails.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from rlseq.cli import main

OTHER = save({"a": torch.ones(1)})  # tensors, but not those of a checkpoint
Damage = Callable[[bytes, random.Random], bytes | None]
DAMAGES: dict[str, Damage] = {
    "cut": lambda data, dice: data[: dice.randrange(len(data))] if data else b"",
    "flip": lambda data, dice: flipped(data, dice) if data else b"\0",
    "empty": lambda data, dice: b"",
    "of another type": lambda data, dice: json.dumps(dice.choice([[], 3, None, "text", [[1]]])).encode(),
    "of another shape": lambda data, dice: dice.choice([b"{}", b'{"checkpoint": 7}', OTHER]),
    "removed": lambda data, dice: None,
}  # fmt: skip
TASK = ("--env", "rlseq/Copy-v0", "--option", "length=3", "items=20", "num_envs=8")
POLICY = ("--policy", "gru", "hidden=8", "embedding=4")
TRAIN = ("train", "reinforce", *TASK, *POLICY, "--lr", "1e-2", "--evaluations", "3", "--texts", "10")
BUDGET = "300"
COMPARE = (
    *("compare", *TASK, *POLICY, "--agents", "mle", "reinforce", "--seeds", "2", "--budget-tokens", "200"),
    *("--evaluations", "2", "--texts", "10", "--jobs", "2", "--temperatures"),
)


def flipped(data: bytes, dice: random.Random) -> bytes:
    """Bytes of which one has another bit."""
    at = dice.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :]


def said(words: Sequence[str]) -> tuple[int, str, str]:
    """Run a command here: its status, and both outputs."""
    out, err = io.StringIO(), io.StringIO()
    status = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a damaged checkpoint gives way to the one before it
        try:
            main(words)
        except SystemExit as end:
            status = int(end.code or 0)
    return status, out.getvalue(), err.getvalue()


# ── what is done with a folder ───────────────────────────────────────────────────────────────────────────


def resume(folder: Path) -> tuple[int, str, str, Any]:
    """The same command again; also returns what the run has come to."""
    status, out, err = said([*TRAIN, "--budget-tokens", BUDGET, "--out", str(folder)])
    return status, out, err, None if status else come_to(folder)


def come_to(folder: Path) -> Any:
    """Results and weights of a run that ended."""
    results = json.loads((folder / "results.json").read_text("utf-8"))
    weights = (folder / "checkpoints" / f"{results['checkpoint']:08d}.safetensors").read_bytes()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    for part in (results, *rows):
        del part["seconds"]
    return {name: results[name] for name in ("status", "final", "curve", "best", "tokens")}, weights, rows


def start(folder: Path) -> tuple[int, str, str, Any]:
    """Begin another run from the weights of this one."""
    other = folder.with_name(f"{folder.name}-started")
    words = [*TRAIN, "--budget-tokens", "60", "--start", str(folder), "--out", str(other)]
    status, out, err = said(words)
    return status, out, err, None if status else come_to(other)


def typing(*words: str) -> Callable[[Path], tuple[int, str, str, Any]]:
    """A command on the folder that only prints."""

    def call(folder: Path) -> tuple[int, str, str, Any]:
        return *said([words[0], str(folder), *words[1:]]), None

    return call


def report(folder: Path) -> tuple[int, str, str, Any]:
    """Write the page of a comparison again; also returns its tables."""
    status, out, err = said(["report", str(folder)])
    return status, out, err, None if status else (folder / "tables.md").read_text("utf-8")


def compare_again(folder: Path) -> tuple[int, str, str, Any]:
    """Make the same comparison again, of which all runs are there."""
    status, _, err = said([*COMPARE, "--out", str(folder)])
    if status:
        return status, "", err, None
    (task,) = json.loads((folder / "results.json").read_text("utf-8"))["tasks"]
    return 0, "", "", (task["pairs"], [(agent["scores"], agent["alarms"]) for agent in task["agents"]])


ACTIONS = {
    "resume": resume,
    "evaluate": typing("evaluate"),
    "best": typing("evaluate", "--best"),
    "generate": typing("generate", "a b c", "c a b"),
    "start": start,
}
OF_COMPARISONS = {"report": report, "compare": compare_again}


# ── the campaign ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("corruption") / "run"
    assert said([*TRAIN, "--budget-tokens", BUDGET, "--out", str(folder)])[0] == 0
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    return folder


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished comparison."""
    folder = tmp_path_factory.mktemp("corruption") / "comparison"
    assert said([*COMPARE, "--out", str(folder)])[0] == 0
    for path in folder.rglob("tensorboard"):
        shutil.rmtree(path)
    return folder


def trials(folder: Path, actions: Any, some: int | None, seed: int) -> Iterator[tuple[str, str, str]]:
    """All files × damages × actions; or each file and each damage at least once, with any of the actions."""
    files = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]
    every = list(product(files, DAMAGES, actions))
    dice = random.Random(seed)
    dice.shuffle(every)
    return iter(every if some is None else every[:some])


def made(original: Path, action: Any, place: Path, damage: Callable[[Path], None]) -> Any:
    """What an action on a damaged copy comes to, with the name of the folder taken out."""
    shutil.copytree(original, place)
    damage(place)
    status, out, err, more = action(place)
    for folder in (place, place.with_name(f"{place.name}-started")):
        shutil.rmtree(folder, ignore_errors=True)
    return status, out.replace(str(place), "FOLDER"), err.replace(str(place), "FOLDER"), more


def campaign_of(original: Path, actions: Any, some: int | None, seed: int, place: Path) -> dict[str, int]:
    """Make the trials; every one must be exact, or refused by name."""
    wanted = {name: made(original, act, place / "copy", lambda folder: None) for name, act in actions.items()}
    assert all(found[0] == 0 for found in wanted.values()), wanted
    counts = {"trials": 0, "exact": 0, "named": 0}
    for number, (file, damage, name) in enumerate(trials(original, actions, some, seed)):
        dice = random.Random(seed + number)

        def broken(folder: Path, file: str = file, damage: str = damage, dice: Any = dice) -> None:
            path = folder / file
            data = DAMAGES[damage](path.read_bytes(), dice)
            if data is None:
                path.unlink()
            else:
                path.write_bytes(data)

        status, out, err, more = made(original, actions[name], place / "copy", broken)
        counts["trials"] += 1
        exact = status == 0 and (out, more) == (wanted[name][1], wanted[name][3])
        lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
        named = status == 2 and len(lines) == 1 and file.rsplit("/", 1)[-1] in lines[0]
        assert exact or named, f"{name} with {file} {damage}: status {status}\n{err}\n{out}"
        counts["exact" if exact else "named"] += 1
    return counts


def test_a_damaged_run_is_exact_or_named(campaign: Any, run: Path, tmp_path: Path) -> None:
    some = None if campaign.whole else 45
    counts = campaign_of(run, ACTIONS, some, campaign.seed, tmp_path)
    assert counts["named"]
    campaign.record("corruption_of_runs", counts)


def test_a_damaged_comparison_is_exact_or_named(campaign: Any, comparison: Path, tmp_path: Path) -> None:
    counts = campaign_of(comparison, OF_COMPARISONS, campaign.trials(6, 300), campaign.seed, tmp_path)
    campaign.record("corruption_of_comparisons", counts)
