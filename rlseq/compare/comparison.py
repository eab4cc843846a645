"""What the runs of a comparison come to: `results.json`, and the `Comparison` that shows it."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from rlseq.compare.jobs import Job
from rlseq.compare.statistics import (
    Interval,
    approximate_randomisation,
    holm,
    iqm,
    paired_bootstrap,
    probability_of_improvement,
    welch,
)
from rlseq.compare.tasks import held_out, tested_on
from rlseq.log import machine, read_metrics, read_results, read_samples
from rlseq.monitors import hacked
from rlseq.storage import read_json, read_sealed, write_sealed

SCHEMA = "rlseq.comparison/1"
SHOWN = 100  # texts that are kept to be read
ALPHA = 0.05
Tree = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """The results of a comparison; `results` is what `results.json` holds (docs/compare.md)."""

    folder: Path
    results: Tree

    @classmethod
    def load(cls, folder: str | PathLike[str]) -> Comparison:
        """The comparison in a folder."""
        path = Path(folder) / "results.json"
        if not path.exists():
            raise ValueError(f"{folder} holds no finished comparison; rlseq compare --out {folder} makes one")
        results = read_sealed(path)
        if results.get("schema") != SCHEMA:
            raise ValueError(
                f"{folder} holds no comparison of this version (schema {results.get('schema')!r}, "
                f"wanted {SCHEMA!r}); a single run has no report, rlseq evaluate {folder} scores it"
            )
        return cls(Path(folder), results)

    def table(self) -> Any:
        """The scores, to be printed by rich."""
        from rlseq.compare.tables import rich_tables

        return rich_tables(self.results)

    def plot(self) -> Any:
        """Learning curves, as a matplotlib figure."""
        from rlseq.compare.figures import curves

        return curves(self.results["tasks"][0])

    def save(self, folder: str | PathLike[str] | None = None) -> Path:
        """Write `report.html`, `tables.md` and CSV files; returns the report's path."""
        from rlseq.compare.report import write

        return write(self.results, Path(folder or self.folder))

    def _repr_html_(self) -> str:
        from rlseq.compare.report import fragment

        return fragment(self.results)


