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
    "evaluations": 2,
    "texts": 8,
    "seeds": 2,
    "quiet": True,
}
KILLED = 3


def by_workers(folder: Path) -> int:
    """Make the comparison by ten workers; return how many of them were killed."""
    fork, random_moments = multiprocessing.get_context("fork"), random.Random(7)
    waiting = threading.Thread(
        target=rlseq.compare, kwargs={**SETTINGS, "out": folder, "executor": "workers"}, daemon=True
    )
    waiting.start()
    while not (folder / "config.json").exists():
        time.sleep(0.05)
    running = [fork.Process(target=workers.work, args=(folder,)) for _ in range(10)]
    for worker in running:
        worker.start()
    killed = 0
    for worker in random_moments.sample(running, KILLED):
        time.sleep(random_moments.uniform(0.2, 1.0))
        killed += worker.is_alive()
        worker.kill()
    for worker in running:
        worker.join()
    waiting.join()
    return killed


def main(folder: Path) -> None:
    claims.EXPIRES, workers.BEAT_SECONDS, workers.LOOK_SECONDS = 4.0, 0.3, 0.1
    killed = by_workers(folder / "workers")
    rlseq.compare(**SETTINGS, out=folder / "local", jobs=1)
    runs = ComparisonConfig(**SETTINGS, out=folder / "workers").runs()
    last = [claims.last_claim(Path(run.folder)) for run in runs]
    found = {"killed": killed, "claims": [claim and claim.number for claim in last]}
    (folder / "answers.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
