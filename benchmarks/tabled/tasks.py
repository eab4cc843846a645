"""Of tasks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from tasks import DESCRIBED

from rlseq.training.experiment_envs import HELD_OUT, number_tested
from tabled import by_seed, gain, markdown, origin, runs


def oracle(kind: str = "oracle") -> str:
    """SeqGAN's benchmark: every method, means over seeds with their range."""
    text = ""
    for run in runs(f"{kind}-*"):
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


def boxes() -> str:
    """F1 and average precision of rules and policies, and how far these are above the rules."""
    text = ""
    for run in runs("boxes"):
        rows = [
            [name, *(cell for figure in found.values() for cell in _above(figure))]
            for name, found in run["results"]["methods"].items()
        ]
        head = ["", "F1", "above greedy NMS", "above soft NMS", "AP", "above greedy NMS", "above soft NMS"]
        text += markdown(head, rows) + "\nMeans over scenes of the test, with 95 % intervals over scenes. "
        text += origin(run).strip() + "\n"
    return text


def chat() -> str:
    """Shares of answers that break a rule, and their variety, after likelihood and after each reward."""
    text = ""
    for run in runs("chat"):
        shown = ("rules", "generic", "off_topic", "loops", "different", "length")
        rows = [
            [
                stage,
                *(" / ".join(_spread(found[how][name]) for how in ("greedy", "sample")) for name in shown),
            ]
            for stage, found in run["results"]["stages"].items()
        ]
        head = ["greedy / sampled", *(name.replace("_", " ") for name in shown)]
        text += markdown(head, rows) + origin(run)
    return text


def _spread(interval: Sequence[float]) -> str:
    """Return a mean over seeds, and half of its interval where that shows."""
    middle, *ends = interval
    half = (ends[1] - ends[0]) / 2 if ends else 0.0
    return f"{middle:.2f}" + (f" ± {half:.2f}" if half >= 0.005 else "")


def tunes() -> str:
    """Form of tunes after likelihood and after each reward, and what is shown against longer likelihood."""
    shown = ("form", "key", "metre", "closure", "bleu_2", "distinct_2", "repetition", "self_bleu")
    return "".join(
        _of_stages(run, shown, {"form": "form", "bleu_2": "BLEU-2"}, ("greedy", "sample"))
        for run in runs("tunes")
    )


def poems() -> str:
    """Form of poems after likelihood and after each reward, and what is shown against longer likelihood."""
    shown = ("form", "lines", "tones", "rhyme", "bleu_3", "copied", "repetition", "self_bleu")
    return "".join(
        _of_stages(run, shown, {"form": "form", "bleu_3": "BLEU-3"}, ("sample",)) for run in runs("poems")
    )


def _of_stages(run: dict[str, Any], shown: Sequence[str], gained: dict[str, str], ways: Sequence[str]) -> str:
    """Return figures of all stages of a recipe, by each way of decoding, and their gains over "longer"."""
    first, *others = gained.values()
    head = ["texts", *(name.replace("_", " ") for name in shown), f"{first}, against longer", *others]
    rows = []
    for stage, every in run["results"]["stages"].items():
        for way in ways:
            found = every[way]
            gains = [
                "" if stage == "longer" else gain(found["against longer"][name], "+.3g") for name in gained
            ]
            figures = [f"{found[name]:.3g}" for name in shown]
            name = stage if len(ways) == 1 else f"{stage}, {way}"
            rows.append([name, *figures, *gains, "" if stage == "likelihood" else by_seed(found["alarms"])])
    return markdown([*head, "alarms"], rows) + origin(run)


def feedback() -> str:
    """Accuracy of reward models, and the true reward while policies are trained on them; means over seeds."""
    text = ""
    for run in runs("feedback"):
        looks = [20, 40, 80, 160]
        rows = []
        for name, seeds in run["results"]["cases"].items():
            curves = [{point["update"]: point for point in case["curve"]} for case in seeds]
            rules = [_range([curve[look]["rules"] for curve in curves]) for look in (0, *looks)]
            monitors = [
                _range([curve[looks[-1]][figure] for curve in curves])
                for figure in ("off_topic", "loops", "different")
            ]
            rows.append(
                [name, _accuracy([case["report"] for case in seeds if "report" in case]), *rules, *monitors]
            )
        head = ["trained on", "held-out labels", "rules at 0", *map(str, looks)]
        text += markdown([*head, "off topic", "loops", "different"], rows) + origin(run)
    return text


def _accuracy(reports: Sequence[dict[str, Any]]) -> str:
    """Return the accuracy of reward models on held-out labels; of one alone with its interval."""
    found = [report["accuracy"] for report in reports]
    if len(found) == 1:
        return "{estimate:.2f} [{low:.2f}, {high:.2f}]".format(**found[0])
    return _range([one["estimate"] for one in found]) if found else ""


def _range(values: Sequence[float]) -> str:
    """Return a mean over seeds, and the least and the largest value where they differ."""
    low, middle, high = (f"{value:.2f}" for value in (min(values), sum(values) / len(values), max(values)))
    return middle if low == high else f"{middle} ({low} … {high})"


