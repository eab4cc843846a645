"""Seconds of a whole update (rollout, reward and learning) of several agents, here and in another checkout.

    python benchmarks/updates.py [--against DIRECTORY] [--rounds 5]

Policies have trained by likelihood first, so that the lengths of texts are those of practice. With
`--against` the same measurement runs in both checkouts in turn, so that both meet the same noise; the results
have the ratio of the medians. One thread; seconds are of the processor.

Beside them stands a floor: the seconds of the matrix products that an update cannot do without.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import record
import torch

import rlseq

HERE = Path(__file__).resolve()


@dataclass(frozen=True)
class Setting:
    """A task, a policy, the updates of likelihood before, and the agent whose updates are timed."""

    env: str
    policy: str
    agent: str
    likelihood: int
    written: int = 1  # texts that are written for each that is learned from
    rows: int = 256
    options: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, Any] = field(default_factory=dict)


WIDE = {"hidden": 256}
SETTINGS = {
    "REINFORCE, G2P, LSTM 256": Setting("rlseq/G2P-v0", "lstm", "reinforce", 1000, sizes=WIDE),
    "likelihood, G2P, LSTM 256": Setting("rlseq/G2P-v0", "lstm", "mle", 1000, 0, sizes=WIDE),
    "RLOO, G2P, seq2seq 256": Setting("rlseq/G2P-v0", "seq2seq", "rloo", 300, sizes=WIDE),
    "SCST, captions, captioner 256": Setting("rlseq/Captions-v0", "captioner", "scst", 100, 2, sizes=WIDE),
    "PPO, V = 5,000, transformer 128 × 4": Setting(
        *("rlseq/Copy-v0", "transformer", "ppo", 60),
        options={"vocab_size": 5000, "length": 20, "shortest": 1},
        sizes={"hidden": 128, "layers": 4, "value": True},
    ),
}
UPDATES = 4  # of a round
WARM = 1.0  # seconds of updates before them, not counted: a training that runs has memory and caches at hand


def prepared(setting: Setting, trained: dict[str, Any]) -> tuple[Any, Any]:
    """Return the task and the agent, after likelihood; the same in every round.

    Args:
        setting: what is timed.
        trained: policies by what they have trained on, to which this one is added.
    """
    torch.manual_seed(0)
    env = rlseq.make(setting.env, num_envs=setting.rows, **setting.options)
    key = f"{setting.env} {setting.policy} {setting.likelihood}"
    if key not in trained:
        trained[key] = rlseq.make_policy(setting.policy, env, **setting.sizes)
        likelihood = rlseq.make_agent("mle", trained[key], lr=2e-3)
        for _ in range(setting.likelihood):
            likelihood.update(likelihood.collect(env))
    return env, rlseq.make_agent(setting.agent, deepcopy(trained[key]), lr=1e-6)


def serve() -> None:
    """Prepare every setting, then measure what each line of standard input asks for."""
    torch.set_num_threads(1)
    trained: dict[str, Any] = {}
    made = {name: prepared(setting, trained) for name, setting in SETTINGS.items()}
    for line in sys.stdin:
        if line.strip() == "floors":
            from floors import floor as measure  # only here: an older checkout has not what it imports
        else:
            measure = timed
        print(json.dumps({name: measure(SETTINGS[name], *made[name]) for name in made}), flush=True)


def timed(setting: Setting, env: Any, agent: Any) -> float:
    """Return the seconds of an update of a training that has run for a while."""
    begun = time.process_time()
    while time.process_time() - begun < WARM:
        agent.update(agent.collect(env))
    began = time.process_time()
    for _ in range(UPDATES):
        agent.update(agent.collect(env))
    return (time.process_time() - began) / UPDATES


# ── here and in another checkout ─────────────────────────────────────────────────────────────────────────


def started(checkout: Path) -> subprocess.Popen[str]:
    """Start this file as a process that measures a checkout."""
    return subprocess.Popen(
        [sys.executable, str(HERE), "--serve"],
        env={**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def asked(process: subprocess.Popen[str], what: str) -> dict[str, float]:
    """Ask a process for the seconds of "updates" or of "floors"."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{what}\n")
    process.stdin.flush()
    found: dict[str, float] = json.loads(process.stdout.readline())
    return found


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--against", type=Path, help="another checkout of rlseq")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    torch.set_num_threads(1)  # as in the processes that measure, for the record
    checkouts = {"here": HERE.parents[1]}
    if options.against is not None:
        checkouts["before"] = options.against.resolve()
    processes = {name: started(checkout) for name, checkout in checkouts.items()}
    floors = asked(processes["here"], "floors")
    rounds = [
        {name: asked(process, "updates") for name, process in processes.items()}
        for _ in range(options.rounds)
    ]
    for process in processes.values():
        process.communicate()
    rows = {}
    for setting, least in floors.items():
        medians = {name: statistics.median(each[name][setting] for each in rounds) for name in checkouts}
        rows[setting] = {name: round(value, 4) for name, value in medians.items()}
        if "before" in medians:
            rows[setting]["ratio"] = round(medians["before"] / medians["here"], 2)
        rows[setting] |= {"floor": round(least, 4), "of floor": round(medians["here"] / least, 2)}
        print(setting, rows[setting], flush=True)
    commits = {name: commit(checkout) for name, checkout in checkouts.items()}
    print(record.write("updates", {"commits": commits, "updates": rows}))


def commit(checkout: Path) -> str:
    """Return the commit of a checkout."""
    words = ["git", "-C", str(checkout), "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
