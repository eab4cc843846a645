"""`compare`: agents × tasks × seeds, the same budget for each, and what can be said about them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

from rlseq.compare.folders import check_inside
from rlseq.compare.plan import ComparisonConfig, Options, check
from rlseq.compare.process_pool import processors, run_all
from rlseq.compare.results import Comparison, collect_results
from rlseq.training.experiment import RunConfig
from rlseq.training.fingerprint import differences
from rlseq.utils.arguments import PositiveInt, checked_arguments
from rlseq.utils.files import locked, make_folder, read_sealed, remove_drafts, sign, write_json, write_sealed
from rlseq.utils.progress import progress


@checked_arguments
def compare(
    envs: str | Sequence[str] | Mapping[str, Options],
    agents: str | Sequence[str] | Mapping[str, Options],
    seeds: PositiveInt = 4,
    budget_tokens: PositiveInt = 1_000_000,
    *,
    policy: str | Options = "lstm",
    metrics: Sequence[str] | None = None,
    rewards: Sequence[str] = (),
    control: str | None = None,
    start: str | None = "mle",
    start_tokens: PositiveInt | None = None,
    start_hyper: Options | None = None,
    mle_options: Options | None = None,
    temperatures: bool = False,
    evaluations: PositiveInt = 10,
    texts: PositiveInt | None = 500,
    jobs: PositiveInt | None = None,
    out: str | PathLike[str] = "runs/compare",
) -> Comparison:
    """Train every agent on every task, from the same start, with the same budget, and compare them.

    Runs are processes. One that fails is reported and the rest goes on; the same call again makes only what
    is missing, and with more agents, tasks or seeds only what is new.

    Args:
        envs: ids of tasks, or id → options. Agents are tested on the items that a task declares as held out
            (`SequenceEnv.held_out`), or on its training items where it declares none, which the results say.
        agents: names, or name → hyper-parameters. `{"fast": {"agent": "scst", "lr": 1e-3}}` names a variant;
            "reward" among them is a metric to train on; "sb3-ppo" and "sb3-a2c" are stock agents.
        seeds: runs of every agent on every task: seeds 0, 1, … of data, samples and initial weights.
        budget_tokens: tokens written, or imitated, by every run.
        policy: a name, or `{"name": "lstm", "hidden": 64, …}`.
        metrics: what is tested beside the reward; the task's own when not given.
        rewards: train every agent on each of these metrics, too, for a train × test matrix.
        control: "constant" or "shuffled": train every agent on a reward without information, too.
        start: the agent that makes what all others start from, once a seed; None starts from nothing.
        start_tokens: its budget; as the others' when not given.
        start_hyper: its hyper-parameters.
        mle_options: options of the task for likelihood alone; `{"items": 200}`, say: few references.
        temperatures: test likelihood's samples at several temperatures, too.
        evaluations: tests of every run, at equal distances.
        texts: the most items of a test, drawn at random by a fixed seed, the same for all; all when None.
        jobs: processes at a time; as many as there are processors when not given. Together they use at most
            as many threads as torch may use here (`OMP_NUM_THREADS`, `torch.set_num_threads`), one at least.
        out: the folder of everything.

    Returns:
        The comparison: `.table()`, `.plot()`, `.save()`.
    """
    settings = {name: value for name, value in locals().items() if name not in ("jobs", "out")}
    return _carried_out(ComparisonConfig(**settings), Path(out), jobs or processors())


def _carried_out(plan: ComparisonConfig, folder: Path, jobs: int) -> Comparison:
    """What a plan asks for, but for what is there already."""
    began, runs = time.perf_counter(), plan.jobs(folder)
    check(runs)
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
            write_sealed(Path(job.folder) / "job.json", job.plain())
        write_json(folder / "config.json", plan.plain())
        processes = min(jobs, len(runs))
        with progress("compare", len(runs), "runs") as advance:
            failed = run_all(runs, processes, lambda done: advance(len(done), ""))
        return collect_results(
            folder, runs, failed, {"seconds": time.perf_counter() - began, "jobs": processes}
        )


def _agree(runs: Sequence[RunConfig]) -> None:
    """Refuse folders that hold other runs than these."""
    for job in runs:
        path = Path(job.folder) / "job.json"
        there = read_sealed(path) if path.exists() else job.plain()
        differ = "".join(f"\n  {line}" for line in differences(there, job.plain(), "run"))
        if differ:
            raise ValueError(
                f"{job.folder} holds another run:{differ}\nchange it back, or write to another folder"
            )
