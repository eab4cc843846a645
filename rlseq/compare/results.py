"""The results of a comparison, collected from its runs, and `Comparison`, which shows them."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from rlseq.compare.statistics import BESIDE_MEAN, as_tree, mean_interval, within
from rlseq.compare.verdicts import compare_pairs, probabilities_across_tasks, remarks, verdict
from rlseq.metrics.registry import COUNT, NO_RANGE, SHARE, Bounds, row_of
from rlseq.training.experiment import TEMPERATURES
from rlseq.training.experiment_envs import held_out, tested_on
from rlseq.training.fingerprint import configuration, machine
from rlseq.training.reward_hacking import reward_hacking_alarms
from rlseq.training.run_config import RunConfig
from rlseq.training.run_folder import read_metrics, read_results, read_samples
from rlseq.training.tuned_settings import tuned_settings
from rlseq.utils.files import Damaged, Json, read_json, read_sealed, write_sealed
from rlseq.utils.places import command_line, without_places

COMPARISON_SCHEMA = "rlseq.comparison/2"
SAMPLES_KEPT = 100  # texts that are kept to be read
SPENT = ("episodes", "seconds")  # beside tokens, by which curves are joined
JOINED = ("tokens", *SPENT, "reward")  # of every test of a run


@dataclass(frozen=True)
class Comparison:
    """The results of a comparison; `results` is the content of `results.json` (docs/guides/compare.md)."""

    folder: Path
    results: Json

    @classmethod
    def load(cls, folder: str | PathLike[str]) -> Comparison:
        """Return the comparison in a folder."""
        path = Path(folder) / "results.json"
        if not path.exists():
            raise ValueError(
                f"{folder} holds no finished comparison, and no run; rlseq compare --out {folder} makes one"
            )
        results = read_sealed(path)
        if results.get("schema") != COMPARISON_SCHEMA:
            raise ValueError(
                f"{folder} holds no comparison of this version (schema {results.get('schema')!r}, "
                f"wanted {COMPARISON_SCHEMA!r}); run the command that made it again"
            )
        return cls(Path(folder), results)

    def table(self) -> Any:
        """Return the scores and verdicts for rich to print."""
        from rlseq.compare.tables import rich_tables

        return rich_tables(self.results)

    def plot(self) -> Any:
        """Return the learning curves of the first task as a matplotlib figure."""
        from rlseq.compare.figures import curves

        return curves(self.results["tasks"][0])

    def save(self, folder: str | PathLike[str] | None = None) -> Path:
        """Write `report.html`, `tables.md` and CSV files; returns the report's path."""
        from rlseq.compare.report import write

        return write(self.results, Path(folder or self.folder))

    def _repr_html_(self) -> str:
        from rlseq.compare.report import fragment

        return fragment(self.results)


def collect_results(
    folder: Path, jobs: Sequence[RunConfig], failed: Mapping[str, str], spent: Mapping[str, Any]
) -> Comparison:
    """Read all finished runs, compare them, and write `results.json`."""
    tasks = []
    for env, group in itertools.groupby(jobs, lambda job: job.env):
        runs = [_Run(job, folder) for job in group if job.done]
        if runs:
            tasks.append(_task(env, runs))
    results = {
        "schema": COMPARISON_SCHEMA,
        "config": read_json(folder / "config.json"),
        "command": command_line(sys.argv),
        "machine": machine(),
        **spent,
        "failed": [
            {"run": str(Path(run).relative_to(folder)), "error": without_places(text)}
            for run, text in failed.items()
        ],
        "tasks": tasks,
        "across": probabilities_across_tasks(tasks) if len(tasks) > 1 else [],
    }
    write_sealed(folder / "results.json", results)
    return Comparison(folder, results)


