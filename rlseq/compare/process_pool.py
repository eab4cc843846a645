"""Runs in processes of their own, a number of them at a time; a failed run does not stop the others."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from rlseq.compare.folders import clear
from rlseq.training.experiment import run_of_comparison
from rlseq.training.run_config import RunConfig
from rlseq.utils.files import opened, write_sealed, write_whole
from rlseq.utils.places import without_places
from rlseq.utils.processors import processors
from rlseq.utils.stopping import Stop, stopping

LOG = "log.txt"  # in the folder of a run
POLL_SECONDS = 0.5  # seconds between two checks of the processes, if none ends
STOPPING_ALL = "stopping all runs after their current update; the same command resumes them"
PR_SET_PDEATHSIG = 1  # of Linux: the signal that a process gets when its parent ends


def processes_for(runs: int, jobs: int | None) -> int:
    """Return the number of processes at a time: as requested, or else the number of threads allowed here."""
    return min(jobs or min(torch.get_num_threads(), processors()), runs)


def threads_each(processes: int) -> int:
    """Return the threads of each process: at least one, and together no more than allowed here."""
    return max(1, min(torch.get_num_threads(), processors()) // processes)


def run_all(
    jobs: Sequence[RunConfig],
    processes: int,
    advance: Callable[[int], None] = lambda done: None,
    tell: Callable[[str, str], None] = lambda folder, line: None,
) -> tuple[dict[str, str], float]:
    """Train all runs that are not finished, a common start before the runs that begin from it.

    Ctrl-C and SIGTERM stop all runs after their current update. No process outlives this call.

    Args:
        jobs: the runs.
        processes: how many at a time.
        advance: is called now and then with the number of runs that are done.
        tell: is called with the folder of a run and each line that the run writes to its log.

    Returns:
        The error of each run that failed, by folder; and the seconds of all processes together.
    """
    running: dict[str, BaseProcess] = {}
    with stopping(STOPPING_ALL) as stop:
        try:
            found = _work(jobs, processes, advance, tell, running, stop)
        finally:
            for process in running.values():
                process.kill()
                process.join()
    if stop.asked:
        raise stop.ending()
    return found


def _work(
    jobs: Sequence[RunConfig],
    processes: int,
    advance: Callable[[int], None],
    tell: Callable[[str, str], None],
    running: dict[str, BaseProcess],
    stop: Stop,
) -> tuple[dict[str, str], float]:
    """Start processes and wait for them until all runs are done; `running` has them by folder."""
    waiting = sorted((job for job in jobs if not job.done), key=lambda job: job.start is not None)
    failed: dict[str, str] = {}
    logs: dict[str, int] = {}  # how far the log of each run has been told
    seconds, before, passed_on = 0.0, time.perf_counter(), False
    while running or (waiting and not stop.asked):
        ended = [folder for folder, process in running.items() if process.exitcode is not None]
        for folder in running:
            lines, logs[folder] = new_lines(Path(folder) / LOG, logs[folder])
            for line in lines:
                tell(folder, line)
        for folder in ended:
            process = running.pop(folder)
            if process.exitcode and stop.asked:
                tell(folder, "stopped; the same command continues it")
            elif process.exitcode:
                failed[folder] = why_ended(Path(folder), process.exitcode)
                tell(folder, f"failed: {failed[folder].strip().splitlines()[-1]}")
        unfinished = {job.folder for job in waiting} | set(running)
        for job in [] if stop.asked else list(waiting):
            if job.start in failed:
                failed[job.folder] = f"the run it starts from failed: {job.start}"
                waiting.remove(job)
            elif len(running) < processes and job.start not in unfinished:
                waiting.remove(job)
                logs[job.folder] = size_of(Path(job.folder) / LOG)
                running[job.folder] = started_process(job, threads_each(processes))
        advance(len(jobs) - len(unfinished))
        if stop.asked and not passed_on:
            passed_on = True
            for process in running.values():
                os.kill(process.pid or 0, signal.SIGINT)
        wait([process.sentinel for process in running.values()], POLL_SECONDS)
        seconds, before = seconds + len(running) * (time.perf_counter() - before), time.perf_counter()
    return failed, seconds


def new_lines(path: Path, begin: int) -> tuple[list[str], int]:
    """Return the complete lines of a file from a position on, and the position after them."""
    if size_of(path) <= begin:
        return [], begin
    with path.open("rb") as file:
        file.seek(begin)
        data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    return whole.decode(errors="replace").splitlines(), begin + len(whole)


def size_of(path: Path) -> int:
    """Return the size of a file, 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def started_process(job: RunConfig, threads: int) -> BaseProcess:
    """Start a process for a run.

    A process with one thread is forked: it needs no imports, and tasks that were registered in a notebook are
    known to it. Threads of OpenMP and CUDA do not survive a fork, so with them a new process is spawned.
    """
    forked = threads == 1 and sys.platform == "linux" and not torch.cuda.is_available()
    context: Any = multiprocessing.get_context("fork" if forked else "spawn")
    process: BaseProcess = context.Process(target=_child, args=(job, threads), name=job.folder)
    if not forked:
        resource_tracker.ensure_running()  # which would let signals through again
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until the child has a log to write to
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: ours hold no lock
            process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    return process


def _child(job: RunConfig, threads: int) -> None:
    """Train a run in this process; its output goes to `log.txt`, an error that ends it to `error.txt`."""
    _end_with_parent()
    os.setpgid(0, 0)  # Ctrl-C comes once, from the parent
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    folder = Path(job.folder)
    (folder / "error.txt").unlink(missing_ok=True)
    if job.stock:  # stock agents do not say where they were, so they begin again
        clear(folder)
        write_sealed(folder / "run.json", job.plain())
    handle = opened(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with os.fdopen(handle, "a", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        sys.stdout = sys.stderr = log
        torch.set_num_threads(threads)
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            run_of_comparison(job)
        except BaseException:
            with suppress(OSError):  # the disk may be full
                write_whole(
                    folder / "error.txt", without_places(traceback.format_exc()).encode(errors="replace")
                )
            raise SystemExit(1) from None


def _end_with_parent() -> None:
    """End this process when its parent ends, even by SIGKILL, because it holds the lock of its run."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != parent.pid:  # it ended before this was arranged
            os._exit(1)
    else:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(process: BaseProcess) -> None:
    """End this process as soon as another one ends."""
    process.join()
    os._exit(1)


def why_ended(folder: Path, code: int) -> str:
    """Return the traceback, or the signal, that ended a process."""
    path = folder / "error.txt"
    if code > 0 and path.exists():
        return path.read_text("utf-8")
    return f"the process was ended by signal {-code}" if code < 0 else f"the process ended with status {code}"
