"""Draw learning curves of the README and of the fine-tuned model from the committed results.

python benchmarks/curves.py          # writes docs/images/learning.svg and docs/images/synopses.svg
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tabled import runs
from tabled.catalogue import REWARD, Point, drawing, learned

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
TOGETHER = 30  # updates whose rewards make a point
SHOWN = ("ppo", "reinforce, mean", "rloo")
STYLE = (
    "<style>svg { color: #1f2328; background: #ffffff }"
    "@media (prefers-color-scheme: dark) { svg { color: #e6edf3; background: #0d1117 } }</style>"
)


def learning() -> str:
    """Return the curves of a few agents after likelihood."""
    (run,) = runs("learning")
    found = {agent["agent"]: agent for agent in run["results"]["agents"]}
    lines = {name.removesuffix(", mean"): learned(found[name]) for name in SHOWN}
    return drawing(lines, "tokens written after likelihood training", REWARD, STYLE) + "\n"


def synopses() -> str:
    """Return the rewards that samples of the fine-tuned model earn while it is trained on them."""
    (run,) = runs("finetune-synopses")
    sides = run["results"]["sides"]
    lines = {name: [in_parts(curve) for curve in sides[name]["curve"]] for name in ("rloo", "scst")}
    return drawing(lines, "updates", "ROUGE-L of samples", STYLE) + "\n"


def in_parts(curve: Sequence[float]) -> list[Point]:
    """Return means of so many updates at a time, each at its middle."""
    starts = range(0, len(curve) - TOGETHER + 1, TOGETHER)
    return [(start + TOGETHER / 2, sum(curve[start : start + TOGETHER]) / TOGETHER) for start in starts]


if __name__ == "__main__":
    for draw in (learning, synopses):
        (IMAGES / f"{draw.__name__}.svg").write_text(draw(), encoding="utf-8")
