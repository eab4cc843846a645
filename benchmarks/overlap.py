"""How much faster is a training whose next batch is written while it learns, and what does it learn?

    python benchmarks/overlap.py [--updates 6] [--pairs 3] [--rows 128]

GRPO's ratio with one step a batch, on texts of 20 words of 5,000. Each pair trains the same updates without
and with `overlap`, in processes of their own with one thread for each operation, so that the second uses two
processors; the first update is not counted. Seconds by the clock are worth something on a quiet machine only,
where others compute a process with two busy threads gets more of it than one with one. Beside them stand
seconds of processors: of writing and learning apart, from which the largest possible factor follows,
(w + l) / max(w, l), and of both together. Writes results/overlap.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import record
import throughput
import torch

import rlseq

SETTINGS = ("lstm", "transformer")


def trained(name: str, overlap: bool, updates: int, rows: int) -> dict[str, Any]:
    """Train; return seconds by the clock and of processors for an update, and of its two parts."""
    torch.set_num_threads(1)
    env, policy = throughput.setting(name, rows, "cpu")
    agent = rlseq.make_agent("grpo", policy, samples=4, overlap=overlap)
    parts = {"writing": 0.0, "learning": 0.0}
    for update in range(updates + 1):
        if update == 1:
            began, used, parts = time.perf_counter(), time.process_time(), dict.fromkeys(parts, 0.0)
        start = time.thread_time()
        batch = agent.collect(env)
        middle = time.thread_time()
        agent.update(batch)
        parts["writing"] += middle - start
        parts["learning"] += time.thread_time() - middle
    seconds, used = time.perf_counter() - began, time.process_time() - used
    return {
        "tokens": env.counts.as_dict()["tokens"],
        "seconds": seconds / updates,
        "processor seconds": used / updates,
        **({} if overlap else {name: spent / updates for name, spent in parts.items()}),
    }


def measured(*arguments: Any) -> dict[str, Any]:
    """Train in a process of its own."""
    command = [sys.executable, __file__, "--child", json.dumps(arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def middle(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the median of every number."""
    return {name: round(statistics.median(row[name] for row in rows), 4) for name in rows[0]}


def compared(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Return both forms of a training, in pairs that take turns."""
    plain, overlapped = [], []
    for _ in range(given.pairs):
        plain.append(measured(name, False, given.updates, given.rows))
        overlapped.append(measured(name, True, given.updates, given.rows))
    one, two = middle(plain), middle(overlapped)
    whole, longest = one["writing"] + one["learning"], max(one["writing"], one["learning"])
    factors = [a["seconds"] / b["seconds"] for a, b in zip(plain, overlapped, strict=True)]
    return {
        "plain": one,
        "overlap": two,
        "factors by the clock": [round(factor, 3) for factor in factors],
        "largest possible factor": round(whole / longest, 3),
        "more processor seconds": round(two["processor seconds"] / one["processor seconds"], 3),
    }


def main() -> None:
    """Measure all policies."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--updates", type=int, default=6)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--child")
    given = parser.parse_args()
    if given.child:
        print(json.dumps(trained(*json.loads(given.child))))
        return
    results: dict[str, Any] = {"rows": given.rows, "load": os.getloadavg()[0]}
    for name in SETTINGS:
        results[name] = compared(name, given)
        print(name, results[name], flush=True)
    print(record.write("overlap", results))


if __name__ == "__main__":
    main()
