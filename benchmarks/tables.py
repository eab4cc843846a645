"""Write the tables of the docs from the committed JSON, so that no number in them is typed.

    python benchmarks/tables.py [--check]

Fills every region between `<!-- table: NAME -->` and `<!-- end -->` in README.md and docs/*.md.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
REGION = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.S)


def markdown(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"


def origin(run: dict[str, Any]) -> str:
    """Where the numbers are from."""
    machine = run["machine"]
    place = (
        machine["gpu"] or f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads"
    )
    return f"\n`{run['command']}` at `{run['commit']}`, {place}, torch {machine['torch']}.\n"


def runs(pattern: str) -> list[dict[str, Any]]:
    """The JSON files of a benchmark."""
    return [json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob(f"{pattern}.json"))]


DOUBLED = {"cost_of_2T_over_T": "the time", "rollout": "the time", "compiled": "compiled"}


def throughput() -> str:
    """Every model and number of rows, and the rest of the run."""
    return "\n".join(_throughput(run) for run in runs("throughput-*"))


def _throughput(run: dict[str, Any]) -> str:
    results, text = run["results"], ""
    for model in ("lstm", "transformer"):
        lines = [line for line in results["writing"] if line["model"] == model]
        others = list(lines[0]["rollout_divided_by"])
        rows = []
        for line in lines:
            for ours, label in (("rollout", ""), ("compiled", ", compiled"), ("bfloat16", ", and bfloat16")):
                if f"{ours}_divided_by" not in line:  # a run from before there was a compiled rollout
                    continue
                ratios = [f"{line[f'{ours}_divided_by'][name]:.2f}×" for name in others]
                rows.append([f"{line['rows']}{label}", f"{line['tokens_per_second'][ours]:,}", *ratios])
        text += markdown([f"{model}, rows", "tokens/s", *(f"÷ {name}" for name in others)], rows) + "\n"
    done = results["completing"]
    slower = [
        f"{ratio:.1f}× the time of `complete`: {name}" for name, ratio in done["divided_by_complete"].items()
    ]
    text += f"Completing every prefix, {done['rows']:,} rows: " + "; ".join(slower[1:]) + ".\n"
    twice = results["doubling"]
    costs = [f"{twice[ours]:.2f}× {label}" for ours, label in DOUBLED.items() if ours in twice]
    text += f"Twice the length costs {', '.join(costs)}.\n\n"
    parts = ["rollout", "reward", "evaluate and backward", "optimiser"]
    rows = [
        [
            f"{line['model']}, {line['judge']}",
            f"{1e3 * line['seconds']:.0f}",
            *(f"{line[p]:.1%}" for p in parts),
        ]
        for line in results["training_step"]
    ]
    text += markdown([f"training step of {results['training_step'][0]['rows']} rows", "ms", *parts], rows)
    return text + origin(run)


def rewards() -> str:
    """The ratios, and the milliseconds by number of rows."""
    return "\n".join(_rewards(run) for run in runs("rewards-*"))


def _rewards(run: dict[str, Any]) -> str:
    results = run["results"]
    rows = []
    for name, found in results["ratios"].items():
        others = {who: ms for who, ms in found["ms"].items() if who != "rlseq"}
        best = min(others, key=lambda who: others[who])
        rows.append([name, f"{found['ms']['rlseq']:.1f}", f"{others[best]:.1f}", f"{found['ratio']:.2f}×"])
    head = [f"{results['rows']:,} × {results['references']}", "ms", "reference implementation, ms", "ratio"]
    return markdown(head, rows) + origin(run)


def completions() -> str:
    """Seconds of Monte-Carlo rewards, and their ratios."""
    text = ""
    for run in runs("completions"):
        found = run["results"]
        rows = [[name, f"{s:.2f}"] for name, s in found["seconds"].items()]
        ratios = [f"{key.replace('_', ' ')}: {value:.2f}" for key, value in found.items() if "divided" in key]
        text += (
            markdown([f"{found['texts']:,} texts", "seconds"], rows)
            + f"\n{'; '.join(ratios)}.\n"
            + origin(run)
        )
    return text


def oracle() -> str:
    """SeqGAN's benchmark: every method, means over seeds with their range."""
    text = ""
    for run in runs("oracle-*"):
        methods: dict[str, list[dict[str, Any]]] = {}
        for row in run["results"]["rows"]:
            name = row["method"] + (f" = {row['temperature']}" if "temperature" in row else "")
            methods.setdefault(name, []).append(row)
        lines = [[name, *_oracle_cells(found, run["results"]["rows"])] for name, found in methods.items()]
        head = [
            *(
                "method",
                "NLL_oracle",
                "NLL_test",
                "MLE's NLL_test there",
                "copies",
                "distinct",
                "Self-BLEU-4",
            ),
            *("tokens", "seconds", "alarms"),
        ]
        seeds = sorted({row["seed"] for row in run["results"]["rows"]})
        text += f"Entropy of the oracle: {run['results']['entropy']:.3f} nats per token. Seeds: {seeds}.\n\n"
        text += markdown(head, sorted(lines, key=lambda line: str(line[1]), reverse=True)) + origin(run)
    return text


