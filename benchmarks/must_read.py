"""Count the lines that a reader must follow from `agent.update` on a gym id down to the gradient.

    python benchmarks/must_read.py

The path is the plan's: the agent, what all agents and all policy gradients do, baselines, returns and losses,
the engine, the env, one policy. All lines count, docstrings and blank lines too, of whole files. The gate is
1,000. Beside the path, and not on it, stand the values that it speaks of and the parts that it is put
together from (credits and penalties, the softmax head, the recurrence); they are printed too. For scale: 312
lines in cleanrl's single-file PPO, 5,961 in stable-baselines3's A2C, 9,219 in RL4LMs' PPO, 26,092 in
torchrl's Reinforce (as counted when the house was planned).
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
GATE = 1000
PATH = [
    "agents/reinforce.py",
    "rlseq/agent.py",
    "rlseq/policy_gradient.py",
    "rlseq/baselines.py",
    "rlseq/returns.py",
    "rlseq/losses.py",
    "rlseq/engine.py",
    "rlseq/env.py",
    "rlseq/policies/recurrent.py",
]
BESIDE = [
    *("rlseq/types.py", "rlseq/decode.py", "rlseq/state.py"),
    *("rlseq/credit.py", "rlseq/factors.py", "rlseq/penalties.py"),
    *("rlseq/policies/head.py", "rlseq/policies/recurrence.py", "rlseq/policies/words.py"),
]


def main() -> int:
    """Print the count of every file; fail above the gate."""
    total = sum(_show(name) for name in PATH)
    print(f"{total:5d}  of at most {GATE}; beside the path:")
    for name in BESIDE:
        _show(name)
    return int(total > GATE)


def _show(name: str) -> int:
    lines = (ROOT / name).read_text(encoding="utf-8").count("\n")
    print(f"{lines:5d}  {name}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
