"""The plane (NLL_oracle, NLL_test): left is quality, down is coverage, and no single number is both."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

IMAGES = Path(__file__).parent.parent / "docs" / "images"


def draw(name: str, results: dict[str, Any]) -> Path:
    """One point a method and seed; likelihood and its temperatures as curves."""
    figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in results["rows"]:
        if row["nll_test"] is not None and row["method"] not in ("oracle", "uniform"):
            points[row["method"].removesuffix(" / τ")].append((row["nll_oracle"], row["nll_test"]))
    for number, (method, found) in enumerate(sorted(points.items())):
        curve = method.startswith("mle")
        marker, line = ("o", "-") if curve else ("v^<>sPXD"[number % 8], "")
        seeds = [found] if not curve else _by_seed(results["rows"], method)
        for n, some in enumerate(seeds):
            label = (f"{method}, temperatures" if curve else method) if n == 0 else None
            x, y = zip(*sorted(some), strict=True)
            axes.plot(
                x,
                y,
                marker=marker,
                linestyle=line,
                markersize=4 if curve else 8,
                color=f"C{number}",
                label=label,
            )
    axes.axvline(results["entropy"], color="grey", linestyle=":", label="entropy of the oracle")
    axes.set(xlabel="NLL_oracle (quality), nats per token", ylabel="NLL_test (coverage), nats per token")
    axes.legend(fontsize=8)
    IMAGES.mkdir(parents=True, exist_ok=True)
    path = IMAGES / f"{name}.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _by_seed(rows: list[dict[str, Any]], method: str) -> list[list[tuple[float, float]]]:
    seeds: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        if row["method"].removesuffix(" / τ") == method:
            seeds[row["seed"]].append((row["nll_oracle"], row["nll_test"]))
    return list(seeds.values())
