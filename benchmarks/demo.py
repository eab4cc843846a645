"""The demonstration, recorded: what `make demo` shows, and how long it takes.

python benchmarks/demo.py
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import record

from rlseq.compare.tables import ranked
from rlseq.demo import demo


def main() -> None:
    """Run it as it is, and write the JSON."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = demo(Path(folder))
    task = found.results["tasks"][0]
    agents = [
        {
            "agent": agent["name"],
            "reward": agent["scores"]["reward"],
            "exact": agent["scores"]["exact"],
            "seconds": agent["costs"]["seconds"],
        }
        for agent in ranked(task)
    ]
    trained = sum(agent["costs"]["seconds"] * len(agent["seeds"]) for agent in task["agents"])
    results = {
        "agents": agents,
        "verdict": task["verdict"],
        "seconds": round(time.perf_counter() - start, 1),
        "seconds_of_training_in_all_processes": round(trained, 1),
        "processes": found.results["jobs"],
    }
    print(record.write("demo", results))


if __name__ == "__main__":
    main()
