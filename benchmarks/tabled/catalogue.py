"""Descriptions of agents, tasks, metrics and policies as Markdown, from the code and the committed results.

The documentation is built with them, so that options, defaults, samples and measurements follow the code.
"""

from __future__ import annotations

import inspect
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch

import rlseq
from rlseq.agents import AGENTS, function_name
from rlseq.mdp.registry import task_class
from rlseq.mdp.sequence_env import EnvOptions
from rlseq.metrics.registry import METRICS
from rlseq.policies import POLICIES
from rlseq.policy_gradient.agent import Agent
from rlseq.policy_gradient.algorithm import PolicyGradient
from rlseq.policy_gradient.credit import own_credit
from rlseq.utils.settings import descriptions
from tabled import markdown, origin, runs
from tabled.agents import bias, ratio

ROOT = Path(__file__).parents[2]
ROWS = 3  # samples that are shown of a task
Point = tuple[float, float]
Curves = Mapping[str, Sequence[Sequence[Point]]]  # for each name a curve a seed


def code(value: Any) -> str:
    """Return a default as code; a function by its name."""
    if value is inspect.Parameter.empty:
        return "required"
    return f"`{getattr(value, '__name__', value) if callable(value) else repr(value)}`"


def extras() -> str:
    """Return the optional dependencies that a user may want, from pyproject.toml, with the comments there."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    section = text.split("[project.optional-dependencies]\n")[1].split("\n[")[0]
    rows = []
    for name, packages, comment in re.findall(r"^(\w+) = \[(.+)\](?: *# (.*))?$", section, re.M):
        if name not in ("docs", "benchmarks"):
            listed = ", ".join(f"`{package}`" for package in re.findall(r'"([^"<>=]+)[^"]*"', packages))
            rows.append([f"`{name}`", comment, listed])
    return _left(["extra", "what it brings", "packages"], rows)


def agent(name: str, published: Mapping[str, str]) -> str:
    """Return the settings of an agent: its own, those of which a paper gives a value, and where the rest is.

    Args:
        name: one of `AGENTS`.
        published: the values of its paper, by setting.
    """
    cls = AGENTS[name]
    base = PolicyGradient if issubclass(cls, PolicyGradient) else Agent
    texts, inherited = descriptions(cls), {field.name: _default(field) for field in fields(base)}
    known = {field.name: field for field in fields(cls) if field.name != "policy"}
    for setting in published:
        if setting not in known:
            raise ValueError(f"agent {name!r} has no setting {setting!r}")
    own = [
        setting
        for setting, field in known.items()
        if setting in published or setting not in inherited or _default(field) != inherited[setting]
    ]
    rows = [
        [
            f"`{setting}`",
            _default(known[setting]),
            *([published.get(setting, "")] * bool(published)),
            texts[setting],
        ]
        for setting in own
    ]
    head = ["setting", "default", *(["in the paper"] * bool(published)), "meaning"]
    return _left(head, rows) if rows else ""


def settings(name: str) -> str:
    """Return all settings of a class of agents."""
    cls = {each.__name__: each for each in (Agent, PolicyGradient)}[name]
    texts = descriptions(cls)
    rows = [[f"`{f.name}`", _default(f), texts[f.name]] for f in fields(cls) if f.name != "policy"]
    return _left(["setting", "default", "meaning"], rows)


def _default(field: Field[Any]) -> str:
    """Return the default of a field as code; a function by the name that `make_agent` takes."""
    value = field.default if field.default_factory is MISSING else field.default_factory()
    if value is own_credit:
        return "of the agent"
    known = function_name(field.name, value)
    return f'`"{known}"`' if known else code(value)


def estimators(names: Sequence[str]) -> str:
    """Return rows of the measurements of bias and variance, of the run first that has most of them."""
    text, missing = "", {*names}
    measured = [(run, run["results"]["estimators"]) for run in reversed(runs("variance*"))]
    for run, every in sorted(measured, key=lambda each: -len(missing & each[1].keys())):
        found = {name: each for name, each in every.items() if name in missing}
        rows, rewards = [], []
        for name, each in found.items():
            rewards, first = list(each), next(iter(each.values()))
            rows.append([name, first["samples"], *map(ratio, each.values()), bias(first)])
        if rows:
            missing -= found.keys()
            head = ["estimator", "texts", *(f"variance, {kind}" for kind in rewards), "bias"]
            text += markdown(head, rows) + origin(run)
    if missing:
        raise ValueError(f"no results of {', '.join(sorted(missing))}; run benchmarks/variance.py")
    return text


def curves(names: Sequence[str]) -> str:
    """Return rows of the learning benchmark, and its learning curves as SVG."""
    text, missing = "", {*names}
    for run in runs("learning*"):
        found = {each["agent"]: each for each in run["results"]["agents"] if each["agent"] in names}
        rows = []
        for name, each in found.items():
            before, after, gain = each["before"], each["after"], each["gain"]
            means = [f"{sum(scores) / len(scores):.3f}" for scores in (before, after)]
            gained = f"{gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"
            rows.append([name, each["lr"], *means, gained, gain["n"]])
        head = ["agent", "lr", "reward at the start", "reward after", "gain, 95 %", "seeds"]
        if not rows:
            continue
        missing -= found.keys()
        drawn = curves_in_page({name: learned(each) for name, each in found.items()}, "tokens", REWARD)
        text += drawn + "\n" + markdown(head, rows) + origin(run)
    if missing:
        raise ValueError(f"no results of {', '.join(sorted(missing))}; run benchmarks/learning.py")
    return text


REWARD = "reward on held-out sources"


def learned(agent: Mapping[str, Any]) -> list[list[Point]]:
    """Return the learning curves of an agent of the learning benchmark, from the common start on."""
    pairs = zip(agent["before"], agent["curves"], strict=True)
    return [[(0.0, before), *map(tuple, curve)] for before, curve in pairs]


WIDTH, HEIGHT, LEFT, BELOW, ABOVE, RIGHT = 640, 320, 56, 44, 50, 14
COLOURS = ("#2f6fde", "#d9730d", "#0f8a5f", "#b3359b")


def curves_in_page(lines: Curves, x: str, y: str) -> str:
    """Return learning curves as SVG within HTML."""
    return f'<div class="curve">{drawing(lines, x, y)}</div>\n'


def drawing(lines: Curves, x: str, y: str, style: str = "") -> str:
    """Return learning curves as SVG: a thin line a seed, a thick one for their mean.

    Args:
        lines: the curves.
        x: title of the axis.
        y: title of the other.
        style: of the picture, where it stands alone.
    """
    points = [point for curves in lines.values() for curve in curves for point in curve]
    right, across = max(point[0] for point in points), _ticks(0.0, max(point[0] for point in points))
    low, high = min(p[1] for p in points), max(p[1] for p in points)
    up = _ticks(low, high)
    low, high = min(low, up[0]), max(high, up[-1])

    def place(point: Point) -> Point:
        return (
            LEFT + point[0] / right * (WIDTH - LEFT - RIGHT),
            HEIGHT - BELOW - (point[1] - low) / (high - low) * (HEIGHT - BELOW - ABOVE),
        )

    parts = [style, *_axes([place((value, low)) for value in across], across, x)]
    parts += _lines_across([place((0.0, value)) for value in up], up, y)
    for number, (name, curves) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        parts += [_line(map(place, curve), colour, 1, 0.4) for curve in curves]
        parts.append(_line(map(place, _mean(curves)), colour, 2.5, 1))
        parts.append(
            f'<text x="{LEFT + 190 * number}" y="18" fill="{colour}" font-weight="600">{name}</text>'
        )
    title = f"{y} against {x}: {', '.join(lines)}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" '
        f'aria-label="{title}" font-size="13" font-family="system-ui, sans-serif" fill="currentColor">'
        f"{''.join(parts)}</svg>"
    )


def _ticks(low: float, high: float) -> list[float]:
    """Return four to eight round values from `low` to `high`."""
    rough = (high - low) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def _mean(curves: Sequence[Sequence[Point]]) -> Iterator[Point]:
    """Yield the mean of curves, evaluation by evaluation."""
    for points in zip(*curves, strict=False):
        yield sum(p[0] for p in points) / len(points), sum(p[1] for p in points) / len(points)


def _line(points: Any, colour: str, width: float, opacity: float) -> str:
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    stroke = f'stroke="{colour}" stroke-width="{width}" opacity="{opacity}"'
    return f'<polyline points="{path}" fill="none" {stroke}/>'


def _axes(places: Sequence[Point], values: Sequence[float], title: str) -> Iterator[str]:
    """Yield the numbers along the axis, and its title."""
    for (across, _), value in zip(places, values, strict=True):
        yield f'<text x="{across:.1f}" y="{HEIGHT - BELOW + 18}" text-anchor="middle">{value:,.0f}</text>'
    yield f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{title}</text>'


def _lines_across(places: Sequence[Point], values: Sequence[float], title: str) -> Iterator[str]:
    """Yield a line and a number for each value, and the title above them."""
    for (_, up), value in zip(places, values, strict=True):
        yield (
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up:.1f}" y2="{up:.1f}" '
            'stroke="currentColor" opacity="0.15"/>'
            f'<text x="{LEFT - 8}" y="{up + 4:.1f}" text-anchor="end">{value:.2f}</text>'
        )
    yield f'<text x="{LEFT}" y="38" opacity="0.75">{title}</text>'


def oracle(methods: Sequence[str]) -> str:
    """Return rows of the benchmark of adversarial training: means over seeds."""
    text = ""
    for run in runs("oracle-cpu-*"):
        found = run["results"]
        rows = []
        for method in methods:
            each = [row for row in found["rows"] if row["method"] == method]
            if not each:
                raise ValueError(f"no method {method!r} in the oracle benchmark")
            cells = [_mean_of(each, name) for name in ("nll_oracle", "nll_test", "self_bleu")]
            rows.append([method, *(f"{cell:.3f}" for cell in cells), len(each)])
        head = ["method", "NLL_oracle", "NLL_test", "Self-BLEU-4", "seeds"]
        text += (
            markdown(head, rows)
            + f"\nEntropy of the oracle: {found['entropy']:.3f} nats per token.\n"
            + origin(run)
        )
    return text


def _mean_of(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(sum(row[name] for row in rows) / len(rows))


def task(id: str) -> str:
    """Return what there is to know about a task: spaces, options, samples, and measured rewards."""
    cls = task_class(id)
    env = rlseq.make(id, num_envs=ROWS, **small(id))
    parts = [_spaces(env), "**Options**\n", _options(cls), "**Samples**\n", samples(env), _measured(id)]
    return "\n".join(parts)


def small(id: str) -> dict[str, Any]:
    """Return options that make a task fast to make, without other samples than the default's."""
    return {"rlseq/Captions-v0": {"scenes": 50}}.get(id, {})


