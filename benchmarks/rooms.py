"""Draw the rooms of the package and the arrows between them, as `tests/test_architecture.py` allows them.

python benchmarks/rooms.py          # writes docs/images/rooms.svg
"""

from __future__ import annotations

import re
from ast import literal_eval
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DRAWING = ROOT / "docs" / "images" / "rooms.svg"
WIDTH, HEIGHT, BOX, TALL = 760, 888, 168, 46
ROOMS = {  # centre of a room (column, row), and its content in a few words
    "cli": (2.1, 0, "the rlseq command"),
    "recipe": (1.6, 1, "from pairs to a tested model"),
    "feedback": (0.5, 1, "labels, reward models"),
    "compare": (2.1, 2, "agents × tasks × seeds"),
    "auditing": (3.1, 2, "what an estimator follows"),
    "training": (2.1, 3, "loop, run folder, load"),
    "agents": (1.6, 4, "one file an algorithm"),
    "envs": (0, 5, "the tasks"),
    "discriminators": (1, 5, "rewards that learn"),
    "adapters": (3, 5, "other environments, SB3"),
    "policies": (1, 6, "networks"),
    "value_based": (2, 5, "replay, values of actions"),
    "policy_gradient": (2.6, 6, "factors, losses, exact"),
    "engine": (2, 7, "rollout, decode, evaluate"),
    "data": (0, 7, "files become a corpus"),
    "metrics": (1, 8, "scores that are rewards"),
    "mdp": (2.6, 8, "SequenceEnv, ids"),
    "vocab": (1, 9, "words and ids"),
    "types": (2.6, 9, "Rollout, Policy, Reward"),
    "utils": (1.8, 10, "no learning in it"),
}
STYLE = """
  .room { fill: #f4f6f8; stroke: #57606a; rx: 7px; }
  .name { font: 600 14px system-ui, sans-serif; fill: #1f2328; }
  .note { font: 11px system-ui, sans-serif; fill: #57606a; } .arrow { stroke: #8c959f; fill: none; }
  .tip { fill: #8c959f; }
  @media (prefers-color-scheme: dark) {
    .room { fill: #21262d; stroke: #8b949e; } .name { fill: #e6edf3; } .note { fill: #9da7b3; }
    .arrow { stroke: #6e7681; } .tip { fill: #6e7681; }
  }
"""


def below() -> dict[str, str]:
    """The table of the test of the architecture: each room, and the rooms directly below it."""
    text = (ROOT / "tests" / "test_architecture.py").read_text("utf-8")
    found = re.search(r"^BELOW = (\{.*?^\})", text, flags=re.S | re.M)
    assert found is not None
    return literal_eval(found[1])  # type: ignore[no-any-return]


def place(room: str) -> tuple[float, float]:
    """The centre of a room in the drawing."""
    column, row, _ = ROOMS[room]
    return 100 + column * 186, 40 + row * 82


def arrow(start: str, end: str) -> str:
    """An arrow from the lower edge of a room to the upper edge of another."""
    (x, y), (to_x, to_y) = place(start), place(end)
    shift = max(-60.0, min(60.0, (to_x - x) / 5))
    y, to_y, x, to_x = y + TALL / 2, to_y - TALL / 2 - 5, x + shift, to_x - shift
    bend = (to_y - y) / 2
    return (
        f'<path class="arrow" marker-end="url(#tip)" '
        f'd="M{x:.0f} {y:.0f} C{x:.0f} {y + bend:.0f} {to_x:.0f} {to_y - bend:.0f} {to_x:.0f} {to_y:.0f}"/>'
    )


def box(room: str) -> str:
    """A room, its name and its content."""
    x, y = place(room)
    return (
        f'<rect class="room" x="{x - BOX / 2:.0f}" y="{y - TALL / 2:.0f}" width="{BOX}" height="{TALL}"/>'
        f'<text class="name" x="{x:.0f}" y="{y - 3:.0f}" text-anchor="middle">{room}</text>'
        f'<text class="note" x="{x:.0f}" y="{y + 14:.0f}" text-anchor="middle">{ROOMS[room][2]}</text>'
    )


def drawing() -> str:
    """The drawing as SVG."""
    arrows = [arrow(room, other) for room, others in below().items() for other in others.split()]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'aria-label="The rooms of rlseq; an arrow points to a room that is imported from">'
        f"<style>{STYLE}</style>"
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto">'
        '<path class="tip" d="M0 0 L8 4 L0 8 z"/></marker></defs>'
    )
    return "\n".join([head, *arrows, *map(box, ROOMS), "</svg>\n"])


if __name__ == "__main__":
    DRAWING.write_text(drawing(), "utf-8")
    print(DRAWING)
