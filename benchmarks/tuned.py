"""What do `rlseq train AGENT --env ID` reach with nothing else, with the tuned settings of the package?

    python benchmarks/tuned.py [rlseq/Copy-v0 …]

Every agent that a file in rlseq/training/tuned has settings for is trained by that very command, and tested
greedily on held-out sources before and after. Writes results/tuned.json, and keeps the tasks that it had.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import record

import rlseq
from rlseq.cli import main as command
from rlseq.training.run_folder import read_results
from rlseq.training.tuned_settings import tuned_settings

TASKS = ("rlseq/Copy-v0", "rlseq/Reverse-v0")


def trained(id: str, agent: str) -> dict[str, Any]:
    """The reward on held-out sources, and the seconds."""
    with tempfile.TemporaryDirectory() as folder:
        out, began = Path(folder) / "run", time.perf_counter()
        command(["train", agent, "--env", id, "--out", str(out), "--quiet"])
        results = read_results(out)
        curve = [[row["tokens"], round(row["eval_reward"], 4)] for row in results["curve"]]
        return {
            "command": f"rlseq train {agent} --env {id}",
            "settings": dict(tuned_settings(id).agents[agent]),
            "untrained": _untrained(id),
            "reward": round(results["final"]["reward"], 4),
            "curve": curve,
            "seconds": round(time.perf_counter() - began, 1),
        }


def _untrained(id: str) -> float:
    test = rlseq.make(id, num_envs=250, split="test")
    tuned = tuned_settings(id)
    policy = rlseq.make_policy(tuned.policy or "lstm", test, **tuned.sizes)
    return round(rlseq.evaluate(policy, test)["reward"], 4)


def main() -> None:
    """All agents of all tasks named."""
    path = record.RESULTS / "tuned.json"
    found = json.loads(path.read_text("utf-8"))["results"] if path.exists() else {}
    for id in sys.argv[1:] or TASKS:
        found[id] = {}
        for agent in tuned_settings(id).agents:
            found[id][agent] = trained(id, agent)
            print(id, agent, found[id][agent]["reward"], found[id][agent]["seconds"], flush=True)
    print(record.write("tuned", found))


if __name__ == "__main__":
    main()
