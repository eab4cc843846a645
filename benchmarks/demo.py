"""The demonstration, recorded: what `make demo` shows, and how long it takes.

python benchmarks/demo.py
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import record

from rlseq.cli.demo import demo
from rlseq.compare.tables import ranked


def main() -> None:
    """Run it as it is, and write the JSON."""
    start = time.perf_counter()
    found = demo(Path(tempfile.mkdtemp()) / "demo")
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
    results = {
        "agents": agents,
        "verdict": task["verdict"],
        "seconds": round(time.perf_counter() - start, 1),
        "seconds_of_comparison": round(found.results["seconds"], 1),
        "seconds_of_runs": round(found.results["seconds_of_runs"], 1),
        "processes": found.results["jobs"],
    }
    print(record.write("demo", results))


if __name__ == "__main__":
    main()
