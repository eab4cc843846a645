"""The demonstration's table, recorded: what `make demo` shows.

python benchmarks/demo.py
"""

from __future__ import annotations

import time

import record
import torch

from rlseq.demo import demo


def main() -> None:
    """Run it as it is, and write the JSON."""
    torch.set_num_threads(2)
    start = time.perf_counter()
    stages = [
        {
            "after": s.name,
            "greedy": s.greedy["reward"],
            "sampled": s.sampled["reward"],
            "exact": s.greedy["exact"],
        }
        for s in demo()
    ]
    print(record.write("demo", {"stages": stages, "seconds": round(time.perf_counter() - start, 1)}))


if __name__ == "__main__":
    main()