def _oracle_cells(found: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[str]:
    def cell(name: str, form: str) -> str:
        values = [row[name] for row in found if row.get(name) is not None]
        if not values:
            return "∞" if name == "nll_test" else ""
        low, high = min(values), max(values)
        mean = format(sum(values) / len(values), form)
        return mean if low == high else f"{mean} ({low:{form}} … {high:{form}})"

    there = [on_the_curve(row, rows) for row in found]
    known = [value for value in there if value is not None]
    return [
        *(cell("nll_oracle", ".3f"), cell("nll_test", ".3f")),
        f"{sum(known) / len(known):.3f}" if len(known) == len(found) else "",
        *(cell("copies", ".1%"), cell("distinct", ".1%"), cell("self_bleu", ".1f")),
        *(cell("tokens", ",.0f"), cell("seconds", ".0f"), cell("alarms", ".0f")),
    ]


def on_the_curve(row: dict[str, Any], rows: list[dict[str, Any]]) -> float | None:
    """NLL_test of early-stopped likelihood at the temperature that gives the same NLL_oracle; same seed."""
    curve = sorted(
        (r["nll_oracle"], r["nll_test"])
        for r in rows
        if r["seed"] == row["seed"] and r["method"].startswith("mle, stopped early")
    )
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x0 <= row["nll_oracle"] <= x1:
            return float(y0 + (y1 - y0) * (row["nll_oracle"] - x0) / (x1 - x0))
    return None


def solve_copy() -> str:
    """Seconds of REINFORCE to 0.95; PPO's first and last reward."""
    text = ""
    for run in runs("solve-copy"):
        ours, theirs = run["results"]["reinforce"], run["results"]["sb3_ppo"]
        rows = [
            [a["seed"], a["seconds_to_0.95"], f"{b['first']:.2f} → {b['last']:.2f}"]
            for a, b in zip(ours, theirs, strict=True)
        ]
        head = [
            "seed",
            "REINFORCE: seconds to a greedy reward of 0.95",
            "SB3 PPO: mean episode reward in a minute",
        ]
        text += markdown(head, rows) + origin(run)
    return text


def coverage() -> str:
    """How often 95 % intervals hold the truth at few seeds."""
    text = ""
    for run in runs("coverage"):
        results = run["results"]
        rows = []
        for line in results["iqm"]:
            if line["scores"] == "normal":
                n = line["seeds"]
                found = {
                    p["effect_in_sd"]: p for p in results["probability_of_improvement"] if p["seeds"] == n
                }
                equal = next(w for w in results["welch"] if w["scores"] == "normal" and w["seeds"] == n)
                pairs = [line, found[1.0], found[2.0]]
                cells = [f"{p['held']:.1%} / {p['percentile_bootstrap']:.1%}" for p in pairs]
                rows.append([n, *cells, f"{equal['equal_differ']:.1%}", f"{equal['found']:.0%}"])
        head = [
            "seeds",
            "IQM: ours / percentile bootstrap",
            "P(improvement), 1 SD apart",
            "P(improvement), 2 SD apart",
            "Welch: equal agents told apart",
            "Welch: 2 SD found",
        ]
        text += markdown(head, rows) + origin(run)
    return text


def demo() -> str:
    """Reward of every agent of the demonstration."""
    text = ""
    for run in runs("demo"):
        rows = [
            [a["agent"], *(_interval(a[name]) for name in ("reward", "exact")), a["reward"]["n"]]
            for a in run["results"]["agents"]
        ]
        text += markdown(["agent", "letters right", "whole texts right", "seeds"], rows)
        text += (
            f"\n{run['results']['verdict']} {run['results']['seconds']:.0f} seconds. "
            + origin(run).strip()
            + "\n"
        )
    return text


def _interval(value: dict[str, float]) -> str:
    return f"{value['estimate']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"


def loading() -> str:
    """CPU seconds to make a task of files, the first time and from the cache."""
    text = ""
    for run in runs("loading"):
        rows = [
            [
                name,
                f"{found['first']['seconds_to_make']:.1f}",
                f"{found['again']['seconds_to_make']:.2f}",
                f"{found['again']['seconds_to_first_reward']:.1f}",
                found["first"]["peak_mb"],
            ]
            for name, found in run["results"].items()
        ]
        head = [
            "data",
            "first made, CPU s",
            "made again, CPU s",
            "first reward (metric fitted), CPU s",
            "peak memory, MB",
        ]
        text += markdown(head, rows) + origin(run)
    return text


def tasks() -> str:
    """Greedy reward on held-out items after each stage, and what the last policy writes."""
    text = ""
    for run in runs("tasks"):
        found = run["results"]["tasks"]
        rows = [
            [f"`{id}`", *(f"{stage['reward']:.3f}" for stage in task["stages"].values())]
            for id, task in found.items()
        ]
        text += markdown(["reward on held-out items", "untrained", "likelihood", "REINFORCE"], rows)
        seconds = run["results"]["seconds_of_each_stage"]
        text += f"\n{seconds} CPU seconds a stage, not tuned. " + origin(run).strip() + "\n\n"
        rows = [[f"`{id}`", *sample] for id, task in found.items() for sample in task["samples"]]
        text += markdown(["task", "source", "a reference", "written"], rows)
    return text


def learning() -> str:
    """What every agent gained on the likelihood that it started from, at equal tokens."""
    text = ""
    for run in runs("learning"):
        rows = [
            [
                line["agent"],
                line["lr"],
                f"{sum(line['after']) / len(line['after']):.3f}",
                "{mean:+.3f} [{low:+.3f}, {high:+.3f}]".format(**line["gain"]),
                line["gain"]["n"],
            ]
            for line in run["results"]["agents"]
        ]
        text += markdown(["agent", "lr", "reward after", "gain, 95 %", "seeds"], rows) + origin(run)
    return text


def variance() -> str:
    """Variance of every estimator on both tasks, and its bias."""
    text = ""
    for run in runs("variance"):
        rows = []
        for name, found in run["results"]["estimators"].items():
            alike, apart = found["alike"], found["apart"]
            bias = "not enumerated" if "bias" not in alike else _bias(alike["bias"])
            off = "–" if alike["off"] is None else f"{alike['off']:+.1f}"
            rows.append([name, alike["samples"], f"{alike['ratio']:.3f}", f"{apart['ratio']:.3f}", bias, off])
        head = ["estimator", "samples", "variance, alike", "variance, apart", "bias", "off"]
        text += markdown(head, rows) + origin(run)
    return text


def _bias(bias: float) -> str:
    """Rounding is no bias."""
    return "0" if bias < 5e-6 else f"{bias:.1e}" if bias < 0.001 else f"{bias:.0%}"


def control() -> str:
    """Scores of all seeds beside those of stable-baselines3, and how much less time was spent."""
    return "".join(_control(run) for run in runs("control"))


def _control(run: dict[str, Any]) -> str:
    rows = []
    for name, found in run["results"].items():
        ours, theirs = found.get("rlseq", []), found.get("sb3", [])
        rows.append(
            [
                f"{name}, {found['steps']:,} steps",
                f"{found['solved']:g}",
                *(", ".join(f"{one['score']:.0f}" for one in each) or "–" for each in (ours, theirs)),
                *(_ratio(theirs, ours, which) for which in ("processor", "seconds")),
            ]
        )
    head = ["", "solved", "rlseq", "stable-baselines3", "processor time", "clock"]
    return markdown(head, rows) + origin(run)


def _ratio(theirs: list[dict[str, Any]], ours: list[dict[str, Any]], which: str) -> str:
    """Of seconds, seed by seed; a dash where they were not measured."""
    pairs = [(a[which], b[which]) for a, b in zip(theirs, ours, strict=False) if which in a and which in b]
    return f"{sum(a for a, _ in pairs) / sum(b for _, b in pairs):.2f}×" if pairs else "–"


def captions() -> str:
    """Rows by what was trained on, columns by metric; the best of each in bold."""
    text = ""
    for run in runs("captions"):
        found = run["results"]
        names = list(found["columns"])
        best = {
            name: (min if "distance" in name else max)(row[name] for row in found["rows"].values())
            for name in names
        }
        rows = [
            [trained, *(_best(row[name], best[name]) for name in names), f"{row['length']:.1f}"]
            for trained, row in found["rows"].items()
        ]
        text += markdown(["trained on", *found["columns"].values(), "words"], rows)
        seconds = ", ".join(f"{name} {value:.0f}" for name, value in found["seconds"].items())
        text += f"\nSeconds of each stage: {seconds}. " + origin(run).strip() + "\n"
    return text


def _best(value: float, best: float) -> str:
    return f"**{value:.3f}**" if value == best else f"{value:.3f}"


TABLES: dict[str, Callable[[], str]] = {
    "completions": completions,
    "captions": captions,
    "control": control,
    "coverage": coverage,
    "demo": demo,
    "learning": learning,
    "loading": loading,
    "oracle": oracle,
    "rewards": rewards,
    "solve-copy": solve_copy,
    "tasks": tasks,
    "throughput": throughput,
    "variance": variance,
}


def filled(page: str) -> str:
    """A page with its regions written anew."""
    return REGION.sub(lambda m: m.group(1) + TABLES[m.group(2)]() + m.group(3), page)


def main() -> int:
    """Fill all pages; with --check only say which are not what the results say."""
    stale = 0
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        page = path.read_text("utf-8")
        if filled(page) == page:
            continue
        stale += 1
        if "--check" in sys.argv:
            print(f"{path.relative_to(ROOT)} is not what benchmarks/results says; run benchmarks/tables.py")
        else:
            path.write_text(filled(page), encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    return stale if "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
