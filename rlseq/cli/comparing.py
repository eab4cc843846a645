"""The commands `rlseq compare` and `rlseq report`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from rlseq.cli.options import (
    SeveralWords,
    check_setting_names,
    fields_of,
    flag,
    flags,
    form,
    parsed,
    read_config,
    settings,
)
from rlseq.compare.plan import OF_MACHINE, ComparisonConfig
from rlseq.compare.process_pool import processes_for
from rlseq.compare.results import Comparison
from rlseq.compare.run import run_comparison
from rlseq.compare.run_report import RunReport
from rlseq.compare.workers import slurm_script, work
from rlseq.utils.errors import hint

FLAGS_OF_COMPARISON = {"envs": "env", "mle_options": "mle_option"}


def compare(words: Sequence[str], text: str) -> None:
    """Compare agents, and print the table and the path of the page."""
    from rich.console import Console

    flags_of_compare = form(
        "Compare",
        flags(ComparisonConfig, FLAGS_OF_COMPARISON),
        [
            flag("option", SeveralWords, "Options of all tasks, such as `length=6`."),
            flag("hyper", SeveralWords, "Hyper-parameters of the agents, such as `scst.lr=1e-4`."),
            flag(
                "config",
                str | None,
                "A YAML or JSON file with all settings, such as the `config.json` of another comparison.",
            ),
            flag("worker", str | None, "Train missing runs of the comparison in a folder, and nothing else."),
            flag(
                "dry_run", bool, "Print the batch script for Slurm; nothing is submitted or written.", False
            ),
        ],
    )
    given = parsed(flags_of_compare, words, "rlseq compare", text, {})
    if given.worker is not None:
        work_in(given)
        return
    config = _comparison(given) if given.config is None else _comparison_in_file(given)
    if given.dry_run:
        if config.executor != "slurm":
            raise ValueError("--dry-run prints the script for Slurm; add --executor slurm, or leave it out")
        runs, folder = config.runs(), Path(config.out)
        sys.stdout.write(slurm_script(folder, processes_for(len(runs), config.jobs), config.slurm))
        return
    comparison = run_comparison(config)
    page = comparison.save()
    Console().print(comparison.table())
    sys.stdout.write(f"\n{page}\n")  # a path may look like markup
    if comparison.results["failed"]:
        sys.exit(1)


def work_in(given: Any) -> None:
    """Work on the comparison in a folder until no run is missing."""
    beside = [n for n, v in vars(given).items() if n != "worker" and v != getattr(type(given)(), n)]
    if beside:
        raise ValueError(f"--worker takes the settings in its folder; leave out {', '.join(beside)}")
    sys.stderr.write(f"rlseq: this worker has finished {work(given.worker)} runs; none is missing\n")


def report(folder: Path) -> None:
    """Write the page of a run or of a comparison, and print its path; of a run also its scores."""
    found: Any = RunReport if (folder / "words.json").exists() else Comparison
    shown = found.load(folder)
    page = shown.save()
    if isinstance(shown, RunReport):
        from rich.console import Console

        Console().print(shown)
    sys.stdout.write(f"{page}\n")  # a path may look like markup


def _comparison(given: Any) -> ComparisonConfig:
    """Return the comparison that was typed."""
    if not given.env or not given.agents:
        raise ValueError("name tasks and agents: rlseq compare --env rlseq/Copy-v0 --agents mle scst rloo")
    agents: dict[str, dict[str, Any]] = {name: {} for name in given.agents}
    if len(agents) < len(given.agents):
        raise ValueError(f"an agent is named twice: {' '.join(given.agents)}")
    for key, value in settings(given.hyper, "hyper").items():
        name, dot, parameter = key.partition(".")
        owner = next((agent for agent in agents if _alike(agent) == _alike(name)), None)
        if not dot or owner is None:
            raise ValueError(f"hyper must be agent.name=value, got {key!r}{hint(name, agents)}")
        agents[owner][parameter] = value
    policy, *sizes = given.policy or (None,)
    return ComparisonConfig(
        **fields_of(ComparisonConfig, given, FLAGS_OF_COMPARISON)
        | {
            "envs": dict.fromkeys(given.env, settings(given.option, "option")),
            "agents": agents,
            "policy": None if policy is None else {"name": policy, **settings(sizes, "policy")},
            "start": None if given.start == "none" else given.start,
            "start_hyper": settings(given.start_hyper, "start_hyper"),
            "mle_options": settings(given.mle_option, "mle_option"),
        }
    )


def _comparison_in_file(given: Any) -> ComparisonConfig:
    """Return the comparison of a file, with the modules, folder and number of processes that were typed."""
    found = read_config(given.config)
    names = [field.name for field in fields(ComparisonConfig) if field.name not in OF_MACHINE]
    check_setting_names(given.config, found, names)
    if given.imports:
        found["imports"] = given.imports
    allowed = {"config", "imports", "dry_run", *OF_MACHINE}
    beside = [n for n, v in vars(given).items() if n not in allowed and v != getattr(type(given)(), n)]
    if beside:
        raise ValueError(
            f"{given.config} has all settings; leave out {', '.join(beside)}, or write them there"
        )
    return ComparisonConfig(**found, **{name: getattr(given, name) for name in OF_MACHINE})


def _alike(name: str) -> str:
    """Return a name with _ for -, as in the names of settings."""
    return name.replace("-", "_")
