"""How much faster is a training by two processes of one thread than by one process of one thread?

    python benchmarks/ranks.py [--updates 10] [--repeats 3] [--rows 512]

REINFORCE with an LSTM on G2P, and with a transformer and an LSTM on texts of 20 words of 5,000: whole
updates, from the first word to the step of the optimiser, with the rows divided among ranks. Two updates
before the clock starts are not counted. Three arms take turns: one process, two ranks, and two trainings of
half the rows that run at the same time and exchange nothing. The last is the ceiling of the machine: half a
batch is not half the work, and two processors share caches and memory. Tokens per second by the clock are
worth something on a quiet machine only. Beside them stands a factor of processor seconds, which other jobs
change little: those of one process over those of the busier of two, as the clock shows where nobody waits.
Writes results/ranks.json.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from typing import Any

import record
import throughput
import torch

import rlseq

SETTINGS = ("lstm on G2P", "lstm", "transformer")
ARMS = ("one process", "two ranks", "apart")


def setting(name: str, rows: int) -> tuple[Any, Any]:
    """Return a task with all of its rows, and a policy."""
    if name != "lstm on G2P":
        return throughput.setting(name, rows, "cpu")
    env = rlseq.make("rlseq/G2P-v0", num_envs=rows, seed=0)
    return env, rlseq.make_policy("lstm", env, hidden=256, seed=0)


def trained(name: str, updates: int, rows: int) -> dict[str, Any]:
    """Train as one of the ranks that the environment names; return tokens and seconds."""
    torch.set_num_threads(1)
    env, policy = setting(name, rows)
    agent = rlseq.make_agent("reinforce", policy)
    times: list[tuple[float, float, int]] = []

    def note(row: dict[str, float]) -> None:
        times.append((time.perf_counter(), time.process_time(), env.counts.as_dict()["tokens"]))

    settings: dict[str, Any] = {"alarms": "ignore", "quiet": True, "probe": False}
    rlseq.train(agent, env, updates + 2, on_update=note, **settings)
    seconds, used, tokens = (end - begin for begin, end in zip(times[1], times[-1], strict=True))
    parameters = sum(p.numel() for p in policy.parameters())
    return {"tokens": tokens, "seconds": seconds, "processor seconds": used, "parameters": parameters}


def measured(name: str, arm: str, given: argparse.Namespace) -> dict[str, Any]:
    """Start the processes of an arm; return the tokens of all, and the seconds of the slower."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    number, together = 1 if arm == "one process" else 2, arm == "two ranks"
    shared = {"WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} if together else {}
    rows = given.rows if together else given.rows // number
    sizes = ["--updates", str(given.updates), "--rows", str(rows)]
    running = [
        subprocess.Popen(
            [sys.executable, __file__, "--child", name, *sizes],
            env={**os.environ, **shared, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
        )
        for rank in range(number)
    ]
    answers = [json.loads(process.communicate()[0]) for process in running]
    slower = {what: max(answer[what] for answer in answers) for what in ("seconds", "processor seconds")}
    return {
        **answers[0],
        **slower,
        "tokens": sum(a["tokens"] for a in (answers[:1] if together else answers)),
    }


def compared(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Return all arms, which take turns."""
    turns = [[measured(name, arm, given) for arm in ARMS] for _ in range(given.repeats)]
    kinds = ("seconds", "processor seconds")
    return {
        "parameters": turns[0][0]["parameters"],
        "tokens per second": [[round(row["tokens"] / row["seconds"]) for row in turn] for turn in turns],
        "processor seconds": [[round(row["processor seconds"], 3) for row in turn] for turn in turns],
        **{f"factor of {what}": factor(turns, 1, what) for what in kinds},
        **{f"factor of {what}, apart": factor(turns, 2, what) for what in kinds},
    }


def factor(turns: list[list[dict[str, Any]]], arm: int, what: str) -> float:
    """Return how much longer one process takes than an arm, the median over turns."""
    return round(statistics.median(float(turn[0][what] / turn[arm][what]) for turn in turns), 3)


def main() -> None:
    """Measure all policies with one process and with two."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--child")
    given = parser.parse_args()
    if given.child:
        print(json.dumps(trained(given.child, given.updates, given.rows)))
        return
    results: dict[str, Any] = {"rows": given.rows, "updates": given.updates, "load": [os.getloadavg()[0]]}
    for name in SETTINGS:
        results[name] = compared(name, given)
        print(name, results[name], flush=True)
    results["load"].append(os.getloadavg()[0])
    print(record.write("ranks", results))


if __name__ == "__main__":
    main()