class _Run:
    """One finished run."""

    def __init__(self, job: RunConfig, folder: Path) -> None:
        self.job, path = job, Path(job.folder)
        self.results: Json = read_results(path)
        self.first: dict[str, float] = read_sealed(path / "start.json")
        self.final: dict[str, float] = self.results["final"]
        self.path = path

    def curve(self) -> list[dict[str, float]]:
        """Return the evaluations, with the one before training as the first."""
        rows = [{n.removeprefix("eval_"): v for n, v in row.items()} for row in self.results["curve"]]
        seconds = {row["update"]: row["seconds"] for row in read_metrics(self.path, self.results)}
        if not rows or rows[-1]["tokens"] != self.results["tokens"]:
            raise Damaged(
                f"{self.path / 'results.json'} has no evaluation at the end of the run, after "
                f"{self.results['tokens']:g} tokens; delete {self.path} and run the same command again"
            )
        start = {"tokens": 0.0, "episodes": 0.0, "seconds": 0.0, **self.first}
        return [start, *({**row, "seconds": seconds[row["update"]]} for row in rows)]

    def texts(self) -> list[Json]:
        """Return the texts of the last evaluation."""
        return read_samples(self.path, self.results)

    def alarms(self) -> list[str]:
        """Return the alarms of training."""
        return list(read_sealed(self.path / "alarms.json")["alarms"])

    def temperatures(self) -> list[dict[str, float]]:
        """Return the scores of samples at several temperatures, nothing where they were not tested."""
        path = self.path / "temperatures.json"
        if not self.job.sweep:
            return []
        rows = list(read_sealed(path)["temperatures"])
        found = [row["temperature"] for row in rows]
        if found != list(TEMPERATURES):
            raise Damaged(
                f"{path} must have the temperatures {list(TEMPERATURES)}, got {found}; "
                "delete it and run the same command again"
            )
        return rows

    def memorisation(self) -> Json:
        """Return samples beside training texts; empty where they were not compared."""
        path = self.path / "memorisation.json"
        return read_sealed(path) if path.exists() else {}

    def settings(self) -> Json:
        """Return all hyper-parameters of the agent, or those that were given to a stock agent."""
        if self.job.stock:
            return dict(self.job.hyper)
        agent = configuration(self.path)["agent"]
        return {name: value for name, value in agent.items() if name != "class"}

    def rewarded(self) -> list[str]:
        """Return the names of the parts of the reward that the run was trained on."""
        return list(configuration(self.path)["env"].get("reward", {}))


def _task(env: str, runs: Sequence[_Run]) -> Json:
    """Return the results of one task."""
    agents: dict[str, list[_Run]] = {}
    for run in runs:
        agents.setdefault(run.job.agent, []).append(run)
    texts = {name: [run.texts() for run in group] for name, group in agents.items()}
    ranges = _ranges(runs)
    lines = [_agent(name, group, ranges) for name, group in agents.items()]
    rivals = [line for line in lines if line["name"] != "start"]
    pairs = compare_pairs(
        {line["name"]: line["scores"]["reward"]["runs"] for line in rivals},
        {
            line["name"]: [[t["scores"]["reward"] for t in one] for one in texts[line["name"]]]
            for line in rivals
        },
        ranges["reward"],
    )
    return {
        "env": env,
        "held_out": bool(held_out(env)),
        "tested_on": tested_on(env),
        "selection": _selection(runs),
        "agents": lines,
        "pairs": pairs,
        "verdict": verdict(rivals, pairs),
        "remarks": remarks(rivals, pairs),
        "samples": _samples({name: found[0] for name, found in texts.items()}),
    }


def _selection(runs: Sequence[_Run]) -> Json:
    """Return which items were tested; refuse runs of a task that were tested on different ones."""
    first: Json = runs[0].results.get("selection") or {}
    for run in runs:
        if not first or run.results.get("selection") != first:
            raise ValueError(
                f"{run.path} was tested on other items than {runs[0].path}, or by another version of rlseq "
                "that did not record them; remove the runs of the other version, and the same command makes "
                "them again"
            )
    return first


def _ranges(runs: Sequence[_Run]) -> dict[str, Bounds]:
    """Return the range of every metric, as far as it is known and no value contradicts it."""
    own = next((run.rewarded() for run in runs if run.job.reward is None and not run.job.stock), [])
    known = {metric: row_of(metric).range for run in runs for metric in run.final}
    known["reward"] = row_of(own[0]).reward_range if len(own) == 1 else NO_RANGE
    return {
        metric: within(range, [run.final[metric] for run in runs if metric in run.final])
        for metric, range in known.items()
    }


