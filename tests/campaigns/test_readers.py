"""Fuzz of all readers: hostile files end in a corpus, or in one readable refusal that names the file."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections import Counter
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

CHILD = Path(__file__).with_name("hostile_files.py")
HANG = 30.0  # seconds without an outcome; that an input takes too long, the child says itself
START = 60.0  # seconds that a process may take until its first input
GOOD = ("read", "refused")

spec = spec_from_file_location("hostile_files", CHILD)
assert spec is not None
assert spec.loader is not None
hostile_files: Any = module_from_spec(spec)
spec.loader.exec_module(hostile_files)

Result = tuple[int, str, str, str]  # number, format, outcome, message


def read_all(seed: int, count: int, folder: Path) -> list[Result]:
    """The outcome of every input; where a process dies or hangs, another goes on after that input."""
    results: list[Result] = []
    while len(results) < count:
        done, reason = _one_process(seed, len(results), count, folder / str(len(results)))
        results += done
        if len(results) < count:
            results.append((len(results), "unknown", reason, ""))
    return results


def _one_process(seed: int, first: int, last: int, folder: Path) -> tuple[list[Result], str]:
    """The outcomes until a process ends, and the reason why it ended."""
    command = [sys.executable, str(CHILD), *map(str, (seed, first, last)), str(folder)]
    results: list[Result] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as child:
        assert child.stdout is not None
        lines: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=_pass_on, args=(child.stdout, lines), daemon=True).start()
        while True:
            try:
                line = lines.get(timeout=HANG if results else START)
            except queue.Empty:
                child.kill()
                return results, "hang"
            if not line:
                return results, f"ended with status {child.wait()}"
            results.append(tuple(json.loads(line)))


def _pass_on(stream: Any, lines: queue.Queue[bytes]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(b"")


def test_every_hostile_file_is_read_or_refused_by_name(campaign: Any, tmp_path: Path) -> None:
    count = campaign.trials(390, 10_400)
    results = read_all(campaign.seed, count, tmp_path)
    by_format: dict[str, Counter[str]] = {}
    for _, name, outcome, _ in results:
        by_format.setdefault(name, Counter())[outcome] += 1
    campaign.record(
        "readers", {"inputs": count, "outcomes": {name: dict(counts) for name, counts in by_format.items()}}
    )
    assert [result for result in results if result[2] not in GOOD] == []
    for name, counts in by_format.items():
        assert "hostile" in name or counts["read"], (
            f"no {name} was read: the inputs are not near to files that are right"
        )
        assert name == "cache" or counts["refused"], f"no {name} was refused: the inputs are not hostile"


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ZeroDivisionError("x.tsv"), "ZeroDivisionError"),
        (ValueError("something is wrong"), "no file named"),
        (ValueError("x.tsv: \x1b[31m"), "unreadable message"),
        (ValueError("x.tsv: " + "long " * 1000), "unreadable message"),
        (ValueError("x.tsv:1: expected a tab"), "refused"),
    ],
)
def test_the_campaign_notices_wrong_refusals(
    error: Exception, outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(place: Path, draw: Any) -> None:
        raise error

    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("RLSEQ_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hostile_files, "FORMATS", {"tsv": (hostile_files.tsv, read)})
    assert hostile_files.outcome(0, 0, tmp_path)[1] == outcome
    (tmp_path / "cache" / "tmp123").mkdir()
    assert hostile_files.outcome(0, 0, tmp_path)[1] == "half-written"


def test_the_campaign_notices_processes_that_hang_or_die(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child.py"
    child.write_text(
        "import sys, time\n"
        'print(f\'[{sys.argv[2]}, "tsv", "read", ""]\', flush=True)\n'
        "sys.exit(3) if sys.argv[2] == '0' else time.sleep(60)\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "CHILD", child)
    monkeypatch.setattr(sys.modules[__name__], "HANG", 0.5)
    outcomes = [outcome for _, _, outcome, _ in read_all(0, 4, tmp_path)]
    assert outcomes == ["read", "ended with status 3", "read", "hang"]