def _above(figure: dict[str, Any]) -> list[str]:
    intervals = [f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]" for mean, low, high in figure["against"].values()]
    return [f"{figure['mean']:.3f}", *intervals]


def all_tasks() -> str:
    """All tasks in words: what is written, and from which data."""
    rows = [
        [f"[`{id}`]({task.page}.md)", task.written, task.data, task.own or "–", task.rewards]
        for id, task in DESCRIBED.items()
    ]
    head = ["task", "what is written", "default data", "own data", "rewards"]
    return markdown(head, rows).replace("---:", "---")


def tasks() -> str:
    """Rewards of the best simple rule, of likelihood and of the best agent; and texts before and after it."""
    text = ""
    for run in runs("all-tasks"):
        found = run["results"]
        rows = [
            [
                f"`{id}`",
                _tested(task),
                f"{task['baseline']}: {task['rules'][task['baseline']]:.3f}",
                _mean(task["stages"].get("likelihood")),
                f"{task['best']}: {_with_interval(task['stages'][task['best']]['reward'])}",
                _with_interval(task["gain"], "+.3f"),
                f"{task['seconds']:.0f}",
            ]
            for id, task in found.items()
        ]
        head = ["task", "tested on", "best simple rule", "likelihood", "best agent", "gain", "seconds"]
        text += markdown(head, rows) + origin(run)
        text += _commits(found.values())
        rows = [
            [f"`{id}`", *(_cell(line[name]) for name in ("source", "reference", "before", "after"))]
            for id, task in found.items()
            for line in task["samples"]
        ]
        text += markdown(["task", "source", "a reference", "before the reward", "after"], rows).replace(
            "---:", "---"
        )
    return text


def _mean(stage: dict[str, Any] | None) -> str:
    return "" if stage is None else f"{stage['reward'][0]:.3f}"


def _with_interval(interval: list[float], form: str = ".3f") -> str:
    mean, *ends = interval
    return f"{mean:{form}} [{', '.join(f'{end:{form}}' for end in ends)}]"


def _commits(found: Iterable[dict[str, Any]]) -> str:
    """The seconds of a stage with which tasks were measured at each commit."""
    seconds: dict[str, set[float]] = {}
    for task in found:
        seconds.setdefault(task["commit"], set()).add(task["seconds_of_each_stage"])
    shown = (
        f"`{commit}`, with {' or '.join(f'{value:.2g}' for value in sorted(values))} CPU seconds a stage"
        for commit, values in seconds.items()
    )
    return f"Tasks were measured at {'; at '.join(shown)}.\n\n"


def _tested(task: dict[str, Any]) -> str:
    """The number and the kind of the items tested."""
    held_out = "" if task["tested_on"] == HELD_OUT else "training items"
    return number_tested(task["selection"]) + (held_out or "held out")


def regimes() -> str:
    """Return a table of scores after each regime of noisy and clean text, means over seeds with intervals."""
    text = ""
    for run in runs("regimes"):
        rows = [
            [
                name,
                *(
                    f"{found[figure]['interval'][0]:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
                    for figure, digits in (("exact", 2), ("bleu", 1), ("habit", 2))
                    for low, high in [found[figure]["interval"][1:]]
                ),
            ]
            for name, found in run["results"]["rows"].items()
        ]
        text += markdown(["trained on", "right answers", "BLEU of a text", "with the habit"], rows) + origin(
            run
        )
    return text


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


def ggan() -> str:
    """Return G-GAN's table: people and policies by n-gram metrics, held-out evaluators and diversity."""
    text = ""
    columns = {"bleu_4_coco": "BLEU-4", "rouge_l": "ROUGE-L", "cider_d": "CIDEr-D"}
    columns |= {name: name for name in ("E-NGAN", "E-GAN", "E-all")}
    for run in runs("ggan-*"):
        found = run["results"]
        rows = [
            [
                name,
                *(f"{row[column]:.3f}" for column in columns),
                f"{row['different']:.0%}",
                f"{row['length']:.1f}",
            ]
            for name, row in found["rows"].items()
        ]
        text += markdown(["captions by", *columns.values(), "different of 5", "words"], rows)
        seconds = ", ".join(f"{name} {value:.0f}" for name, value in found["seconds"].items())
        text += f"\n{found['profile']['tested']} test scenes. Seconds: {seconds}. {origin(run).strip()}\n"
    return text


def _best(value: float, best: float) -> str:
    return f"**{value:.3f}**" if value == best else f"{value:.3f}"


