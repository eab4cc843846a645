"""`compare`: train agents on tasks with several seeds and the same budget, and collect the results."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from rlseq.compare.folders import check_inside
from rlseq.compare.plan import ComparisonConfig, Names, check_runs
from rlseq.compare.process_pool import processes_for, run_all
from rlseq.compare.results import Comparison, collect_results
from rlseq.compare.workers import (
    by_hand,
    by_ray,
    by_slurm,
    check_executor,
    run_by_workers,
    seconds_of,
    slurm_script,
)
from rlseq.training.fingerprint import differences
from rlseq.training.progress_lines import clock
from rlseq.training.run_config import RunConfig
from rlseq.utils.errors import check_options, printable
from rlseq.utils.files import locked, make_folder, read_sealed, remove_drafts, sign, write_json, write_sealed
from rlseq.utils.progress import progress
from rlseq.utils.ranks import check_alone
from rlseq.utils.settings import takes_fields_of


@takes_fields_of(ComparisonConfig)
def compare(envs: Names, agents: Names, **settings: Any) -> Comparison:
    """Train every agent on every task, from the same start, with the same budget, and compare them.

    Every run is a process. A failed run is reported and the others continue. The same call again trains only
    the runs that are missing, and with more agents, tasks or seeds only the new ones.

    Args:
        envs: the tasks, as below.
        agents: the agents, as below.
        **settings: the settings below.

    Returns:
        The comparison: `.table()`, `.plot()`, `.save()`.
    """
    check_options(settings, signature(ComparisonConfig).parameters, "compare")
    return run_comparison(ComparisonConfig(envs, agents, **settings))


def run_comparison(config: ComparisonConfig) -> Comparison:
    """Train the missing runs of a comparison, and collect the results of all."""
    check_alone("a comparison")
    began, runs, folder = time.perf_counter(), config.runs(), Path(config.out)
    check_runs(runs)
    check_executor(config.executor)
    check_inside(folder, [Path(job.folder) for job in runs])
    _agree(runs)  # before anything is made
    make_folder(folder)
    with locked(folder / "lock") as lock:
        check_inside(folder, [Path(job.folder) for job in runs])
        _agree(runs)
        sign(lock)
        remove_drafts(folder)
        for job in runs:
            make_folder(Path(job.folder))
            remove_drafts(Path(job.folder))
            write_sealed(Path(job.folder) / "run.json", job.plain())
        write_json(folder / "config.json", config.plain())
        processes = processes_for(len(runs), config.jobs)
        failed, seconds = _made(config, runs, processes)
        whole = time.perf_counter() - began
        spent = {"seconds": whole, "jobs": processes, "seconds_of_runs": seconds}
        return collect_results(folder, runs, failed, spent)


def _made(
    config: ComparisonConfig, runs: Sequence[RunConfig], processes: int
) -> tuple[dict[str, str], float]:
    """Train the runs, and print the lines of their logs unless the comparison is quiet."""
    finished, found, began = 0, sum(job.done for job in runs), time.perf_counter()
    folder = Path(config.out)

    with progress("compare", len(runs), "runs", False if config.quiet else None) as show:

        def advance(done: int) -> None:
            nonlocal finished
            finished = done
            show(done, "")

        def tell(run: str, line: str) -> None:
            name = Path(run).relative_to(folder / "runs").as_posix()
            left = time_left(finished - found, len(runs) - finished, time.perf_counter() - began)
            sys.stderr.write(f"[{finished}/{len(runs)}{left}] {name}: {printable(line)}\n")

        told = (lambda run, line: None) if config.quiet else tell
        if config.executor == "local":
            return run_all(runs, processes, advance, told)
        start = {
            "workers": lambda: by_hand(folder),
            "ray": lambda: by_ray(folder, processes, config.gpus),
            "slurm": lambda: by_slurm(folder, slurm_script(folder, processes, config.slurm)),
        }[config.executor]
        return run_by_workers(runs, start, advance, told), seconds_of(runs)


def time_left(done: int, left: int, seconds: float) -> str:
    """Return the time that the runs left will take, by that of the runs done; nothing before the first."""
    if not done:
        return ""
    return f", {clock(seconds / done * left)} left"


def _agree(runs: Sequence[RunConfig]) -> None:
    """Refuse folders that hold other runs than these."""
    for job in runs:
        path = Path(job.folder) / "run.json"
        here = {**job.plain(), "imports": None}  # more agents may come from more modules
        there = {**read_sealed(path), "imports": None} if path.exists() else here
        differ = "".join(f"\n  {line}" for line in differences(there, here, "run"))
        if differ:
            raise ValueError(
                f"{job.folder} holds another run:{differ}\nchange it back, or write to another folder"
            )
