"""Comparisons that are killed, and how many threads they use: with real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rlseq.compare import process_pool
from rlseq.compare.process_pool import processes_for, threads_each
from rlseq.utils.files import locked
from tests.forked import Forked, Program

WORDS = [
    *("compare", "--env", "rlseq/Copy-v0", "--option", "items=40", "length=3", "num_envs=8"),
    *("--agents", "mle", "reinforce", "sb3-a2c", "--seeds", "2", "--budget-tokens", "2000"),
    *("--policy", "gru", "hidden=8", "embedding=4", "--evaluations", "4", "--texts", "20", "--temperatures"),
]


@pytest.fixture(scope="module")
def forked() -> Iterator[Forked]:
    process = Forked("torch", "torch._dynamo", "scipy.stats", "matplotlib.pyplot", "stable_baselines3")
    yield process
    process.close()


def started(forked: Forked, out: Path, threads: int = 1) -> Program:
    """Start a comparison, whose processes are forked with one thread each, and spawned with more."""
    words = [*WORDS, "--jobs", "2", "--out", str(out)]
    code = f"import torch; torch.set_num_threads({threads}); from rlseq.cli import main; main({words})"
    return forked.start(code, out)


def seen(condition: Callable[[], Any], process: Program) -> None:
    """Wait for a condition, at most a minute, while a process goes on."""
    until = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.wait()
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
def undisturbed(forked: Forked, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a comparison that is not stopped."""
    out = tmp_path_factory.mktemp("undisturbed")
    ended = started(forked, out).wait()
    assert ended.returncode == 0, ended
    return out


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_comparison_that_is_stopped_goes_on_at_once_to_the_same_results(
    undisturbed: Path, forked: Forked, tmp_path: Path, number: signal.Signals
) -> None:
    process = started(forked, tmp_path)
    seen(lambda: list(tmp_path.glob("runs/*/mle/*/checkpoints/*.json")), process)
    runs = children(process.pid)
    assert runs
    process.send_signal(number)
    ended = process.wait()
    assert ended.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "results.json").exists()
    again = started(forked, tmp_path).wait()
    assert again.returncode == 0, again
    assert not any(map(alive, runs))
    assert scores(tmp_path) == scores(undisturbed)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("threads", [1, 4])
def test_runs_end_with_the_process_that_started_them(forked: Forked, tmp_path: Path, threads: int) -> None:
    process = started(forked, tmp_path, threads)
    seen(lambda: list(tmp_path.glob("runs/*/start/*/log.txt")), process)
    runs = children(process.pid)
    assert runs
    process.send_signal(signal.SIGKILL)
    process.wait()
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


def test_a_kill_during_the_sweep_of_temperatures_loses_nothing(
    undisturbed: Path, forked: Forked, tmp_path: Path
) -> None:
    shutil.copytree(undisturbed, tmp_path, dirs_exist_ok=True)
    (tmp_path / "runs/rlseq_Copy-v0/mle/1/temperatures.json").unlink()
    (tmp_path / "results.json").unlink()
    again = started(forked, tmp_path).wait()
    assert again.returncode == 0, again
    (task,) = scores(tmp_path)
    assert all(agent["temperatures"] for agent in task["agents"] if agent["name"] == "mle")
    assert scores(tmp_path) == scores(undisturbed)


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
    undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was given one thread; a machine with many processors does not change that."""
    monkeypatch.setattr(process_pool, "processors", lambda: 64)
    assert threads_each(1) == 1
    for path in undisturbed.glob("runs/*/*/*/config.json"):
        assert json.loads(path.read_text("utf-8"))["machine"]["threads"] == 1
