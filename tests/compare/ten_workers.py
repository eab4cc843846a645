"""A comparison by ten workers, three of which are killed at random moments; and the same by this process.

Run with one thread, so that workers can be forked: `OMP_NUM_THREADS=1 python ten_workers.py FOLDER`.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

import rlseq
from rlseq.compare import claims, workers
from rlseq.compare.plan import ComparisonConfig

SETTINGS: dict[str, Any] = {
    "envs": {"rlseq/Copy-v0": {"length": 3, "vocab_size": 5, "num_envs": 8}},
    "agents": ["reinforce", "rloo", "mle"],
    "policy": {"name": "gru", "hidden": 8, "embedding": 4},
    "budget_tokens": 2000,
    "start_tokens": 6000,
    "evaluations": 2,
    "texts": 8,
    "seeds": 2,
    "quiet": True,
}
KILLED = 3


def by_workers(folder: Path) -> None:
    """Make the comparison by ten workers; three are killed while they have a run, or wait for one."""
    fork, moments = multiprocessing.get_context("fork"), random.Random(7)
    waiting = threading.Thread(
        target=rlseq.compare, kwargs={**SETTINGS, "out": folder, "executor": "workers"}, daemon=True
    )
    waiting.start()
    while not (folder / "config.json").exists():
        time.sleep(0.05)
    first, others = (
        [fork.Process(target=workers.work, args=(folder,)) for _ in range(n)] for n in (KILLED, 10 - KILLED)
    )
    for worker in first:
        worker.start()
    while not any(folder.glob("runs/*/*/*/claims/*.json")):
        time.sleep(0.01)
    for worker in first:
        time.sleep(moments.uniform(0.0, 0.1))
        worker.kill()
    for worker in others:
        worker.start()
    for worker in (*first, *others):
        worker.join()
    waiting.join()


def main(folder: Path) -> None:
    # Seldom enough that a loaded machine loses no worker that is alive.
    claims.EXPIRES, claims.ATTEMPTS, workers.BEAT_SECONDS, workers.LOOK_SECONDS = 10.0, 10, 0.5, 0.5
    by_workers(folder / "workers")
    rlseq.compare(**SETTINGS, out=folder / "local", jobs=1)
    runs = ComparisonConfig(**SETTINGS, out=folder / "workers").runs()
    last = [claims.last_claim(Path(run.folder)) for run in runs]
    (folder / "claims.json").write_text(json.dumps([claim and claim.number for claim in last]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