def gathered(
    folder: Path, jobs: Sequence[Job], failed: Mapping[str, str], spent: Mapping[str, Any]
) -> Comparison:
    """Read all finished runs, compare them, write `results.json`."""
    tasks = []
    for env, group in itertools.groupby(jobs, lambda job: job.env):
        runs = [_Run(job, folder) for job in group if job.done]
        if runs:
            tasks.append(_task(env, runs))
    results = {
        "schema": SCHEMA,
        "config": read_json(folder / "config.json"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "machine": machine(),
        **spent,
        "seconds_of_runs": sum(job.seconds for job in jobs),  # tests included
        "failed": [
            {"run": str(Path(run).relative_to(folder)), "error": text} for run, text in failed.items()
        ],
        "tasks": tasks,
        "across": _across(tasks) if len(tasks) > 1 else [],
    }
    write_sealed(folder / "results.json", results)
    return Comparison(folder, results)


class _Run:
    """One finished run."""

    def __init__(self, job: Job, folder: Path) -> None:
        self.job, path = job, Path(job.folder)
        self.results: Tree = read_results(path)
        self.first: dict[str, float] = read_sealed(path / "start.json")
        self.final: dict[str, float] = self.results["final"]
        self.path = path

    def curve(self) -> list[dict[str, float]]:
        """Evaluations, the one before training among them."""
        rows = [{n.removeprefix("eval_"): v for n, v in row.items()} for row in self.results["curve"]]
        seconds = self._seconds()
        start = {"tokens": 0.0, "judged": 0.0, "seconds": 0.0, **self.first}
        return [start, *({**row, "seconds": seconds[row["update"]]} for row in rows)]

    def texts(self) -> list[Tree]:
        """What the last evaluation saw."""
        return read_samples(self.path, self.results)

    def alarms(self) -> list[str]:
        """What training warned of."""
        return list(read_sealed(self.path / "alarms.json")["alarms"])

    def temperatures(self) -> list[dict[str, float]]:
        """Scores of samples at several temperatures, if that was asked for."""
        path = self.path / "temperatures.json"
        return list(read_sealed(path)["temperatures"]) if path.exists() else []

    def _seconds(self) -> dict[float, float]:
        return {row["update"]: row["seconds"] for row in read_metrics(self.path, self.results)}


def _task(env: str, runs: Sequence[_Run]) -> Tree:
    """Everything about one task."""
    agents: dict[str, list[_Run]] = {}
    for run in runs:
        agents.setdefault(run.job.agent, []).append(run)
    texts = {name: [run.texts() for run in group] for name, group in agents.items()}
    pairs = _pairs({name: group for name, group in agents.items() if name != "start"}, texts)
    lines = [_agent(name, group) for name, group in agents.items()]
    return {
        "env": env,
        "held_out": bool(held_out(env)),
        "tested_on": tested_on(env),
        "selection": _selection(runs),
        "agents": lines,
        "pairs": pairs,
        "verdict": _verdict([line for line in lines if line["name"] != "start"], pairs),
        "samples": _samples({name: found[0] for name, found in texts.items()}),
    }


def _selection(runs: Sequence[_Run]) -> Tree:
    """Which items were tested; all runs of a task must have been tested on the same."""
    first: Tree = runs[0].results.get("selection") or {}
    for run in runs:
        if not first or run.results.get("selection") != first:
            raise ValueError(
                f"{run.path} was tested on other items than {runs[0].path}, or by another version of rlseq "
                "that did not record them; remove the runs of the other version, and the same command makes "
                "them again"
            )
    return first


def _agent(name: str, runs: Sequence[_Run]) -> Tree:
    """Scores, costs, curve and alarms of an agent's runs."""
    job = runs[0].job
    costs = {
        key: float(np.median([run.results[key] for run in runs])) for key in ("tokens", "judged", "seconds")
    }
    return {
        "name": name,
        "algorithm": job.algorithm,
        "reward": job.reward or "reward",
        "seeds": [run.job.seed for run in runs],
        "scores": {metric: _scored([run.final[metric] for run in runs]) for metric in runs[0].final},
        "costs": {**costs, "tokens_per_second": round(costs["tokens"] / max(costs["seconds"], 1e-9))},
        "curve": _curve([run.curve() for run in runs]),
        "alarms": [
            {"seed": run.job.seed, "alarm": alarm}
            for run in runs
            for alarm in (
                *run.alarms(),
                *hacked(run.curve(), job.reward if job.reward in run.final else "reward"),
            )
        ],
        "temperatures": _sweep([run.temperatures() for run in runs]),
    }


def _scored(values: Sequence[float]) -> Tree:
    return {**_plain(iqm(values)), "runs": list(values)}


def _curve(curves: Sequence[Sequence[Mapping[str, float]]]) -> list[Tree]:
    """Interval of the reward at every evaluation, against what it had cost by then (medians over seeds)."""
    lines = []
    for points in zip(*curves, strict=False):
        spent = {key: float(np.median([p[key] for p in points])) for key in ("tokens", "judged", "seconds")}
        lines.append({**spent, **_plain(iqm([p["reward"] for p in points]))})
    return lines


def _sweep(sweeps: Sequence[Sequence[Mapping[str, float]]]) -> list[Tree]:
    return [
        {"temperature": points[0]["temperature"]}
        | {name: _plain(iqm([p[name] for p in points])) for name in ("reward", "self_bleu")}
        for points in zip(*sweeps, strict=True)
    ]


def _pairs(agents: Mapping[str, Sequence[_Run]], texts: Mapping[str, Sequence[Sequence[Tree]]]) -> list[Tree]:
    """Every two agents: over seeds, and over items, both corrected for how many pairs there are."""
    lines: list[Tree] = []
    for a, b in itertools.combinations(agents, 2):
        x, y = ([run.final["reward"] for run in agents[name]] for name in (a, b))
        difference, p = welch(x, y)
        items = [
            np.mean([[t["scores"]["reward"] for t in one] for one in texts[name]], axis=0) for name in (a, b)
        ]
        lines.append(
            {
                "a": a,
                "b": b,
                "difference": _plain(difference),
                "probability": _plain(probability_of_improvement(x, y)),
                "p": float(p),
                "items": {
                    "difference": _plain(paired_bootstrap(*items)),
                    "p": approximate_randomisation(*items),
                },
            }
        )
    for line, over_seeds, over_items in zip(
        lines, holm([line["p"] for line in lines]), holm([line["items"]["p"] for line in lines]), strict=True
    ):
        line["p_holm"], line["items"]["p_holm"] = over_seeds, over_items
    return [_without_nan(line) for line in lines]


def _across(tasks: Sequence[Tree]) -> list[Tree]:
    """Every two agents over all tasks, whatever the scale of their rewards: who tends to win?"""
    runs = [{a["name"]: a["scores"]["reward"]["runs"] for a in task["agents"]} for task in tasks]
    names = [name for name in runs[0] if name != "start" and all(name in one for one in runs)]
    lines = []
    for a, b in itertools.combinations(names, 2):
        least = [min(len(one[name]) for one in runs) for name in (a, b)]  # where a run failed
        x, y = ([one[name][:n] for one in runs] for name, n in zip((a, b), least, strict=True))
        lines.append({"a": a, "b": b, "probability": _plain(probability_of_improvement(x, y))})
    return lines


def _verdict(agents: Sequence[Tree], pairs: Sequence[Tree]) -> str:
    """One sentence: who is better, or that nobody is known to be."""
    if not agents:
        return "No run was finished."
    ranked = sorted(agents, key=lambda agent: -agent["scores"]["reward"]["estimate"])
    best, n = ranked[0]["name"], min(len(agent["seeds"]) for agent in agents)
    if len(ranked) == 1:
        return f"{best} is alone; nothing to compare it with."
    if n < 2:
        return f"{best} has the highest reward, but one run each says nothing about the next: use more seeds."
    level = {frozenset((p["a"], p["b"])): p["p_holm"] for p in pairs}
    close = [a["name"] for a in ranked[1:] if level[frozenset((best, a["name"]))] > ALPHA]
    if not close:
        return f"{best} is significantly better than every other agent ({n} seeds, p ≤ {ALPHA} after Holm)."
    beaten = [a["name"] for a in ranked[1:] if a["name"] not in close]
    text = f"{best} has the highest reward, but no significant difference from {_listed(close)}"
    text += f"; it is significantly better than {_listed(beaten)}" if beaten else ""
    return f"{text} ({n} seeds, p ≤ {ALPHA} after Holm)."


def _samples(texts: Mapping[str, Sequence[Tree]]) -> list[Tree]:
    """The same items, as every agent's first seed writes them."""
    first = next(iter(texts.values()))
    return [
        {**{k: v for k, v in line.items() if k in ("index", "source", "references")}}
        | {"texts": {name: {k: found[i][k] for k in ("text", "scores")} for name, found in texts.items()}}
        for i, line in enumerate(first[:SHOWN])
    ]


def _plain(interval: Interval) -> Tree:
    return _without_nan({k: float(v) if k != "n" else v for k, v in interval._asdict().items()})  # type: ignore[no-any-return]


def _without_nan(tree: Any) -> Any:
    """JSON has no NaN: what is not known is null."""
    if isinstance(tree, dict):
        return {key: _without_nan(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_without_nan(value) for value in tree]
    return None if isinstance(tree, float) and np.isnan(tree) else tree


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def intervals(results: Tree) -> Iterator[tuple[str, str, str, Tree]]:
    """Every score of a comparison: task, agent, metric, interval."""
    for task in results["tasks"]:
        for agent in task["agents"]:
            for metric, score in agent["scores"].items():
                yield task["env"], agent["name"], metric, score
