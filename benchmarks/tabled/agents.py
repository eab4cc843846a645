"""Of agents."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from tabled import markdown, origin, runs


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
    """Return a table of how often 95 % intervals hold the truth at few seeds."""
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
                pairs = [line, found[1.0], found[2.0]]
                cells = [f"{p['held']:.1%} / {p['percentile_bootstrap']:.1%}" for p in pairs]
                rows.append([n, *cells])
        head = [
            "seeds",
            "IQM: ours / percentile bootstrap",
            "P(improvement), 1 SD apart",
            "P(improvement), 2 SD apart",
        ]
        text += markdown(head, rows) + origin(run)
    return text


def verdicts() -> str:
    """Return a table of how often tests and verdicts separate agents."""
    text = ""
    for run in runs("coverage"):
        lines = run["results"]["tests"]
        names = list(dict.fromkeys(line["scores"] for line in lines))
        rows = []
        for n in dict.fromkeys(line["seeds"] for line in lines):
            of = {line["scores"]: line for line in lines if line["seeds"] == n}
            equal = [_shares(of[name]["equal"]) for name in names]
            rows.append(
                [n, *equal, _shares(of["failing"]["one_fails"]), _shares(of["normal"]["two_sd_apart"])]
            )
        heads = [f"equal, {name}" for name in names]
        worst = max(line["any"] for line in run["results"]["families"])
        text += (
            markdown(["seeds", *heads, "one fails", "2 SD apart, normal"], rows)
            + "\nShares of comparisons: Welch's test alone / permutation test alone / verdict. "
            f"Of three or six equal agents with 4 or 10 seeds, at most {worst:.1%} of comparisons end in "
            "any verdict. " + origin(run).strip() + "\n"
        )
    return text


def items() -> str:
    """Return a table of how often intervals over items hold the truth."""
    text = ""
    for run in runs("coverage"):
        lines = run["results"]["items"]
        names = list(dict.fromkeys(line["gaps"] for line in lines))
        rows = []
        for n in dict.fromkeys(line["items"] for line in lines):
            of = {line["gaps"]: line for line in lines if line["items"] == n}
            rows.append(
                [n, *(f"{of[name]['held']:.1%} / {of[name]['percentile_bootstrap']:.1%}" for name in names)]
            )
        text += markdown(["items", *(f"{name}: Student / bootstrap" for name in names)], rows)
    return text


def _shares(found: dict[str, float]) -> str:
    return " / ".join(f"{found[name]:.1%}" for name in ("welch", "permutation", "verdict"))


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


def learning() -> str:
    """Return a table of what every agent gained on the likelihood that it started from, at equal tokens."""
    text = ""
    for run in runs("learning*"):
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
        text += markdown(["agent", "lr", "reward after", "gain, 95 %", "seeds"], rows) + origin(run) + "\n"
    return text.rstrip("\n") + "\n"


def variance() -> str:
    """Variance of every estimator for each kind of rewards, and its bias for the first."""
    text = ""
    for run in runs("variance*"):
        rows = []
        for name, found in run["results"]["estimators"].items():
            first = next(iter(found.values()))
            off = "–" if first["off"] is None else f"{first['off']:+.1f}"
            rows.append([name, first["samples"], *map(ratio, found.values()), bias(first), off])
        head = ["estimator", "samples", *(f"variance, {rewards}" for rewards in found), "bias", "off"]
        text += markdown(head, rows) + origin(run) + "\n"
    return text.rstrip("\n") + "\n"


def ratio(found: Mapping[str, Any]) -> str:
    """Return a ratio of variances, with its interval where it was measured."""
    if "interval" not in found or found["interval"][0] == found["interval"][1]:
        return times(found["ratio"])
    low, high = map(times, found["interval"])
    return f"{times(found['ratio'])} [{low}, {high}]"


def relaxed() -> str:
    """Return variance and bias of relaxed gradients, beside those of REINFORCE."""
    text = ""
    for run in runs("relaxed"):
        rows = [
            [name, found["samples"], f"{found['ratio']:.3f}", bias(found), f"{found['cosine']:.2f}"]
            for name, found in run["results"]["estimators"].items()
        ]
        text += markdown(["estimator", "samples", "variance", "bias", "cosine"], rows) + origin(run)
    return text


def times(ratio: float) -> str:
    """Return a ratio of variances; of large ones no decimals are known."""
    return f"{ratio:.3f}" if ratio < 100 else f"{ratio:,.0f}"


def bias(found: dict[str, Any]) -> str:
    """Return the bias of an estimator; rounding is no bias."""
    if "bias" not in found:
        return "not enumerated"
    size = found["bias"]
    return "0" if size < 5e-6 else f"{size:.1e}" if size < 0.001 else f"{size:.0%}"


def control(file: str = "control") -> str:
    """Scores of all seeds beside those of the peer, and how much less time was spent."""
    return "".join(_control(run) for run in runs(file))


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


def values() -> str:
    """Return the scores of all seeds of agents that learn values, and the time that they took."""
    tables = []
    for run in runs("values*"):
        rows = []
        for name, found in run["results"].items():
            setting, each = found["setting"], found["runs"]
            scores = ", ".join(f"{one['score']:.0f}" for one in each)
            seconds = sum(one["seconds"] for one in each) / len(each)
            rows.append(
                [f"{name}, {setting['total']:,} steps", f"{setting['solved']:g}", scores, f"{seconds:.0f} s"]
            )
        tables.append(markdown(["", "solved", "rlseq", "processor time of a run"], rows) + origin(run))
    return "\n".join(tables)


def _ratio(theirs: list[dict[str, Any]], ours: list[dict[str, Any]], which: str) -> str:
    """Of seconds, seed by seed; a dash where they were not measured."""
    pairs = [(a[which], b[which]) for a, b in zip(theirs, ours, strict=False) if which in a and which in b]
    return f"{sum(a for a, _ in pairs) / sum(b for _, b in pairs):.2f}×" if pairs else "–"


def warmup() -> str:
    """Return how far the reward falls when a policy gradient takes over, with and without a warm-up."""
    text = ""
    for run in runs("warmup"):
        rows = []
        for found in run["results"]["rows"]:
            curve = found["curve"]
            early = min(reward for update, reward in curve if update <= 20)
            figures = curve[0][1], early, curve[-1][1]
            rows.append(
                [found["agent"], found["schedule"], found["seed"], *(f"{figure:.3f}" for figure in figures)]
            )
        last = run["results"]["updates"]
        head = ["agent", "schedule", "seed", "at the start", "least in 20 updates", f"after {last} updates"]
        text += markdown(head, rows) + f"\n{origin(run).strip()}\n"
    return text


def stale() -> str:
    """Return the rewards after equal tokens of agents whose samples or gradients are older."""
    text = ""
    for run in runs("stale"):
        found = run["results"]
        rows = [
            [arm, f"{fmean(rewards):.3f}", ", ".join(f"{reward:.3f}" for reward in rewards)]
            for arm, rewards in found["rewards"].items()
        ]
        text += markdown(["agent", "mean", "each seed"], rows)
        text += f"\nAfter {found['tokens']:,} tokens. {origin(run).strip()}\n"
        if (timed := found.get("at equal seconds")) is None:
            continue
        rows = [
            [arm, f"{fmean(row['reward']):.3f}", f"{fmean(row['tokens']):,.0f}"] for arm, row in timed.items()
        ]
        text += "\n" + markdown(["agent", "mean", "tokens, mean"], rows)
        text += f"\nAfter {found['seconds']:g} seconds by the clock, in the same run.\n"
    return text


def searched() -> str:
    """Return the rewards of what a search found, and of the defaults, with intervals of the difference."""
    text = ""
    for run in runs("tune"):
        found = run["results"]
        dev = {"kept": found["dev"][found["kept"]["name"]], "defaults": found["dev"]["defaults"]}
        rows = [
            [
                name,
                f"{fmean(dev[name]['rewards']):.3f}",
                f"{fmean(rewards):.3f}",
                ", ".join(f"{r:.3f}" for r in rewards),
            ]
            for name, rewards in found["test"]["rewards"].items()
        ]
        gaps = [
            f"{gap['estimate']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}] over {over}"
            for over in ("items", "seeds")
            for gap in [found[f"difference over {over}"]]
        ]
        hyper = ", ".join(f"{name} {value:.3g}" for name, value in found["kept"]["hyper"].items())
        text += markdown(["settings", "dev, mean", "test, mean", "test, each seed"], rows)
        text += (
            f"\nKept: {hyper}. Difference on test items, with 95 % intervals: {' and '.join(gaps)}; "
            f"{found['CPU seconds']} seconds of one processor in all. {origin(run).strip()}\n"
        )
    return text


def sparse() -> str:
    """Return whether each way to train solves a sparse task, and the tokens that it took."""
    text = ""
    for run in runs("sparse"):
        rows = []
        for name, found in run["results"]["rows"].items():
            last = [f"{one['curve'][-1][1]:.2f}" for one in found]
            solved = ["–" if one["solved"] is None else f"{one['solved']:,}" for one in found]
            given = [f"{one['reference_tokens'] / one['tokens']:.0%}" for one in found]
            seconds = sum(one["seconds"] for one in found) / len(found)
            rows.append([name, *(", ".join(each) for each in (last, solved, given)), f"{seconds:.0f} s"])
        head = ["trained", "exact copies", "tokens to 0.95", "tokens given by references", "a run"]
        text += markdown(head, rows) + origin(run)
    return text


def tuned() -> str:
    """Return what the commands reach that give no setting."""
    text = ""
    for run in runs("tuned"):
        rows = [
            [
                f"`{id}`",
                f"`{found['command']}`",
                f"{found['before']:.3f}",
                f"{found['reward']:.3f}",
                f"{found['sampled']:.3f}",
                f"{found['seconds']:.0f}",
            ]
            for id, agents in run["results"].items()
            for found in agents.values()
        ]
        head = ["task", "command", "reward before", "after", "of samples", "CPU seconds"]
        text += markdown(head, rows) + f"\n{origin(run).strip()}\n"
    return text
