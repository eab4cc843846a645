"""Trace one `agent.update` and count the packages that it enters and the switches between them.

    python benchmarks/walk.py

A reader who follows one update of REINFORCE from the agent to the gradient enters these packages in this
order. The counts are printed; the bars are at most 5 packages and at most 16 switches. Sums over the
processes of a run (`rlseq/utils/ranks.py`), which return their argument where there is one process, are read
like `sum` and not entered.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import rlseq

ROOT = Path(__file__).resolve().parent.parent
PACKAGES, SWITCHES = 5, 16
PASSED_OVER = ("rlseq", "utils", "ranks.py")


def package_of(file: str) -> str | None:
    """The package of a source file of the product, `root/…` for a module at the root; None elsewhere."""
    try:
        parts = Path(file).resolve().relative_to(ROOT).parts
    except ValueError:
        return None
    if parts == PASSED_OVER:
        return None
    if parts[0] in ("envs", "agents"):
        return parts[0]
    return None if parts[0] != "rlseq" else parts[1].removesuffix(".py")


def walk(what: Any) -> list[str]:
    """The packages that a call enters, one entry for each switch from one package to another."""
    seen: list[str] = []

    def tell(frame: FrameType, event: str, argument: Any) -> None:
        if event != "call":
            return
        package = package_of(frame.f_code.co_filename)
        if package is not None and seen[-1:] != [package]:
            seen.append(package)

    sys.setprofile(tell)
    try:
        what()
    finally:
        sys.setprofile(None)
    return seen


def walk_of_update() -> list[str]:
    """Return the walk of one update of REINFORCE."""
    env = rlseq.make("rlseq/Copy-v0", num_envs=8)
    agent = rlseq.make_agent("reinforce", rlseq.make_policy("lstm", env, hidden=8, embedding=4))
    agent.update(agent.collect(env))  # imports and caches
    batch = agent.collect(env)
    return walk(lambda: agent.update(batch))


def main() -> int:
    """Print the walk of one update; fail above the bars."""
    seen = walk_of_update()
    print(" → ".join(seen))
    print(f"{len(set(seen))} packages (at most {PACKAGES}), {len(seen) - 1} switches (at most {SWITCHES})")
    return int(len(set(seen)) > PACKAGES or len(seen) - 1 > SWITCHES)


if __name__ == "__main__":
    sys.exit(main())
