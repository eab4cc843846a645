"""Comparisons that are killed, and how many threads they use: with real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rlseq.compare import process_pool
from rlseq.compare.process_pool import processes_for, threads_each
from rlseq.utils.files import locked
from tests.compare.conftest import small

WORDS = [
    *("compare", "--env", "rlseq/Copy-v0", "--option", "items=40", "length=3", "num_envs=8"),
    *("--agents", "mle", "reinforce", "sb3-a2c", "--seeds", "2", "--budget-tokens", "6000"),
    *("--policy", "gru", "hidden=8", "embedding=4", "--evaluations", "4", "--texts", "20", "--temperatures"),
]


def command(out: Path, threads: int = 1) -> list[str]:
    """A comparison, whose processes are forked with one thread each, and spawned with more."""
    program = f"import torch; torch.set_num_threads({threads}); from rlseq.cli import main; main()"
    return [sys.executable, "-c", program, *WORDS, "--jobs", "2", "--out", str(out)]


def started(out: Path, threads: int = 1) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command(out, threads), stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def seen(condition: Callable[[], Any], process: subprocess.Popen[bytes]) -> None:
    """Wait for a condition, at most a minute, while a process goes on."""
    until = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    """The processes that a process has started, and these in turn."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [each for child in map(int, found) for each in (child, *children(child))]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def scores(out: Path) -> Any:
    """All that a comparison found, but for how long it took."""
    results = json.loads((out / "results.json").read_text("utf-8"))
    assert not results["failed"]
    timed = ("seconds", "tokens_per_second")

    def timeless(tree: Any) -> Any:
        if isinstance(tree, dict):
            return {name: timeless(part) for name, part in tree.items() if name not in timed}
        return [timeless(part) for part in tree] if isinstance(tree, list) else tree

    return timeless(results["tasks"])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("undisturbed")
    process = started(out)
    said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return scores(out)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_comparison_that_is_stopped_goes_on_at_once_to_the_same_results(
    undisturbed: Any, tmp_path: Path, number: signal.Signals
) -> None:
    process = started(tmp_path)
    seen(lambda: list(tmp_path.glob("runs/*/mle/*/checkpoints/*.json")), process)
    runs = children(process.pid)
    assert runs
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    assert b"Traceback" not in said
    assert not (tmp_path / "results.json").exists()
    again = started(tmp_path)
    said = b" ".join(again.communicate(timeout=120))
    assert again.returncode == 0, said
    assert not any(map(alive, runs))
    assert scores(tmp_path) == undisturbed


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("threads", [1, 4])
def test_runs_end_with_the_process_that_started_them(tmp_path: Path, threads: int) -> None:
    process = started(tmp_path, threads)
    seen(lambda: list(tmp_path.glob("runs/*/start/*/log.txt")), process)
    runs = children(process.pid)
    assert runs
    process.kill()
    process.communicate()
    until = time.monotonic() + 10
    while any(map(alive, runs)):
        assert time.monotonic() < until, "a run outlives the comparison"
        time.sleep(0.02)
    with locked(tmp_path / "lock"):
        pass


def test_a_forked_process_does_not_hold_a_lock(tmp_path: Path) -> None:
    """A lock belongs to an open file, which a fork would share."""
    lock = locked(tmp_path / "lock")
    ready, told = os.pipe()
    until, end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(end)
        os.write(told, b".")
        os.read(until, 1)  # until the parent closes its end
        os._exit(0)
    os.read(ready, 1)
    lock.close()
    try:
        locked(tmp_path / "lock").close()  # while the child is there
    finally:
        for handle in (ready, told, until, end):
            os.close(handle)
        os.waitpid(child, 0)


def test_a_kill_during_the_sweep_of_temperatures_loses_nothing(comparison: Any, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(comparison.folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "runs/rlseq_Copy-v0/mle/1/temperatures.json").unlink()
    again = small(tmp_path)
    swept = [
        next(a["temperatures"] for a in found.results["tasks"][0]["agents"] if a["name"] == "mle")
        for found in (comparison, again)
    ]
    assert swept[0]
    assert swept[0] == swept[1]


@pytest.mark.parametrize(
    ("allowed", "cores", "processes", "each"),
    [(1, 32, 1, 1), (1, 32, 32, 1), (8, 32, 2, 4), (32, 8, 2, 4), (3, 8, 2, 1), (8, 8, 3, 2)],
)
def test_threads_are_those_that_were_allowed_divided_among_processes(
    allowed: int, cores: int, processes: int, each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: allowed)
    monkeypatch.setattr(process_pool, "processors", lambda: cores)
    assert threads_each(processes) == each


@pytest.mark.parametrize(
    ("allowed", "cores", "jobs", "processes"),
    [(1, 32, None, 1), (8, 32, None, 8), (32, 8, None, 8), (32, 32, None, 10), (1, 32, 4, 4), (8, 8, 40, 10)],
)
def test_processes_are_as_many_as_threads_are_allowed_unless_more_are_asked_for(
    allowed: int, cores: int, jobs: int | None, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: allowed)
    monkeypatch.setattr(process_pool, "processors", lambda: cores)
    assert processes_for(10, jobs) == processes
    assert jobs or processes * threads_each(processes) <= min(allowed, cores)


def test_a_comparison_uses_no_more_threads_than_it_was_given(
    comparison: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tests have one thread; a machine with many processors does not change that."""
    monkeypatch.setattr(process_pool, "processors", lambda: 64)
    assert threads_each(1) == 1
    for path in comparison.folder.glob("runs/*/*/*/config.json"):
        assert json.loads(path.read_text("utf-8"))["machine"]["threads"] == 1