def recipes() -> str:
    """Return tables of what a reward added to likelihood, on the same test items, and samples."""
    rows, samples, seconds = [], [], []
    for run in runs("recipe-*"):
        found = run["results"]
        name = run["command"].split("text.py ")[1].split()[0]
        seed = found.get("seed", 0)
        name += f", seed {seed}" if seed else ""
        seconds.append(
            f"{name}: {sum(found['seconds'].values()):,.0f} seconds of training. " + origin(run).strip()
        )
        for way in ("greedy", "beam"):
            part, figure = found[way], found["setting"]["compared"]
            errors = " → ".join(f"{part[stage][figure]:.3f}" for stage in ("likelihood", "longer", "rloo"))
            changes = [_change(part, other, figure) for other in ("likelihood", "longer")]
            pooled = [_before_after(part, name) for name in found["setting"]["pooled"]]
            risk = _risk(found) if way == "greedy" else ""
            items = part["against longer"]["n"]
            rows.append([f"{name}, {way}", items, errors, *changes, risk, "; ".join(pooled)])
        samples += [  # of one seed; texts that a reward changed, where it changed much
            [name, line["source"], line["references"][0], line["likelihood"], line["rloo"]]
            for line in found["samples"]
            if not seed and (line["likelihood"] != line["rloo"] or name in ("parallel", "numbers"))
        ][:3]
    if not rows:
        return ""
    head = [
        "recipe",
        "test items",
        "errors a text: likelihood → longer → RLOO",
        "RLOO against likelihood",
        "against longer",
        "least risk",
        "of all items at once: likelihood → RLOO",
    ]
    text = markdown(head, rows) + "\n" + "\n\n".join(seconds) + "\n\n"
    return text + markdown(["recipe", "source", "a reference", "likelihood", "RLOO"], samples)


def _change(part: dict[str, Any], other: str, figure: str) -> str:
    """RLOO's errors against another's, in per cent of these, with their interval."""
    gain, before = part[f"against {other}"], part[other][figure]
    low, middle, high = (100 * gain[name] / before if before else 0 for name in ("low", "estimate", "high"))
    return f"{middle:+.1f} % [{low:+.1f}, {high:+.1f}], p = {gain['p']:.4f}"


def _risk(found: dict[str, Any]) -> str:
    """Errors of the samples nearest to all others, relative to greedy ones, before the reward was met."""
    greedy, least = found["risk"]["greedy"], found["risk"]["least_risk"]
    return f"{100 * (least / greedy - 1):+.1f} %" if greedy else ""


def _before_after(part: dict[str, Any], figure: str) -> str:
    before, after = (part[side][f"pooled {figure}"] for side in ("likelihood", "rloo"))
    return f"{figure} {before:.4g} → {after:.4g}"


def finetune() -> str:
    """A pretrained model after a reward, after more likelihood, and by controls; and samples."""
    text = ""
    for run in runs("finetune-*"):
        found = run["results"]
        sides, figure = found["sides"], found["compared"]
        rows = [
            [
                name,
                side["runs"] if "updates" in side else "",
                f"{side[figure]:.4f}",
                *(_gap(found["against"].get(other, {}).get(name)) for other in ("start", "likelihood")),
                *(f"{value:.4g}" for value in side["pooled"].values()),
                f"{side['length']:.1f}",
                f"{sum(side['updates']) / side['runs']:.0f}" if "updates" in side else "",
                f"{sum(side['seconds']) / side['runs']:.0f}" if "seconds" in side else "",
            ]
            for name, side in sides.items()
        ]
        head = [
            *("", "seeds", figure, "against the start", "against likelihood"),
            *(f"{name}, all items" for name in sides["start"]["pooled"]),
            *("tokens a text", "updates", "seconds"),
        ]
        text += markdown(head, rows)
        text += f"\n{found['items']:,} test items. " + origin(run).strip() + "\n\n"
        text += markdown(
            ["source", "reference", *SAMPLED],
            [
                [
                    _cell(line["source"]),
                    _cell(line["references"][0]),
                    *(_cell(line[name]) for name in SAMPLED),
                ]
                for line in found["samples"]
            ],
        )
    return text


SAMPLED = ("start", "likelihood", "rloo")  # sides whose texts are shown


def _gap(row: dict[str, Any] | None) -> str:
    """A difference with its interval over items, and over seeds where there are several."""
    if row is None:
        return ""
    low, high = row["over items"]
    text = f"{row['estimate']:+.4f} [{low:+.4f}, {high:+.4f}], p = {row['p, Holm']:.4f}"
    if "over seeds" in row:
        low, high = row["over seeds"]
        text += f"; over seeds [{low:+.4f}, {high:+.4f}]"
    return text


def _cell(text: str) -> str:
    """A text as a cell of a table."""
    return text.replace("|", "\\|")


def pretrain() -> str:
    """The models that pretrain.py made."""
    rows, origins = [], []
    for run in runs("pretrain-*"):
        found = run["results"]
        dev, curve = found["dev"]["greedy"], found["curve"]
        rows.append(
            [
                run["name"].removeprefix("pretrain-"),
                f"{found['parameters'] / 1e6:.1f} M",
                f"{found['updates'] * found['setting']['rows']:,}",
                f"{curve[-1]['dev']:.3f}",
                *(f"{dev[name]:.{digits}f}" for name, digits in (("rouge_l", 3), ("bleu", 1), ("chrf", 1))),
                f"{found['seconds'] / 60:.0f}",
            ]
        )
        origins.append(origin(run).strip())
    head = [
        *("model", "parameters", "pairs seen", "nats per token on dev"),
        *("ROUGE-L", "BLEU", "chrF", "minutes"),
    ]
    return markdown(head, rows) + "\n" + "\n\n".join(origins) + "\n"
