"""A queue of runs as processes: one that fails is reported, and the rest goes on."""

from __future__ import annotations

import math
import multiprocessing
import os
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from rlseq.compare.jobs import SPENT, Job, run
from rlseq.storage import write_sealed

LOOK_EVERY = 0.5  # seconds between two looks at the processes, if none ends


def work_through(
    jobs: Sequence[Job], processes: int, told: Callable[[Sequence[Job]], None] = lambda done: None
) -> dict[str, str]:
    """Make all runs that are not finished, a start before what starts from it.

    Args:
        jobs: the runs.
        processes: how many at a time.
        told: hears now and then which are done.

    Returns:
        What went wrong, by folder.
    """
    waiting = [job for job in jobs if not job.done]
    failed: dict[str, str] = {}
    running: dict[str, BaseProcess] = {}
    stopping = False
    while running or (waiting and not stopping):
        try:
            for folder in [folder for folder, process in running.items() if process.exitcode is not None]:
                process = running.pop(folder)
                if process.exitcode:
                    failed[folder] = _reason(Path(folder), process.exitcode)
            unfinished = {job.folder for job in waiting} | set(running)
            for job in [] if stopping else longest_first(waiting, jobs):
                if job.start in failed:
                    failed[job.folder] = f"the run it starts from failed: {job.start}"
                    waiting.remove(job)
                elif len(running) < processes and job.start not in unfinished:
                    waiting.remove(job)
                    running[job.folder] = _started(job, processes)
            told([job for job in jobs if job.folder not in unfinished])
            wait([process.sentinel for process in running.values()], LOOK_EVERY)
        except KeyboardInterrupt:
            if stopping:
                raise
            stopping = True
            sys.stderr.write("rlseq: stopping all runs after their current update; run again to go on\n")
            for process in running.values():
                os.kill(process.pid or 0, signal.SIGINT)
    if stopping:
        raise KeyboardInterrupt
    return failed


def longest_first(waiting: Sequence[Job], jobs: Sequence[Job]) -> list[Job]:
    """Starts, for which others wait; then what took longest with other seeds: short runs fill up the end."""
    seen: dict[tuple[str, str], float] = {}
    for job in jobs:
        seen[job.env, job.agent] = max(seen.get((job.env, job.agent), 0.0), job.seconds)
    return sorted(waiting, key=lambda job: (job.start is not None, -(seen[job.env, job.agent] or math.inf)))


def _started(job: Job, processes: int) -> BaseProcess:
    """A process for a run.

    Forked where it has one thread, which needs no import and knows tasks that were registered in a notebook;
    OpenMP's threads and CUDA do not survive a fork, so that with them it starts afresh.
    """
    threads = max(1, (os.cpu_count() or 1) // processes)
    forked = threads == 1 and sys.platform == "linux" and not torch.cuda.is_available()
    context: Any = multiprocessing.get_context("fork" if forked else "spawn")
    process: BaseProcess = context.Process(target=_child, args=(job, threads), name=job.folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: ours hold no lock
        process.start()
    return process


def _child(job: Job, threads: int) -> None:
    """What the process does: the run, with everything it says in `log.txt`, and its end in `error.txt`."""
    os.setpgid(0, 0)  # Ctrl-C comes once, from the parent
    folder = Path(job.folder)
    if job.stock:  # stock agents do not say where they were, so they begin again
        shutil.rmtree(folder)
        folder.mkdir()
        write_sealed(folder / "job.json", job.plain())
    (folder / "error.txt").unlink(missing_ok=True)
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        sys.stdout = sys.stderr = log
        torch.set_num_threads(threads)
        started = time.perf_counter()
        try:
            run(job)
            write_sealed(folder / SPENT, {"seconds": time.perf_counter() - started})
        except BaseException:
            (folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
            raise SystemExit(1) from None


def _reason(folder: Path, code: int) -> str:
    """The traceback, or the signal, that a process ended with."""
    path = folder / "error.txt"
    if code > 0 and path.exists():
        return path.read_text("utf-8")
    return f"the process was ended by signal {-code}" if code < 0 else f"the process ended with status {code}"