def _agent(name: str, runs: Sequence[_Run], ranges: Mapping[str, Bounds]) -> Json:
    """Return scores, costs, curve and alarms of the runs of an agent."""
    job, curves = runs[0].job, [run.curve() for run in runs]
    costs = {
        key: float(np.median([run.results[key] for run in runs])) for key in ("tokens", "episodes", "seconds")
    }
    trained = job.reward if job.reward in runs[0].final else "reward"
    return {
        "name": name,
        "algorithm": job.algorithm,
        "reward": job.reward or "reward",
        "seeds": [run.job.seed for run in runs],
        "scores": {
            metric: _scored([run.final[metric] for run in runs], ranges[metric]) for metric in runs[0].final
        },
        "costs": {**costs, "tokens_per_second": round(costs["tokens"] / max(costs["seconds"], 1e-9))},
        "curve": _curve(curves, ranges["reward"]),
        "seed_curves": [[{key: point[key] for key in JOINED} for point in curve] for curve in curves],
        "settings": runs[0].settings(),
        "tuned": tuned_settings(job.env).used(
            job.algorithm, job.hyper, after_likelihood=job.start is not None
        ),
        "alarms": [
            {"seed": run.job.seed, "alarm": without_places(alarm)}
            for run, curve in zip(runs, curves, strict=True)
            for alarm in (*run.alarms(), *reward_hacking_alarms(curve, trained))
        ],
        "temperatures": _sweep([run.temperatures() for run in runs], ranges),
        "memorisation": _memorised([found for run in runs if (found := run.memorisation())]),
    }


def _memorised(found: Sequence[Json]) -> Json:
    """Return the figures of all seeds: means with intervals, and one estimate of the different texts."""
    if not found:
        return {}
    ranges = {"copies": SHARE, "nearest_rate": COUNT, "held_out_copies": SHARE, "held_out_rate": COUNT}
    known = {name: [one[name] for one in found if one[name] is not None] for name in ranges}
    pairs = sum(one["samples"] * (one["samples"] - 1) / 2 for one in found)
    equal = sum(one["equal_pairs"] for one in found)
    return {
        **{name: as_tree(mean_interval(values), ranges[name]) for name, values in known.items() if values},
        "support": pairs / equal if equal else None,
        "samples": found[0]["samples"],
        "known": found[0]["known"],
    }


def _scored(values: Sequence[float], range: Bounds) -> Json:
    beside = {name: as_tree(found(values), range) for name, (_, found) in BESIDE_MEAN.items()}
    return {**as_tree(mean_interval(values), range), **beside, "runs": list(values)}


def _curve(curves: Sequence[Sequence[Mapping[str, float]]], range: Bounds = NO_RANGE) -> list[Json]:
    """Return the interval of the mean reward along training, with the costs so far.

    Seeds are joined by the tokens that they had spent: between two evaluations of a seed, its values are
    interpolated. The points are where the seed with most evaluations has them, and the end of every run.
    """
    longest = max(curves, key=len)
    ends = [curve[-1]["tokens"] for curve in curves]
    places = [[tokens] * len(curves) for point in longest[:-1] if (tokens := point["tokens"]) <= min(ends)]
    lines = []
    for place in [*places, ends]:
        spent = {key: float(np.median(_at(curves, place, key))) for key in SPENT}
        reward = as_tree(mean_interval(_at(curves, place, "reward")), range)
        lines.append({"tokens": float(np.median(place)), **spent, **reward})
    return lines


def _at(curves: Sequence[Sequence[Mapping[str, float]]], tokens: Sequence[float], name: str) -> list[float]:
    """Return a value of every seed after a number of tokens, interpolated between its evaluations."""
    return [
        float(np.interp(at, [p["tokens"] for p in curve], [p[name] for p in curve]))
        for curve, at in zip(curves, tokens, strict=True)
    ]


def _sweep(sweeps: Sequence[Sequence[Mapping[str, float]]], ranges: Mapping[str, Bounds]) -> list[Json]:
    return [
        {"temperature": points[0]["temperature"]}
        | {
            name: as_tree(mean_interval([p[name] for p in points]), ranges.get(name, NO_RANGE))
            for name in ("reward", "self_bleu")
        }
        for points in zip(*sweeps, strict=True)
    ]


def _samples(texts: Mapping[str, Sequence[Json]]) -> list[Json]:
    """Return the texts of the first seed of every agent for the same items."""
    first = next(iter(texts.values()))
    return [
        {**{k: v for k, v in line.items() if k in ("index", "source", "references")}}
        | {"texts": {name: {k: found[i][k] for k in ("text", "scores")} for name, found in texts.items()}}
        for i, line in enumerate(first[:SAMPLES_KEPT])
    ]
