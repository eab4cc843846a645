"""Runs of a comparison by workers that share its folder: started by hand, by Ray, or by Slurm.

A worker claims a run that is missing and trains it in a process of its own; the process that was asked for
the comparison waits until all are done, and collects the results.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rlseq.compare.claims import Claim, claimed, failure_of_run, forget_failures
from rlseq.compare.plan import ComparisonConfig
from rlseq.compare.process_pool import LOG, new_lines, size_of, started_process, threads_each, why_ended
from rlseq.training.run_config import RunConfig
from rlseq.training.run_folder import read_results
from rlseq.utils.errors import in_one_line, need
from rlseq.utils.files import read_json
from rlseq.utils.stopping import Stop, stopping

BEAT_SECONDS = 5.0  # between two touches of a claim
LOOK_SECONDS = 0.5  # between two looks for runs that are missing
STOPPING_WORKER = "stopping after the current update; the run is free for other workers then"
STOPPING_WAIT = "the same command goes on; workers of Ray end now, others when their runs are done"
OLDEST_RAY = (2, 50)
ANSWERS_WITHIN = 10.0  # seconds in which a cluster of Ray must answer

Look = Callable[[], None]  # raises an error where workers can no longer train what is missing


def work(folder: str | os.PathLike[str]) -> int:
    """Train runs of a comparison until none is missing; return how many this worker has finished."""
    runs = _runs_in(Path(folder))
    finished = 0
    with stopping(STOPPING_WORKER) as stop:
        while not stop.asked and (missing := _missing(runs)):
            found = next(_free(missing), None)
            if found is None:
                time.sleep(LOOK_SECONDS)
            else:
                finished += _trained(*found, stop)
    if stop.asked:
        raise stop.ending()
    return finished


def _runs_in(folder: Path) -> list[RunConfig]:
    """Return the runs of the comparison in a folder."""
    if not (folder / "config.json").exists():
        raise ValueError(
            f"{folder} holds no comparison for workers; begin it by: rlseq compare --executor workers --out "
            f"{folder} …"
        )
    return ComparisonConfig(**read_json(folder / "config.json"), out=folder).runs()


def _missing(runs: Sequence[RunConfig]) -> list[RunConfig]:
    """Return the runs that are neither finished nor failed, without those whose start has failed."""
    failed = {job.folder for job in runs if failure_of_run(Path(job.folder)) is not None}
    return [job for job in runs if job.folder not in failed and job.start not in failed and not job.done]


def _free(missing: Sequence[RunConfig]) -> Iterator[tuple[Claim, RunConfig]]:
    """Yield runs that this worker could claim, with the claims: those whose start is finished."""
    folders = {job.folder for job in missing}
    for job in missing:
        if job.start not in folders and (claim := claimed(Path(job.folder))) is not None:
            yield claim, job


def _trained(claim: Claim, job: RunConfig, stop: Stop) -> bool:
    """Train a run that was claimed; return whether it is finished."""
    if job.done:  # another worker has finished it between the look and the claim
        claim.release()
        return False
    process, passed_on = started_process(job, threads_each(1)), False
    while process.exitcode is None:
        process.join(BEAT_SECONDS)
        if process.exitcode is None and not claim.touch():  # this worker counted as lost, and another has it
            process.kill()
            process.join()
            return False
        if stop.asked and not passed_on:
            passed_on = True
            os.kill(process.pid or 0, signal.SIGINT)
    if stop.asked:
        claim.release()
    elif process.exitcode:
        claim.failed(why_ended(Path(job.folder), process.exitcode))
    return job.done


# ── the process that waits ───────────────────────────────────────────────────────────────────────────────


def run_by_workers(
    jobs: Sequence[RunConfig],
    start: Callable[[], Look],
    advance: Callable[[int], None] = lambda done: None,
    tell: Callable[[str, str], None] = lambda folder, line: None,
) -> dict[str, str]:
    """Wait until workers have trained all runs; return the error of each run that failed, by folder.

    Args:
        jobs: the runs.
        start: starts workers, where that is not done by hand, and returns what looks after them.
        advance: is called now and then with the number of runs that are done.
        tell: is called with the folder of a run and each line that the run writes to its log.
    """
    for job in jobs:
        forget_failures(Path(job.folder))
    logs = {job.folder: size_of(Path(job.folder) / LOG) for job in jobs}
    with stopping(STOPPING_WAIT) as stop:
        look = start()
        while not stop.asked and (missing := _missing(jobs)):
            look()
            for job in jobs:
                lines, logs[job.folder] = new_lines(Path(job.folder) / LOG, logs[job.folder])
                for line in lines:
                    tell(job.folder, line)
            advance(len(jobs) - len(missing))
            time.sleep(LOOK_SECONDS)
    if stop.asked:
        raise stop.ending()
    failed = {job.folder: failure_of_run(Path(job.folder)) for job in jobs if not job.done}
    because = {job.folder: f"the run it starts from failed: {job.start}" for job in jobs}
    return {folder: error or because[folder] for folder, error in failed.items()}


def seconds_of(jobs: Sequence[RunConfig]) -> float:
    """Return the seconds of training of all runs that are finished."""
    return sum(float(read_results(Path(job.folder))["seconds"]) for job in jobs if job.done)


def unwatched() -> None:
    """Look after nothing: workers of others may come and go."""


def by_hand(folder: Path) -> Look:
    """Say how workers are started."""
    sys.stderr.write(f"rlseq: waiting for workers; start any number: rlseq compare --worker {folder}\n")
    return unwatched


def check_executor(executor: str) -> None:
    """Refuse an executor that cannot start workers here, before anything is written."""
    if executor == "ray":
        _check_ray(need("ray", "ray"), os.environ.get("RAY_ADDRESS", ""))
    elif executor == "slurm" and shutil.which("sbatch") is None:
        raise ValueError(
            "there is no sbatch here; call this on a node from which Slurm takes jobs, or print the script "
            "with --dry-run"
        )


def _check_ray(ray: Any, address: str) -> None:
    """Refuse a version of Ray that is too old, and an address at which nothing answers.

    Ray itself tries such an address for minutes, and prints where in C++ it does.
    """
    version = tuple(int(part) for part in ray.__version__.split(".")[:2])
    if version < OLDEST_RAY:
        raise ValueError(
            f"ray {ray.__version__} is too old, wanted 2.50 or newer: pip install -U 'rlseq[ray]', or take "
            "--executor workers"
        )
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:  # "auto", "local" or nothing
        return
    try:
        socket.create_connection((host, int(port)), ANSWERS_WITHIN).close()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"no Ray cluster answers at RAY_ADDRESS={address} ({error}); begin it there by `ray start "
            "--head`, correct the address, or unset it, so that workers are started on this machine"
        ) from None


def by_ray(folder: Path, workers: int, gpus: float) -> Look:
    """Start workers as remote tasks on the Ray cluster that RAY_ADDRESS names, or on this machine.

    Ray starts a task again whose process was killed; what ends all of them is an error of the comparison.
    """
    ray = need("ray", "ray")
    ray.init(address=os.environ.get("RAY_ADDRESS"), ignore_reinit_error=True, log_to_driver=False)
    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=2)(work)
    tasks = [task.remote(str(folder.resolve())) for _ in range(workers)]

    def look() -> None:
        ended, working = ray.wait(tasks, num_returns=len(tasks), timeout=0)
        if working:
            return
        try:
            ray.get(ended)
        except Exception as error:
            raise RuntimeError(
                f"all {workers} workers on Ray have ended, the last with: {in_one_line(error)}; mend it, and "
                "give the same command again"
            ) from None

    return look


def slurm_script(folder: Path, workers: int, options: Sequence[str]) -> str:
    """Return the batch script of an array of workers.

    Args:
        folder: of the comparison, which all nodes must see.
        workers: their number.
        options: of sbatch, `time=2:00:00`.
    """
    lines = [f"#SBATCH --array=0-{workers - 1}", "#SBATCH --job-name=rlseq", "#SBATCH --requeue"]
    for option in options:
        name, equals, value = option.partition("=")
        if not name or any(character.isspace() for character in option):
            raise ValueError(f"options of Slurm must be name=value, without blanks, got {option!r}")
        lines.append(f"#SBATCH --{name}{equals}{value}")
    command = shlex.join([sys.executable, "-m", "rlseq", "compare", "--worker", str(folder.resolve())])
    return "\n".join(["#!/bin/bash", *lines, "", f"exec {command}", ""])


def by_slurm(folder: Path, script: str) -> Look:
    """Submit a batch script."""
    path = folder / "workers.sbatch"
    path.write_text(script, "utf-8")
    done = subprocess.run(["sbatch", str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"sbatch has refused {path}: {done.stderr.strip()[:300]}")
    with suppress(OSError):
        sys.stderr.write(f"rlseq: {done.stdout.strip()}\n")
    return unwatched
