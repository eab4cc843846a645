"""Draw learning curves of the README from the committed results.

python benchmarks/curves.py          # writes docs/images/learning.svg
"""

from __future__ import annotations

from pathlib import Path

from tabled import runs
from tabled.catalogue import REWARD, drawing, learned

DRAWING = Path(__file__).resolve().parent.parent / "docs" / "images" / "learning.svg"
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


if __name__ == "__main__":
    DRAWING.write_text(learning(), encoding="utf-8")
