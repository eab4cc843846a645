"""How much faster is a training by two processes of one thread than by one process of one thread?

    python benchmarks/ranks.py [--updates 10] [--ranks 1 2]

REINFORCE on texts of 20 words of 5,000, with the rows divided among ranks: whole updates, from the first word
to the step of the optimiser. Two updates before the clock starts are not counted. Writes results/ranks.json.
The machine must be quiet: ranks wait for each other, so that the slowest decides.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from typing import Any

import record
import throughput
import torch

import rlseq
from rlseq.utils import ranks

ROWS = 512


def trained(name: str, updates: int) -> dict[str, Any]:
    """Train as one of the ranks that the environment names; return tokens and seconds."""
    torch.set_num_threads(1)
    env, policy = throughput.setting(name, ROWS, "cpu")
    agent = rlseq.make_agent("reinforce", policy)
    times: list[float] = []
    settings: dict[str, Any] = {"alarms": "ignore", "quiet": True, "probe": False}
    rlseq.train(agent, env, updates + 2, on_update=lambda row: times.append(time.perf_counter()), **settings)
    tokens = env.counts.as_dict()["tokens"] / (updates + 2) * updates
    parameters = sum(p.numel() for p in policy.parameters())
    return {"tokens": tokens, "seconds": times[-1] - times[1], "parameters": parameters}


def measured(name: str, number: int, updates: int) -> dict[str, Any]:
    """Start the ranks of a training; return what rank 0 has measured."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, __file__, "--child", name, "--updates", str(updates)]
    running = [
        subprocess.Popen(
            command,
            env={**os.environ, **shared, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
        )
        for rank in range(number)
    ]
    answers = [process.communicate()[0] for process in running]
    found: dict[str, Any] = json.loads(answers[0])
    return {**found, "tokens per second": round(found["tokens"] / found["seconds"])}


def main() -> None:
    """Measure all policies with all numbers of ranks."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--child")
    given = parser.parse_args()
    if given.child:
        found = trained(given.child, given.updates)
        if ranks.launched_as().number == 0:
            print(json.dumps(found))
        return
    results: dict[str, Any] = {}
    for name in ("lstm", "transformer"):
        results[name] = {str(n): measured(name, n, given.updates) for n in given.ranks}
        speeds = [row["tokens per second"] for row in results[name].values()]
        results[name]["factor"] = round(speeds[-1] / speeds[0], 3)
        print(name, speeds, results[name]["factor"], flush=True)
    print(record.write("ranks", {"rows": ROWS, "load": os.getloadavg()[0], **results}))


if __name__ == "__main__":
    main()
