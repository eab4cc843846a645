"""A long training: memory grows by the history alone, disk by the rows alone, and no update is slower."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import rlseq
from rlseq.agents.reinforce import REINFORCE
from rlseq.types import Metrics, Rollout
from tests.campaigns.conftest import Campaign

PAGE = os.sysconf("SC_PAGE_SIZE")
WARM = 0.2  # share of the updates before memory and time are compared
SLACK = 3 * 2**20  # bytes of memory that the allocator may take in a short run
EVALUATIONS = 20
FILES = 15  # of a run's folder, at most, beside one file of texts for each evaluation


class Mark(NamedTuple):
    """Measurements after an update."""

    update: int
    resident: int  # bytes
    seconds: float  # of the processor
    disk: int  # bytes of the run's folder
    files: int


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def measured(update: int, folder: Path) -> Mark:
    """Return the measurements of this process and of a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return Mark(
        update, resident(), time.process_time(), sum(path.stat().st_size for path in files), len(files)
    )


@dataclass(eq=False)
class Measured(REINFORCE):
    """REINFORCE that takes measurements between its updates."""

    every: int = 1  # updates between two measurements
    folder: Path = Path()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.marks: list[Mark] = []
        self.done = 0

    def update(self, batch: Rollout) -> Metrics:
        """Learn from a batch, and measure where it is time."""
        metrics = super().update(batch)
        self.done += 1
        if self.done % self.every == 0:
            self.marks.append(measured(self.done, self.folder))
        return metrics


def memory_of(row: dict[str, float]) -> int:
    """Return the bytes of a row of the history; the names are shared by all rows, the numbers are not."""
    return sys.getsizeof(row) + sum(map(sys.getsizeof, row.values())) + 8  # and its place in the list


def test_a_long_training_neither_grows_nor_slows_down(campaign: Campaign, tmp_path: Path) -> None:
    updates = campaign.trials(1_500, 100_000)
    env = rlseq.make("rlseq/Enumerable-v0", num_envs=4, vocab_size=2, length=1, seed=campaign.seed)
    agent = Measured(rlseq.make_policy("gru", env, hidden=4, embedding=4), lr=1e-4)
    agent.every, agent.folder = updates // 100, tmp_path / "run"
    every = updates // EVALUATIONS
    history = rlseq.train(
        agent, env, updates, env, eval_every=every, out=agent.folder, alarms="ignore", probe=False
    )
    marks = agent.marks

    warm = [mark for mark in marks if mark.update > WARM * updates]
    span = warm[-1].update - warm[0].update
    row = sum(map(memory_of, history)) / len(history)
    grown = (warm[-1].resident - warm[0].resident) / span
    first, last = (
        (part[-1].seconds - part[0].seconds) / (part[-1].update - part[0].update)
        for part in (warm[: len(warm) // 8 + 1], warm[-len(warm) // 8 - 1 :])
    )
    disk = [(b.disk - a.disk) / (b.update - a.update) for a, b in pairwise(warm[:: len(warm) // 4])]
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    checkpoints = sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("*.json"))
    counts = {
        "updates": updates,
        "bytes of memory per update": round(grown, 1),
        "bytes of a row of the history": round(row, 1),
        "bytes of disk per update": [round(each, 1) for each in disk],
        "files": warm[-1].files,
        "checkpoints": len(checkpoints),
        "milliseconds of an update, first eighth": round(first * 1e3, 4),
        "milliseconds of an update, last eighth": round(last * 1e3, 4),
    }
    campaign.record("soak", counts)

    assert [row["update"] for row in history] == list(range(1, updates + 1))
    assert [json.loads(line)["update"] for line in lines] == list(range(1, updates + 1))
    assert grown * span <= 1.25 * row * span + SLACK, counts
    assert max(disk) <= 1.15 * min(disk), counts
    assert max(mark.files for mark in warm) <= EVALUATIONS + FILES, counts
    assert len(checkpoints) <= 3, counts  # the last two, and the best
    # Another process on the same core doubles processor time: 2.04 was seen in 1,500 updates.
    assert last <= (1.25 if campaign.whole else 4.0) * first, counts