def _spaces(env: Any) -> str:
    rows = [
        ["words that can be written", f"{len(env.vocab):,}"],
        ["longest text, the end included", env.max_len],
        ["training items", f"{env.size:,}"],
        [
            "observation",
            ", ".join(f"`{name}` {_shape(space)}" for name, space in env.single_observation_space.items()),
        ],
        ["action", f"`{env.single_action_space}`"],
        ["held-out data", f"`{env.held_out}`" if env.held_out else "none"],
        ["metrics that `evaluate` reports", ", ".join(f"`{name}`" for name in env.metrics) or "the reward"],
    ]
    return _left(["", ""], rows)


def _shape(space: Any) -> str:
    return (
        f"{list(space.shape)}" if isinstance(space, gym.spaces.Box | gym.spaces.MultiDiscrete) else f"{space}"
    )


def _options(cls: type) -> str:
    """Return the options of a task's own, from its signature and its docstring."""
    texts = arguments(cls)
    rows = [
        [f"`{p.name}`", code(p.default), texts.get(p.name, "")]
        for p in inspect.signature(cls).parameters.values()
        if p.kind is p.KEYWORD_ONLY
    ]
    common = ", ".join(f"`{name}`" for name in EnvOptions.__annotations__)
    return (
        _left(["option", "default", "meaning"], rows)
        + f"\nAll tasks also have {common} ([EnvOptions](../api/tasks.md)).\n"
    )


