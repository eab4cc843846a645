"""The tables of a comparison, once, for the terminal, Markdown, CSV and the report."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlseq.compare.tasks import number_tested
from rlseq.monitors import LOWER_IS_BETTER

Tree = Mapping[str, Any]
ALPHA = 0.05


@dataclass(frozen=True)
class Table:
    """Cells as text, the first column naming the row."""

    name: str
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables(task: Tree) -> list[Table]:
    """All tables of a task."""
    return [scores(task), matrix(task), pairs(task), costs(task)]


def scores(task: Tree) -> Table:
    """Reward of every agent, best first, and what is known about the difference from the best."""
    agents = ranked(task)
    best = next((a["name"] for a in agents if a["name"] != "start"), "")
    rows = [
        [
            a["name"],
            interval(a["scores"]["reward"]),
            str(a["scores"]["reward"]["n"]),
            _against(task, a["name"], best),
        ]
        for a in agents
    ]
    caption = (
        "Reward after training: interquartile mean over seeds, and its 95 % interval. "
        f"Tested on {number_tested(task['selection'])}{task['tested_on']}."
    )
    return Table("scores", caption, ["agent", "reward", "n", "against the best"], rows)


def matrix(task: Tree) -> Table:
    """What every agent was trained on, and what it scores on everything."""
    agents = ranked(task)
    metrics = list(agents[0]["scores"])
    rows = [
        [a["name"], _trained(a), *(interval(a["scores"][m]) if m in a["scores"] else "–" for m in metrics)]
        for a in agents
    ]
    n = sorted({a["scores"]["reward"]["n"] for a in agents})
    caption = (
        "Trained on one metric, tested on all: interquartile means and 95 % intervals, "
        f"n = {' or '.join(map(str, n))} seeds. ↓: lower is better."
    )
    head = ["agent", "trained on", *(f"{m} ↓" if m in LOWER_IS_BETTER else m for m in metrics)]
    return Table("matrix", caption, head, rows)


def pairs(task: Tree) -> Table:
    """Every two agents."""
    rows = [
        [
            f"{p['a']} − {p['b']}",
            interval(p["difference"]),
            interval(p["probability"]),
            p_value(p["p_holm"]),
            p_value(p["items"]["p_holm"]),
            f"{p['difference']['n']} / {p['items']['difference']['n']}",
        ]
        for p in sorted(task["pairs"], key=lambda p: (p["p_holm"] is None, p["p_holm"]))
    ]
    caption = (
        "Difference of mean rewards (Welch), probability that a run of the first beats one of the second, "
        "and p-values after Holm: over seeds (are the agents different?) and over items (are these texts?)."
    )
    head = ["pair", "difference", "P(first better)", "p, seeds", "p, items", "n runs / items"]
    return Table("pairs", caption, head, rows)


def costs(task: Tree) -> Table:
    """What every agent used."""
    rows = [
        [
            a["name"],
            f"{a['costs']['tokens']:,.0f}",
            f"{a['costs']['judged']:,.0f}",
            f"{a['costs']['seconds']:,.1f}",
            f"{a['costs']['tokens_per_second']:,.0f}",
            str(len(a["seeds"])),
        ]
        for a in task["agents"]
    ]
    caption = (
        "Cost of a run, medians over seeds: tokens written or imitated, texts judged, seconds of training."
    )
    return Table("costs", caption, ["agent", "tokens", "texts judged", "seconds", "tokens/s", "n"], rows)


def across(results: Tree) -> Table:
    """Every two agents, over all tasks."""
    rows = [
        [f"{p['a']} − {p['b']}", interval(p["probability"]), str(p["probability"]["n"])]
        for p in sorted(results["across"], key=lambda p: -abs(p["probability"]["estimate"] - 0.5))
    ]
    caption = (
        "Over all tasks: the probability that a run of the first beats one of the second, mean over tasks."
    )
    return Table("across", caption, ["pair", "P(first better)", "n runs"], rows)


def ranked(task: Tree) -> list[Any]:
    """Agents by reward, best first."""
    return sorted(task["agents"], key=lambda a: -a["scores"]["reward"]["estimate"])


def interval(value: Tree) -> str:
    """`0.859 [0.822, 0.896]`."""
    digits = 3 if abs(value["estimate"]) < 10 else 1
    if value["low"] is None:
        return f"{value['estimate']:.{digits}f} [?]"
    return f"{value['estimate']:.{digits}f} [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"


def p_value(p: float | None) -> str:
    """Three digits, or that it is smaller."""
    return "?" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def markdown(results: Tree) -> str:
    """All tables, as Markdown."""
    text = "# Comparison\n"
    for task in results["tasks"]:
        text += f"\n## {task['env']}\n\n{task['verdict']}\n"
        for alarm in alarms(task):
            text += f"\n⚠ {alarm}\n"
        for table in tables(task):
            text += _markdown(table)
    if results["across"]:
        text += _markdown(across(results))
    for failure in results["failed"]:
        text += f"\nFailed: {failure['run']}\n\n```\n{failure['error'].strip()}\n```\n"
    return text


def _markdown(table: Table) -> str:
    lines = [table.head, ["---", *["---:"] * (len(table.head) - 1)], *table.rows]
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"\n{table.caption}\n\n{body}\n"


def alarms(task: Tree) -> list[str]:
    """Which agents may have exploited their reward, in words."""
    return [f"{a['name']}, seed {x['seed']}: {x['alarm']}" for a in task["agents"] for x in a["alarms"]]


def spreadsheets(results: Tree) -> dict[str, str]:
    """CSV files by name, with every number in a cell of its own."""
    parts = ("estimate", "low", "high", "n")
    score_rows: list[list[Any]] = [["task", "agent", "trained_on", "metric", *parts, "runs"]]
    pair_rows: list[list[Any]] = [
        [
            *("task", "a", "b", *(f"difference_{p}" for p in parts), *(f"probability_{p}" for p in parts)),
            *("p_seeds", "p_seeds_holm", "p_items", "p_items_holm", "items"),
        ]
    ]
    cost_rows: list[list[Any]] = [["task", "agent", "tokens", "judged", "seconds", "tokens_per_second", "n"]]
    for task in results["tasks"]:
        for a in task["agents"]:
            cost_rows.append([task["env"], a["name"], *a["costs"].values(), len(a["seeds"])])
            for metric, s in a["scores"].items():
                values = [s[p] for p in parts]
                score_rows.append(
                    [task["env"], a["name"], a["reward"], metric, *values, " ".join(map(str, s["runs"]))]
                )
        for p in task["pairs"]:
            numbers = [p[kind][part] for kind in ("difference", "probability") for part in parts]
            items = [p["items"]["p"], p["items"]["p_holm"], p["items"]["difference"]["n"]]
            pair_rows.append([task["env"], p["a"], p["b"], *numbers, p["p"], p["p_holm"], *items])
    return {"scores": _csv(score_rows), "pairs": _csv(pair_rows), "costs": _csv(cost_rows)}


def rich_tables(results: Tree) -> Any:
    """The scores and the verdict of every task, for a terminal."""
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    shown: list[Any] = []
    for task in results["tasks"]:
        table = scores(task)
        drawn = RichTable(title=task["env"], caption=table.caption)
        for i, name in enumerate(table.head):
            drawn.add_column(name, justify="left" if i in (0, 3) else "right")
        for row in table.rows:
            drawn.add_row(*map(Text, row))
        shown += [
            drawn,
            Text(task["verdict"], style="bold"),
            *(Text(f"⚠ {a}", style="yellow") for a in alarms(task)),
        ]
    shown += [
        Text(f"failed: {f['run']}: {f['error'].strip().splitlines()[-1]}", "red") for f in results["failed"]
    ]
    return Group(*shown)


def _against(task: Tree, name: str, best: str) -> str:
    """What is known about an agent and the best."""
    if name == "start":
        return "where all started"
    if name == best:
        return "best"
    p = next(p["p_holm"] for p in task["pairs"] if {p["a"], p["b"]} == {name, best})
    return (
        "?"
        if p is None
        else f"worse, p {_compared(p)}"
        if p <= ALPHA
        else f"no difference known, p {_compared(p)}"
    )


def _compared(p: float) -> str:
    return p_value(p) if p < 0.001 else f"= {p_value(p)}"


def _trained(agent: Tree) -> str:
    return "references" if agent["algorithm"] == "mle" else str(agent["reward"])


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
