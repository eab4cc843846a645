"""The tables of a comparison for the terminal, Markdown, CSV and the report."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlseq.compare.statistics import BESIDE_MEAN
from rlseq.compare.verdicts import ALPHA
from rlseq.metrics.registry import row_of
from rlseq.training.experiment_envs import number_tested
from rlseq.utils.files import Json

CUT = "†"  # at the end of an interval that the range of the metric has cut
CUT_SAYS = f" {CUT}: the interval ends at the smallest or largest possible value of the metric."
STOCK_SAYS = (
    " Of stable-baselines3's agents only settings that were given are listed; the others are its defaults."
)
LACKING = "–"  # in place of a value that there is not
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # characters with which a spreadsheet formula begins
# Control characters, halves of surrogate pairs, and controls of the direction of writing.
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")

_FIGURE = re.compile(r"\d+(?:[.,]\d+)*")


@dataclass(frozen=True)
class Table:
    """A table of text; the first column names the row."""

    name: str
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables(task: Json) -> list[Table]:
    """Return all tables of a task."""
    memorised = [table] if (table := memorised_by_agents(task)).rows else []
    return [scores(task), matrix(task), pairs(task), *memorised, costs(task), hyper_parameters(task)]


def scores(task: Json, statistics: Collection[str] = tuple(BESIDE_MEAN)) -> Table:
    """Return the reward of every agent, best first, and its difference from the best.

    Args:
        task: its results.
        statistics: those that are shown beside the mean.
    """
    agents = ranked(task)
    best = next((a["name"] for a in agents if a["name"] != "start"), "")
    beside = [name for name in statistics if name in agents[0]["scores"]["reward"]]
    rows = [
        [
            a["name"],
            interval(a["scores"]["reward"]),
            *(interval(a["scores"]["reward"][name]) for name in beside),
            str(a["scores"]["reward"]["n"]),
            _against(task, a["name"], best),
        ]
        for a in agents
    ]
    caption = (
        "Reward after training: the mean over seeds with its 95 % interval, by which agents are ranked and "
        f"tested{', and the interquartile mean (IQM)' if beside else ''}.{_cut_says(rows)} "
        f"Tested on {number_tested(task['selection'])}{task['tested_on']}."
    )
    headings = [BESIDE_MEAN[name][0] for name in beside]
    return Table("scores", caption, ["agent", "mean reward", *headings, "n", "against the best"], rows)


def matrix(task: Json) -> Table:
    """Return the metric that every agent was trained on, and its score on each metric."""
    agents = ranked(task)
    metrics = list(agents[0]["scores"])
    rows = [
        [
            a["name"],
            _trained(a),
            *(interval(a["scores"][m]) if m in a["scores"] else LACKING for m in metrics),
        ]
        for a in agents
    ]
    n = sorted({a["scores"]["reward"]["n"] for a in agents})
    caption = (
        "Agents trained on one metric and tested on all: means over seeds with 95 % intervals, "
        f"n = {' or '.join(map(str, n))} seeds. ↓: lower is better.{_cut_says(rows)}"
    )
    head = ["agent", "trained on", *(f"{m} ↓" if row_of(m).better == "lower" else m for m in metrics)]
    return Table("matrix", caption, head, rows)


def pairs(task: Json) -> Table:
    """Return the differences between every two agents."""
    rows = [
        [
            f"{p['a']} − {p['b']}",
            interval(p["difference"]),
            interval(p["probability"]),
            p_value(p["p_holm"]),
            p_value(p["p_permutation"]),
            p["better"] or "not shown",
            p_value(p["items"]["p_holm"]),
            f"{p['difference']['n']} / {p['items']['difference']['n']}",
        ]
        for p in sorted(task["pairs"], key=lambda p: (p["p_holm"] is None, p["p_holm"]))
    ]
    caption = (
        "Difference of mean rewards with Welch's interval for this pair alone, and the probability that a "
        "run of the first agent beats a run of the second. Over seeds (do the agents differ?): p-values of "
        "Welch's t-test with "
        f"Holm's correction and of a permutation test; an agent is better if both are at most {ALPHA}. Over "
        f"items (do these texts differ?): p-value with Holm's correction.{_cut_says(rows)}"
    )
    head = [
        *("pair", "difference", "P(first better)", "p, t-test", "p, permutation", "better"),
        *("p, items", "n runs / items"),
    ]
    return Table("pairs", caption, head, rows)


def memorised_by_agents(task: Json) -> Table:
    """Return how near samples of every agent are to training texts; no rows where none were compared."""
    found = [(a["name"], a["memorisation"]) for a in ranked(task) if a.get("memorisation")]
    rows = [
        [
            name,
            *(interval(m[key]) if m.get(key) else LACKING for key in ("copies", "nearest_rate")),
            different_texts(m["support"]),
            *(interval(m[key]) if m.get(key) else LACKING for key in ("held_out_copies", "held_out_rate")),
        ]
        for name, m in found
    ]
    known = f"{found[0][1]['known']:,}" if found else ""
    caption = (
        f"Samples of every agent, compared by edit distance with the references of {known} training items: "
        "the share that is word for word one of them, and the edits to the nearest one over its length, as "
        "means over seeds with 95 % intervals; and the same of held-out references. Samples that are nearer "
        "to training texts than these were memorised. Different texts: of how many, each as likely, the "
        f"samples would repeat each other as often (birthday estimate).{_cut_says(rows)}"
    )
    head = ["agent", "copies", "edits", "different texts", "copies, held-out", "edits, held-out"]
    return Table("memorisation", caption, head, rows)


def different_texts(support: float | None) -> str:
    """Return an estimate of the number of different texts; there is none where no two were equal."""
    return "no two equal" if support is None else f"{support:,.0f}"


def costs(task: Json) -> Table:
    """Return the costs of every agent."""
    rows = [
        [
            a["name"],
            f"{a['costs']['tokens']:,.0f}",
            f"{a['costs']['episodes']:,.0f}",
            f"{a['costs']['seconds']:,.1f}",
            f"{a['costs']['tokens_per_second']:,.0f}",
            str(len(a["seeds"])),
        ]
        for a in task["agents"]
    ]
    caption = (
        "Cost of a run, medians over seeds: tokens generated or imitated, episodes, and seconds of training."
    )
    return Table("costs", caption, ["agent", "tokens", "episodes", "seconds", "tokens/s", "n"], rows)


def hyper_parameters(task: Json) -> Table:
    """Return the hyper-parameters of every agent, those in which agents differ first."""
    agents = [a for a in task["agents"] if "settings" in a]
    names = list(dict.fromkeys(name for a in agents for name in a["settings"]))
    rows = [[name, *(_setting(a["settings"], name) for a in agents)] for name in names]
    rows.sort(key=lambda row: len({cell for cell in row[1:] if cell != LACKING}) <= 1)
    stock = any(a["algorithm"].startswith("sb3-") for a in agents)
    caption = (
        f"Hyper-parameters of every agent, those with different values first. {LACKING}: the agent has no "
        f"such setting.{STOCK_SAYS if stock else ''}"
    )
    return Table("settings", caption, ["setting", *(a["name"] for a in agents)], rows)


def _setting(settings: Mapping[str, Any], name: str) -> str:
    """Return the value of a setting in few characters."""
    return in_short(settings[name]) if name in settings else LACKING


def in_short(value: Any) -> str:
    """Return a setting as text: an object as `Sample(temperature=1.0)`, without fields that are None."""
    if isinstance(value, Mapping):
        parts = ", ".join(f"{n}={in_short(v)}" for n, v in value.items() if n != "class" and v is not None)
        return f"{value['class']}({parts})" if "class" in value else f"{{{parts}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(in_short, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def across(results: Json) -> Table:
    """Return the probability of improvement of every two agents over all tasks."""
    rows = [
        [f"{p['a']} − {p['b']}", interval(p["probability"]), str(p["probability"]["n"])]
        for p in sorted(results["across"], key=lambda p: -abs(p["probability"]["estimate"] - 0.5))
    ]
    caption = "The probability that a run of the first agent beats a run of the second, as a mean over tasks."
    return Table("across", caption, ["pair", "P(first better)", "n runs"], rows)


def ranked(task: Json) -> list[Any]:
    """Return the agents by reward, best first."""
    return sorted(task["agents"], key=lambda a: -a["scores"]["reward"]["estimate"])


def interval(value: Json) -> str:
    """Return an interval as `0.859 [0.822, 0.896]`, with marks where the range of the metric has cut it."""
    digits = 3 if abs(value["estimate"]) < 10 else 1
    if value["low"] is None:
        return f"{value['estimate']:.{digits}f} [?]"
    low, high = (f"{value[end]:.{digits}f}{CUT if end in value['cut'] else ''}" for end in ("low", "high"))
    return f"{value['estimate']:.{digits}f} [{low}, {high}]"


def _cut_says(rows: Sequence[Sequence[str]]) -> str:
    """Return the explanation of the mark, if a row has one."""
    return CUT_SAYS if any(CUT in cell for row in rows for cell in row[1:]) else ""


def visible(tree: Any) -> Any:
    """Return a tree with escapes in place of characters that change how other text is shown."""
    if isinstance(tree, str):
        return UNSEEN.sub(lambda m: m.group().encode("unicode_escape").decode(), tree)
    if isinstance(tree, Mapping):
        return {visible(key): visible(value) for key, value in tree.items()}
    return [visible(value) for value in tree] if isinstance(tree, (list, tuple)) else tree


def p_value(p: float | None) -> str:
    """Return a p-value with three digits, or as `< 0.001`."""
    return "?" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def markdown(results: Json) -> str:
    """Return all tables as Markdown."""
    results, text = visible(results), "# Comparison\n"
    for task in results["tasks"]:
        text += f"\n## {_inline(task['env'])}\n\n{_inline(task['verdict'])}\n"
        for remark in task["remarks"]:
            text += f"\n{_inline(remark)}\n"
        for alarm in alarms(task):
            text += f"\n⚠ {_inline(alarm)}\n"
        for table in tables(task):
            text += _markdown(table)
    if results["across"]:
        text += _markdown(across(results))
    for failure in results["failed"]:
        fence = max(re.findall("`{3,}", failure["error"]), key=len, default="``") + "`"
        text += f"\nFailed: {_inline(failure['run'])}\n\n{fence}\n{failure['error'].strip()}\n{fence}\n"
    return text


def as_markdown(paragraphs: Sequence[str], shown: Sequence[Table]) -> str:
    """Return a heading, paragraphs and tables as Markdown."""
    heading, *rest = map(_inline, paragraphs)
    return "\n".join([f"# {heading}\n", *(f"{text}\n" for text in rest), *map(_markdown, shown)])


def _inline(text: str) -> str:
    """Return a text as one line of Markdown, with its marks escaped."""
    escaped = re.sub(r"([\\`*|<>&#]|(?<!\w)_|_(?!\w)|(?<=\])(?=[(\[:])|!(?=\[))", r"\\\1", text)
    return " ".join(escaped.split())


def _markdown(table: Table) -> str:
    lines = [table.head, ["---", *["---:"] * (len(table.head) - 1)], *table.rows]
    lines[2:] = [list(map(_inline, line)) for line in table.rows]
    lines[0] = list(map(_inline, table.head))
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"\n{_inline(table.caption)}\n\n{body}\n"


def alarms(task: Json) -> list[str]:
    """Return a line for each kind of alarm, with the runs that it concerns.

    Alarms that differ in their figures only are of one kind, and the figures of the first are shown.
    """
    kinds: dict[str, dict[str, dict[str, list[str]]]] = {}  # without figures -> agent -> alarm -> seeds
    for agent in task["agents"]:
        for found in agent["alarms"]:
            kind = kinds.setdefault(_FIGURE.sub("0", found["alarm"]), {})
            kind.setdefault(agent["name"], {}).setdefault(found["alarm"], []).append(str(found["seed"]))
    return [_alarm(kind) for kind in kinds.values()]


def _alarm(kind: Mapping[str, Mapping[str, Sequence[str]]]) -> str:
    """Return the line of a kind of alarm."""
    runs = []
    for name, found in kind.items():
        seeds = [seed for several in found.values() for seed in several]
        runs.append(f"{name}, seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}")
    texts = list(dict.fromkeys(text for found in kind.values() for text in found))
    return f"{'; '.join(runs)}: {texts[0]}" + (" (figures of the first)" if len(texts) > 1 else "")


def spreadsheets(results: Json) -> dict[str, str]:
    """Return CSV files by name, with every number in a cell of its own."""
    results = visible(results)
    parts = ("estimate", "low", "high", "n")
    beside = [f"{name}_{part}" for name in BESIDE_MEAN for part in parts[:3]]
    score_rows: list[list[Any]] = [["task", "agent", "trained_on", "metric", *parts, "cut", *beside, "runs"]]
    pair_rows: list[list[Any]] = [
        [
            *("task", "a", "b", *(f"difference_{p}" for p in parts), *(f"probability_{p}" for p in parts)),
            *("p_seeds", "p_seeds_holm", "p_seeds_permutation", "better", "p_items", "p_items_holm", "items"),
        ]
    ]
    cost_rows: list[list[Any]] = [
        ["task", "agent", "tokens", "episodes", "seconds", "tokens_per_second", "n"]
    ]
    for task in results["tasks"]:
        for a in task["agents"]:
            cost_rows.append([task["env"], a["name"], *a["costs"].values(), len(a["seeds"])])
            for metric, s in a["scores"].items():
                more = [s.get(name, {}).get(part) for name in BESIDE_MEAN for part in parts[:3]]
                values = [*(s[p] for p in parts), " ".join(s["cut"]), *more]
                score_rows.append([task["env"], a["name"], a["reward"], metric, *values, str(s["runs"])])
        for p in task["pairs"]:
            numbers = [p[kind][part] for kind in ("difference", "probability") for part in parts]
            tests = [p[name] for name in ("p", "p_holm", "p_permutation", "better")]
            items = [p["items"]["p"], p["items"]["p_holm"], p["items"]["difference"]["n"]]
            pair_rows.append([task["env"], p["a"], p["b"], *numbers, *tests, *items])
    return {"scores": _csv(score_rows), "pairs": _csv(pair_rows), "costs": _csv(cost_rows)}


def rich_tables(results: Json) -> Any:
    """Return the scores and the verdict of every task for a terminal."""
    from rich.console import Group
    from rich.text import Text

    results = visible(results)
    shown: list[Any] = []
    for task in results["tasks"]:
        shown += [
            _Fitting([_drawn(task["env"], scores(task)), _drawn(task["env"], scores(task, ()))]),
            Text(task["verdict"], style="bold"),
            *map(Text, task["remarks"]),
            *(Text(f"⚠ {a}", style="yellow") for a in alarms(task)),
        ]
    shown += [Text(f"failed: {f['run']}: {_last_line(f['error'])}", "red") for f in results["failed"]]
    return Group(*shown)


def _drawn(title: str, table: Table) -> Any:
    """Return a table for a terminal."""
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(title=Text(title), caption=Text(table.caption))
    for i, name in enumerate(table.head):
        drawn.add_column(Text(name), justify="left" if i in (0, len(table.head) - 1) else "right")
    for row in table.rows:
        drawn.add_row(*map(Text, row))
    return drawn


@dataclass(frozen=True)
class _Fitting:
    """The first of several tables that is not wider than the terminal, or the last."""

    tables: Sequence[Any]

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        *wider, narrowest = self.tables
        wide = options.update(max_width=10_000)
        fits = (each for each in wider if console.measure(each, options=wide).maximum <= options.max_width)
        yield next(fits, narrowest)


def rich_samples(task: Json, shown: int = 5) -> Any:
    """Return the texts of every agent for some items, one below the other, for a terminal of any width.

    Texts that are not a reference of their item are red.

    Args:
        task: its results.
        shown: number of items.
    """
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    task = visible(task)
    drawn = RichTable(
        title="Sample outputs, first seed", box=box.SIMPLE, show_header=False, title_justify="left"
    )
    for justify in ("left", "left", "right"):
        drawn.add_column(justify=justify)
    for sample in task["samples"][:shown]:
        references = sample.get("references", [])
        given = [("source", sample["source"])] if "source" in sample else []
        for name, text in (*given, *(("wanted", text) for text in references[:1])):
            drawn.add_row(Text(name, "dim"), Text(text, "bold"), "")
        for name, written in sample["texts"].items():
            style = "red" if references and written["text"] not in references else ""
            drawn.add_row(Text(name), Text(written["text"], style), f"{written['scores']['reward']:.3f}")
        drawn.add_section()
    return drawn


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")


def _against(task: Json, name: str, best: str) -> str:
    """Return the result of the tests of an agent against the best."""
    if name == "start":
        return "common start"
    if name == best:
        return "best"
    pair = next(p for p in task["pairs"] if {p["a"], p["b"]} == {name, best})
    if pair["p_holm"] is None:
        return "?"
    p = _compared(max(pair["p_holm"], pair["p_permutation"]))
    return f"worse, p {p}" if pair["better"] == best else f"no difference shown, p {p}"


def _compared(p: float) -> str:
    return p_value(p) if p < 0.001 else f"= {p_value(p)}"


def _trained(agent: Json) -> str:
    return "references" if agent["algorithm"] == "mle" else str(agent["reward"])


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    safe = [[_unformulated(cell) for cell in row] for row in rows]
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerows(safe)
    return text.getvalue()


def _unformulated(cell: Any) -> Any:
    """Return a cell that no spreadsheet interprets as a formula; numbers stay numbers."""
    if cell is None:
        return ""
    if isinstance(cell, str) and (cell.startswith(FORMULA) or cell.lstrip().startswith(FORMULA)):
        return f"'{cell}"
    return cell
