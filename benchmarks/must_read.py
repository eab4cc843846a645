"""Count the lines that a reader must follow from `agent.update` on a gym id down to the gradient.

    python benchmarks/must_read.py

All lines count, docstrings and blank lines too. The gate is 1,000. For scale, counted in the same way by the
plan of the house (docs/design.md): 312 in cleanrl's single-file PPO, 5,961 in stable-baselines3's A2C, 9,219
in RL4LMs' PPO, 26,092 in torchrl's Reinforce.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
GATE = 1000
PATH = [
    "agents/reinforce.py",
    "rlseq/agent.py",
    "rlseq/baselines.py",
    "rlseq/returns.py",
    "rlseq/losses.py",
    "rlseq/engine.py",
    "rlseq/decode.py",
    "rlseq/env.py",
    "rlseq/policies/recurrent.py",
    "rlseq/policies/head.py",
    "rlseq/types.py",
]


def main() -> int:
    """Print the count of every file; fail above the gate."""
    total = 0
    for name in PATH:
        lines = (ROOT / name).read_text(encoding="utf-8").count("\n")
        total += lines
        print(f"{lines:5d}  {name}")
    print(f"{total:5d}  of at most {GATE}")
    return int(total > GATE)


if __name__ == "__main__":
    sys.exit(main())
