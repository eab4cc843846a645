"""The report of a single run: a page, the same tables as Markdown, and a summary for the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlseq.compare.figures import PALETTE, Curve, inline, plotted
from rlseq.compare.report import template
from rlseq.compare.tables import LACKING, STOCK_SAYS, Table, as_markdown, different_texts, in_short, visible
from rlseq.mdp.registry import ids, task_class
from rlseq.metrics.registry import row_of
from rlseq.training.experiment_envs import number_tested, tested_on
from rlseq.training.fingerprint import configuration
from rlseq.training.run_folder import read_metrics, read_results, read_run
from rlseq.utils.files import Damaged, Json, read_sealed, write_whole
from rlseq.utils.imports import import_modules

ROUNDING = 1e-9  # metrics that are not 0 but smaller throughout a run are not drawn
MOST_POINTS = 300  # points of a line; of longer runs, means of neighbouring updates
ITEMS_SHOWN = 50  # items whose texts are in the page
EVALUATIONS_SHOWN = 8  # evaluations whose texts are in the page: the first, the last, and some between
DIVERSITY = ("repetition", "distinct_2", "commonness", "peakiness", "self_bleu")


class Panel(NamedTuple):
    """A figure of the page: its title, its explanation, and the metrics in it by the name of their line."""

    title: str
    text: str
    names: Mapping[str, str]


REWARD = Panel(
    "Reward",
    "Mean reward of the texts in tests, and of the samples in training.",
    {"test": "eval_reward", "training": "reward"},
)
PANELS = (
    Panel("Likelihood", "Negative log-likelihood of references, nats per token.", {"nll": "nll"}),
    Panel(
        "Entropy",
        "Entropy of the policy, nats per token. Near 0, nothing new is sampled.",
        {"entropy": "entropy"},
    ),
    Panel(
        "Divergence (KL)",
        "Distance of the policy from another one, nats per token.",
        {
            "from the start": "kl_start",
            "from the reference policy": "kl_reference",
            "from the policy that sampled": "kl_behaviour",
        },
    ),
    Panel("Length", "Mean length of a text or an episode.", {"test": "eval_length", "training": "length"}),
    Panel("Gradient norm", "Norm of the gradient before clipping.", {"gradient norm": "grad_norm"}),
    Panel(
        "Groups with equal rewards",
        "Share of contexts whose texts all have the same reward, so that they give no gradient.",
        {"share": "equal_groups"},
    ),
    Panel(
        "Samples above the greedy text",
        "Share of samples with a higher reward than the greedy text of their context.",
        {"share": "beats_greedy"},
    ),
    Panel("Loss", "The loss that is minimised.", {"loss": "loss"}),
    Panel(
        "Diversity",
        "Of the texts in tests; self-BLEU is divided by 100.",
        {name.replace("_", " "): f"eval_{name}" for name in DIVERSITY},
    ),
)


@dataclass(frozen=True)
class RunReport:
    """The content of a run: configuration, results, metrics of every update, alarms and texts."""

    folder: Path
    run: Json
    config: Json
    results: Json
    rows: Sequence[Mapping[str, float]]
    alarms: Sequence[str]
    first: Mapping[str, float]  # scores before training, where they were measured
    texts: Mapping[int, Sequence[Json]]  # of evaluations, by update
    memorised: Json  # samples beside training texts; empty where they were not compared

    @classmethod
    def load(cls, folder: str | PathLike[str]) -> RunReport:
        """Return the report of the run in a folder."""
        path = Path(folder)
        if not (path / "results.json").exists():
            raise ValueError(f"{path} has no results yet: they are written at the first evaluation")
        config, results, run = configuration(path), read_results(path), read_run(path)
        import_modules(run.get("imports", ()))
        alarms, first, memorised = (path / f"{n}.json" for n in ("alarms", "start", "memorisation"))
        rows = read_metrics(path, results)
        return cls(
            path,
            run,
            config,
            results,
            rows,
            read_sealed(alarms)["alarms"] if alarms.exists() else [],
            read_sealed(first) if first.exists() else {},
            _texts(path / "samples", [int(row["update"]) for row in rows if "eval_reward" in row]),
            read_sealed(memorised) if memorised.exists() else {},
        )

    @property
    def tests(self) -> list[dict[str, float]]:
        """The scores of every evaluation, with the update that it followed."""
        return [
            {"update": row["update"], **{n[5:]: v for n, v in row.items() if n.startswith("eval_")}}
            for row in self.rows
            if "eval_reward" in row
        ]

    @property
    def units(self) -> tuple[str, str]:
        """The names of a step and of an episode: those of texts, or of another environment."""
        return ("tokens", "texts") if "vocab" in self.config["env"] else ("steps", "episodes")

    @property
    def title(self) -> str:
        """The names of the agent and of the task."""
        return f"{self.run['agent']} on {self.run['env'] or self.config['env'].get('class', 'a task')}"

    def summary(self) -> str:
        """Return a sentence: how the reward in tests has changed, and how the run ended."""
        tests = [*([{"update": 0, **self.first}] if self.first else []), *self.tests]
        ended = {"finished": "", "running": " (not finished yet)"}.get(
            self.results["status"], f" ({self.results['status']})"
        )
        updates = f"{self.results['updates']:,} update{'s' * (self.results['updates'] != 1)}"
        spent = f"{updates} and {self.results['tokens']:,} {self.units[0]}{ended}"
        if not tests:
            return f"{spent}; the policy was never tested."
        begun, end = tests[0], tests[-1]
        since = "before training" if self.first else f"at update {begun['update']:,.0f}"
        if begun is end:
            return f"The reward in tests is {end['reward']:.3f} after {spent}."
        if begun["reward"] == end["reward"]:
            return f"The reward in tests is {end['reward']:.3f} after {spent}, as {since}."
        verb = "rose" if end["reward"] > begun["reward"] else "fell"
        return (
            f"The reward in tests {verb} from {begun['reward']:.3f} {since} to {end['reward']:.3f} "
            f"after {spent}."
        )

    def scores(self) -> Table:
        """Return the scores of the first, the best and the last evaluation."""
        tests, best = self.tests, self.results["best"]
        columns: list[tuple[str, Mapping[str, float]]] = []
        if self.first:
            columns.append(("before training", self.first))
        if tests:
            columns.append((f"update {tests[0]['update']:,.0f}", tests[0]))
            columns += [
                (f"update {test['update']:,.0f} (best)", test)
                for test in tests[1:-1]
                if best and test["update"] == best["update"]
            ]
        if len(tests) > 1:
            columns.append((f"update {tests[-1]['update']:,.0f}", tests[-1]))
        names = [name for name in (tests[-1] if tests else self.first) if name != "update"]
        rows = [
            [f"{name} ↓" if row_of(name).better == "lower" else name, *(_score(c, name) for _, c in columns)]
            for name in names
        ]
        selection, id = self.results["selection"], self.run["env"]
        kind = tested_on(id) if id in ids() else "items"
        items = f" Tested on {number_tested(selection)}{kind}." if selection else ""
        arrow = " ↓: lower is better." if any(row[0].endswith("↓") for row in rows) else ""
        caption = f"Scores in tests, means over {self.units[1]}.{arrow}{items}"
        return Table("scores", caption, ["metric", *(name for name, _ in columns)], rows)

    def memorisation(self) -> list[Table]:
        """Return the tables of samples beside training texts; none where they were not compared."""
        return [memorisation_figures(self.memorised), nearest_texts(self.memorised)] if self.memorised else []

    def settings(self) -> Table:
        """Return the settings of agent, task and policy, a row each."""
        policy = self.config["policy"]
        size = sum(int(np.prod(shape)) for shape in policy["parameters"].values())
        named = {"policy": f"{policy['class']}, {size:,} parameters"}
        stock = self.run["algorithm"].startswith("sb3-")
        agent = {"class": self.run["algorithm"], **self.run["hyper"]} if stock else self.config["agent"]
        rows = [
            *(["agent", name, in_short(value)] for name, value in agent.items()),
            *(["policy", name, in_short(value)] for name, value in {**named, **self.run["sizes"]}.items()),
            *(["task", name, in_short(value)] for name, value in _of_task(self.run, self.config).items()),
            *(["run", name, in_short(self.run[name])] for name in _of_run(self.run)),
        ]
        return Table(
            "settings",
            f"All settings of the run, defaults included.{STOCK_SAYS if stock else ''}",
            ["of", "setting", "value"],
            rows,
        )

    def save(self, folder: str | PathLike[str] | None = None) -> Path:
        """Write `report.html` and `tables.md`; return the path of the page."""
        place = Path(folder or self.folder)
        write_whole(place / "report.html", run_page(self).encode())
        write_whole(place / "tables.md", run_markdown(self).encode())
        return place / "report.html"

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.table import Table as RichTable
        from rich.text import Text

        table = visible(self.scores().__dict__)
        drawn = RichTable(caption=Text(table["caption"]))
        for i, name in enumerate(table["head"]):
            drawn.add_column(Text(name), justify="right" if i else "left")
        for row in table["rows"]:
            drawn.add_row(*map(Text, row))
        alarms = (Text(f"⚠ {visible(alarm)}", style="yellow") for alarm in self.alarms)
        return Group(Text(visible(f"{self.title}\n{self.summary()}"), style="bold"), drawn, *alarms)


def run_page(report: RunReport) -> str:
    """Return the page as self-contained HTML: it makes no network requests."""
    settings = report.settings()
    shown: str = template("run.html").render(
        **visible(
            {
                "results": report.results,
                "summary": report.summary(),
                "alarms": list(report.alarms),
                "samples": _samples(report.texts),
                "steps": report.units[0],
                "machine": json.dumps(report.config["machine"], indent=2),
                "command": report.config["command"],
            }
        ),
        title=visible(report.title),
        scores=_visible_table(report.scores()),
        memorisation=[_visible_table(table) for table in report.memorisation()],
        settings=_visible_table(settings),
        panels=visible(_panels(report.rows)),
        pictures=_pictures(report),
        shortened=len(report.rows) > MOST_POINTS,
    )
    return shown


def run_markdown(report: RunReport) -> str:
    """Return the summary, the alarms and the tables as Markdown."""
    alarms = [f"⚠ {alarm}" for alarm in report.alarms]
    tables = [report.scores(), *report.memorisation(), report.settings()]
    paragraphs = visible([report.title, report.summary(), *alarms])
    return as_markdown(paragraphs, [_visible_table(table) for table in tables])


def _visible_table(table: Table) -> Table:
    return Table(**visible(vars(table)))


def _score(scores: Mapping[str, float], name: str) -> str:
    """Return a score as text, a dash where an evaluation lacks it."""
    return f"{scores[name]:.3f}" if name in scores else "–"


def memorisation_figures(found: Json) -> Table:
    """Return how near samples are to training texts, beside the same of held-out references."""
    known = f"{found['known']:,}" + (f" of {found['items']:,}" if found["known"] < found["items"] else "")
    caption = (
        f"{found['samples']:,} samples, compared by edit distance with the references of {known} training "
        "items. Samples that are nearer to them than held-out references are were memorised. Different "
        "texts: of how many, each as likely, so many samples would repeat each other as often (birthday "
        "estimate)."
    )
    rows = [
        ["word for word a training text", *map(_figure, (found["copies"], found["held_out_copies"]))],
        ["edits to the nearest / its length", *map(_figure, (found["nearest_rate"], found["held_out_rate"]))],
        ["different texts", different_texts(found["support"]), LACKING],
    ]
    return Table("memorisation", caption, ["", "samples", "held-out references"], rows)


def nearest_texts(found: Json) -> Table:
    """Return the samples that are nearest to a training text."""
    rows = [[each["text"] or "∅", each["nearest"], str(each["distance"])] for each in found["nearest"]]
    caption = "The samples that are nearest to a training text, and that text."
    return Table("nearest", caption, ["sample", "training text", "edits"], rows)


def _figure(value: float | None) -> str:
    return LACKING if value is None else f"{value:.3f}"


def _of_task(run: Json, config: Json) -> dict[str, Any]:
    """Return the settings of a task: its id and options, and its sizes."""
    env = config["env"]
    sizes = {name: env[name] for name in ("num_envs", "max_len", "items") if name in env}
    return {
        "id": run["env"] or env.get("class", ""),
        **sizes,
        "reward": env.get("reward", {}),
        **run["options"],
    }


def _of_run(run: Json) -> Iterable[str]:
    """Yield the settings of a run that are neither of its agent nor of its task or policy."""
    shown = (
        *("budget_tokens", "evaluations", "texts", "metrics", "seed", "imports", "reward"),
        *("curriculum", "curiosity", "shaping"),
    )
    return (name for name in shown if run.get(name) not in (None, [], {}))


# ── figures ──────────────────────────────────────────────────────────────────────────────────────────────


def _panels(rows: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    """Return title, explanation, legend and figure of every panel of which there are metrics."""
    shown = [
        (panel, [line for line in _lines(rows, panel.names) if line.y and not _is_rounding(line.y)])
        for panel in (REWARD, *_own_metrics(rows), *PANELS)
    ]
    return [
        {
            "title": panel.title,
            "text": panel.text,
            "legend": [(line.name, line.colour) for line in lines] if len(panel.names) > 1 else [],
            "figure": inline(plotted(lines, "updates"), f"{panel.title} by update", lines, "updates"),
        }
        for panel, lines in shown
        if lines
    ]


def _is_rounding(values: Sequence[float]) -> bool:
    """Return whether values would be 0 without rounding errors, such as the KL from the sampling policy."""
    return 0 < max(map(abs, values)) < ROUNDING


def _own_metrics(rows: Sequence[Mapping[str, float]]) -> list[Panel]:
    """Return a panel for each metric of the task that is not the reward again."""
    tests = [row for row in rows if "eval_reward" in row]
    names = dict.fromkeys(name[5:] for row in tests for name in row if name.startswith("eval_"))
    own = [name for name in names if name not in (*DIVERSITY, "reward", "length")]
    return [
        Panel(name, f"Mean of the metric {name} in tests.", {"test": f"eval_{name}"})
        for name in own
        if any(row.get(f"eval_{name}") != row["eval_reward"] for row in tests)
    ]


def _lines(rows: Sequence[Mapping[str, float]], names: Mapping[str, str]) -> list[Curve]:
    """Return the lines of some metrics, with the finite values that the updates have of them."""
    scale = {"eval_self_bleu": 0.01}
    lines = []
    for place, (name, key) in enumerate(names.items()):
        found = [(row["update"], row[key] * scale.get(key, 1.0)) for row in rows if key in row]
        found = [(x, y) for x, y in found if np.isfinite(y)]
        x, y = _shortened(found)
        lines.append(Curve(name, PALETTE[place % len(PALETTE)], x, y))
    return lines


def _shortened(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Return the coordinates of points; of many, the means of neighbours."""
    groups = np.array_split(np.array(points).reshape(-1, 2), min(len(points), MOST_POINTS) or 1)
    means = [group.mean(0) for group in groups if len(group)]
    return [float(x) for x, _ in means], [float(y) for _, y in means]