def arguments(cls: Any) -> dict[str, str]:
    """Return the descriptions of arguments, from the docstring of a class or its nearest base with any."""
    for each in inspect.getmro(cls) if isinstance(cls, type) else (cls,):
        found = inspect.getdoc(each) or ""
        if "Args:" in found:
            block = found.split("Args:\n", 1)[1].split("\n\n")[0]
            pieces = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", block, re.M)
            return {name: " ".join(text.split()) for name, text in pieces}
    return {}


def samples(env: Any) -> str:
    """Return a few items of a task: sources and references, as many as it has rows."""
    env.reset(seed=0)
    context, sources = env.context, env.sources()
    lengths = context["reference_lengths"][:, 0].tolist() if "references" in context else []
    written = env.vocab.decode_batch(context["references"][:, 0].tolist(), lengths) if lengths else []
    rows = [[source, text] for source, text in zip(sources, written or [""] * len(sources), strict=True)]
    return _left(["source", "a reference"], rows)


def _measured(id: str) -> str:
    text = ""
    for run in runs("tasks*"):
        found = run["results"]["tasks"].get(id)
        if found:
            seconds = run["results"]["seconds_of_each_stage"]
            rows = [[name, f"{stage['reward']:.3f}"] for name, stage in found["stages"].items()]
            text += (
                f"**Measured** on {found['tested_on']}, {seconds:g} CPU seconds a stage, settings not tuned:"
                "\n\n" + markdown(["stage", "reward"], rows) + origin(run)
            )
    return text


