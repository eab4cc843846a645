"""Of the engine, the metrics and the data."""

from __future__ import annotations

from statistics import median
from typing import Any

from tabled import markdown, origin, runs

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


def pretrained() -> str:
    """Pretrained models: writing beside `generate`, and an update of GRPO beside TRL's."""
    return "\n".join(_pretrained(run) for run in runs("pretrained-*"))


def _pretrained(run: dict[str, Any]) -> str:
    results = run["results"]
    rows = [
        [
            line["model"],
            line["rows"],
            *(f"{line['rows'] * line['tokens'] / line['seconds'][name]:,.0f}" for name in line["seconds"]),
            *(f"{ratio:.2f}×" for ratio in line["ratio"].values()),
        ]
        for line in results["texts"]
    ]
    head = ["model", "rows", "`generate`, tokens/s", "rollout", "compiled"]
    text = markdown([*head, "rollout ÷ `generate`", "compiled ÷ `generate`"], rows)
    sizes, updates = results["grpo"], results["updates"]
    text += (
        f"\nOne update of GRPO, {sizes['rows']} texts of {sizes['tokens']} tokens, V = {sizes['words']:,}, "
        "GPT-2 of 4 layers:\n\n"
    )
    lines = [
        [name, f"{found['seconds']:.1f}", f"{found['peak_gb']:.2f}", f"{found['at_start_gb']:.2f}"]
        for name, found in updates.items()
    ]
    return text + markdown(["", "seconds", "peak memory, GB", "of which at the start"], lines) + origin(run)


def matmul() -> str:
    """Large float32 products by PyTorch and by oneDNN."""
    text = ""
    for run in runs("matmul-*"):
        rows = [
            [
                f"{size['rows']:,} × {size['width']:,} × {size['outputs']:,}",
                *(
                    f"{size[kind][by]:.0f}"
                    for kind in ("forward", "forward and backward")
                    for by in ("pytorch", "onednn")
                ),
            ]
            for size in run["results"]["sizes"]
        ]
        head = ["rows × width × outputs", "forward, PyTorch", "oneDNN", "with backward, PyTorch", "oneDNN"]
        text += markdown(head, rows) + origin(run)
    return text


def padding() -> str:
    """Return what scoring and differentiating a real word costs with padding and without."""
    text = ""
    for run in runs("padding"):
        rows = [
            [name, f"{found['none']:.1f}", f"{found['much']:.1f}", f"{found['ratio']:.2f}"]
            for name, found in run["results"]["microseconds"].items()
        ]
        share = f"{100 * run['results']['share']:.0f} % padding"
        head = ["µs for a real word", "no padding", share, "ratio"]
        text += markdown(head, rows) + f"\n{origin(run).strip()}\n"
    return text


def updates() -> str:
    """Return the seconds of whole updates, the ratio to those of the commit before, and the floor.

    Of two machines: on one oneDNN multiplies twice as fast as on the other.
    """
    text = ""
    for run in [*runs("updates"), *runs("updates-fast-products")]:
        found = run["results"]["updates"]
        rows = [
            [name, f"{1e3 * of['before']:.0f}", f"{1e3 * of['here']:.0f}", f"{of['ratio']:.2f}"]
            for name, of in found.items()
        ]
        head = ["a whole update", f"ms at {run['results']['commits']['before']}", "ms now", "ratio"]
        if all("floor" in of for of in found.values()):  # results of before have none
            head += ["ms of its products", "now ÷ products"]
            floors = [[f"{1e3 * of['floor']:.0f}", f"{of['of floor']:.1f}"] for of in found.values()]
            rows = [[*row, *floor] for row, floor in zip(rows, floors, strict=True)]
        text += markdown(head, rows) + f"\n{origin(run).strip()}\n\n"
    return text.rstrip() + "\n"


def ranks() -> str:
    """Return how much faster two processes train than one."""
    text = ""
    for run in runs("ranks"):
        rows = []
        for name, found in run["results"].items():
            if not isinstance(found, dict):
                continue  # the number of rows, of updates, and the load
            alone, both, *_ = (median(each) for each in zip(*found["tokens per second"], strict=True))
            names = [
                f"factor of {what}{arm}"
                for arm in ("", ", apart")
                for what in ("seconds", "processor seconds")
            ]
            factors = (f"{found[each]:.2f}" if each in found else "–" for each in names)
            rows.append([name, f"{alone:,.0f}", f"{both:,.0f}", *factors])
        head = ["", "tokens/s, 1 process", "2 ranks", "ratio", "ratio of processor seconds"]
        head += ["2 that exchange nothing, ratio", "of processor seconds"]
        text += markdown(head, rows) + f"\n{origin(run).strip()}\n"
    return text


def overlap() -> str:
    """Return how much faster an update is whose next batch is written while it learns."""
    text = ""
    for run in runs("overlap"):
        rows = [
            [
                name,
                *(f"{1e3 * found['plain'][part]:.0f}" for part in ("writing", "learning")),
                f"{1e3 * found['overlap']['seconds']:.0f}",
                f"{median(found['factors by the clock']):.2f}",
                f"{found['largest possible factor']:.2f}",
            ]
            for name, found in run["results"].items()
            if isinstance(found, dict)
        ]
        head = ["", "ms writing", "ms learning", "ms of both with `overlap`", "ratio", "largest possible"]
        text += markdown(head, rows) + f"\n{origin(run).strip()}\n"
    return text