# ── texts ────────────────────────────────────────────────────────────────────────────────────────────────


def _texts(folder: Path, updates: Sequence[int]) -> dict[int, list[Json]]:
    """Return the first texts of some evaluations, spread over the run."""
    there = [update for update in updates if (folder / f"{update:08d}.jsonl").exists()]
    places = np.linspace(0, len(there) - 1, min(len(there), EVALUATIONS_SHOWN)).round().astype(int)
    return {there[place]: _read_texts(folder / f"{there[place]:08d}.jsonl") for place in places}


def _read_texts(path: Path) -> list[Json]:
    """Return the first lines of a file of samples."""
    try:
        lines = path.read_text("utf-8").split("\n")[:ITEMS_SHOWN]
        return [json.loads(line) for line in lines if line]
    except ValueError as error:
        raise Damaged(f"{path} cannot be read ({error}); delete it to write the report without it") from error


def _pictures(report: RunReport) -> dict[tuple[int, int], str]:
    """Return pictures of the last texts as SVG, by update and item, for tasks that draw some."""
    id = report.run["env"]
    draw = getattr(task_class(id), "picture", None) if id in ids() else None
    if draw is None or not report.texts:
        return {}
    update = max(report.texts)
    lines = report.texts[update]
    return {(update, line["index"]): draw(line.get("source", ""), line["text"]) for line in lines}


def _samples(texts: Mapping[int, Sequence[Json]]) -> list[dict[str, Any]]:
    """Return each item with its texts by update; the items of all evaluations are the same."""
    if not texts:
        return []
    last = texts[max(texts)]
    by_item = {update: {line["index"]: line for line in lines} for update, lines in texts.items()}
    return [
        {
            **{name: line[name] for name in ("index", "source", "references") if name in line},
            "texts": [
                {
                    "update": update,
                    "text": lines[line["index"]]["text"],
                    "reward": lines[line["index"]]["scores"]["reward"],
                }
                for update, lines in by_item.items()
                if line["index"] in lines
            ],
        }
        for line in last
    ]