REFERENCES = [["the cat sat on the mat", "there is a cat on the mat"], ["two dogs are running fast"]]
HYPOTHESES = ["the cat is on the mat", "two dogs run"]


def metric(name: str) -> str:
    """Return a metric's properties and its scores on two sentences."""
    row = METRICS[name]
    low, high = row.range
    rows = [
        ["better", row.better],
        ["range", f"{low:g} … {high:g} {row.unit}".strip()],
        ["reads", row.reads],
        ["needs references", "yes" if row.needs_references else "no"],
        [
            "as a reward by name",
            f"1 − the score, × {row.scale:g}" if row.better == "lower" else f"× {row.scale:g}",
        ],
    ]
    if row.make is not None and isinstance(row.kind, type):
        rows += _scored(row)
    return _left([f"`{name}`", ""], rows)


def _scored(row: Any) -> list[list[str]]:
    """Return the signature and the scores of a metric on the example."""
    if row.reads == "texts" and row.name in ("meteor", "spice"):
        return [["signature", "needs Java"]]
    fitted = row.fit(REFERENCES if row.needs_references else None)
    found = [["signature", f"`{fitted.signature}`"]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = fitted.score(HYPOTHESES)
    listed = [f"{float(score):.4g}" for score in torch.as_tensor(scores).flatten()]
    return [*found, ["scores of the example", ", ".join(listed)]]


def policy(name: str) -> str:
    """Return the sizes of a policy and their defaults."""
    build = POLICIES[name]
    given = build.func if isinstance(build, partial) else build
    texts = arguments(given)
    rows = [
        [f"`{p.name}`", code(p.default), texts.get(p.name, "")]
        for p in inspect.signature(given).parameters.values()
        if p.kind is p.KEYWORD_ONLY
    ]
    return _left(["size", "default", "meaning"], rows)


def _left(head: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    """Return a table whose columns are text."""
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return markdown(head, cells).replace("---:", "---")
