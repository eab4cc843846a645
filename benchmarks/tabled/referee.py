"""Of the audit, and of the comparison with other libraries."""

from __future__ import annotations

from typing import Any

from tabled import markdown, origin, runs


def audit() -> str:
    """Whose gradient each loss has, library by library."""
    text = ""
    for run in runs("audit"):
        versions = run["results"]["versions"]
        head = ["loss and settings", "meant for", "bias", "across", "follows", "padding", "others' length"]
        for library, number in versions.items():
            rows = [
                [
                    f"`{row['loss']}`: {row['settings']}",
                    row["objective"],
                    f"{row['bias']:.1%}",
                    f"{row['across']:.1%}",
                    _followed(row),
                    f"{row['padding']:.0%}",
                    "—" if row["beside_longer"] is None else f"× {row['beside_longer']:.2f}",
                ]
                for row in run["results"]["rows"]
                if row["library"] == library
            ]
            text += f"**{library} {number}**\n\n{markdown(head, rows)}\n"
        text += origin(run)
    return text


def _followed(row: dict[str, Any]) -> str:
    """Return the objective that a loss follows, one where several have the same gradient."""
    if row["vanishes"]:
        return "nothing: the mean is 0"
    if not row["follows"]:
        return "no known one"
    first = row["follows"][0]
    return f"{first['objective']} × {first['factor']:.3g}"


def peers() -> str:
    """Whole updates of rlseq beside those of other libraries."""
    text = ""
    for run in runs("peers"):
        results, rows = run["results"], []
        for algorithm in ("grpo", "rloo", "ppo"):
            for name, side in results.get(algorithm, {}).items():
                reached = [s for s in side["seconds_to_reward"] if s is not None]
                rows.append([
                    f"{algorithm}, {name.removesuffix('-ppo')}",
                    f"{side['per_second']:,.0f}",
                    _ratios(side["speed_ratios"], side["speed_ratio"]),
                    f"{side['mb']:.0f}",
                    "{:.3f} [{:.3f}, {:.3f}]".format(*side["last"]),
                    _inside(side["curve"], [*results[algorithm].values()][-1]["curve"]),
                    f"{len(reached)} of {len(side['seconds_to_reward'])}"
                    + (f": {', '.join(f'{s:.1f}' for s in reached)}" if reached else ""),
                ])  # fmt: skip
        head = [
            "algorithm, library",
            "tokens per CPU second, whole update",
            "ratio, of each seed",
            "MB",
            "reward of the last 10 updates",
            "points of the curve inside",
            f"runs that reached {results['reached']}, CPU seconds",
        ]
        versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
        text += markdown(head, rows) + f"\n{versions}; medians and 95 % intervals over seeds.\n" + origin(run)
    return text


def _ratios(each: list[float], middle: float) -> str:
    """Return the median of ratios, and those of all seeds; of a library to itself 1."""
    return "1" if set(each) == {1.0} else f"{middle:.2f} ({', '.join(f'{ratio:.2f}' for ratio in each)})"


def _inside(curve: list[list[float]], other: list[list[float]]) -> str:
    """Return how many points of two curves lie in each other's intervals."""
    if curve == other or len(curve) != len(other):  # the library itself; other numbers of updates
        return "–"
    pairs = list(zip(curve, other, strict=True))
    both = sum(low <= b <= high and other_low <= a <= other_high
               for (a, low, high), (b, other_low, other_high) in pairs)  # fmt: skip
    return f"{both} of {len(pairs)}"


def mbr() -> str:
    """Minimum Bayes risk beside beam search, and its cost."""
    text = ""
    for run in runs("mbr*"):
        rows = [
            [
                task,
                way,
                found["texts"],
                f"{found['reward']:.4f}",
                "{mean:+.4f} [{low:+.4f}, {high:+.4f}]".format(**found["beyond beam"]),
                f"{found['seconds']:.2f}",
            ]
            for task, one in run["results"]["tasks"].items()
            for way, found in one["decoders"].items()
        ]
        head = ["task", "decoder", "texts of an item", "reward", "beyond the beam, 95 %", "CPU seconds"]
        text += markdown(head, rows)
        for metric, cost in run["results"]["utility matrix"].items():
            seconds = f"{cost['seconds']:.1f} CPU seconds"
            text += f"\nAll utilities of 32 samples of 1,000 items by {metric}: {seconds}.\n"
        text += origin(run) + "\n"
    return text.rstrip("\n") + "\n"
