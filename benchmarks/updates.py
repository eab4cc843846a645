"""Seconds of a whole update (rollout, reward and learning) of several agents, here and in another checkout.

    python benchmarks/updates.py [--against DIRECTORY] [--rounds 5]

Policies have trained by likelihood first, so that the lengths of texts are those of practice. With
`--against` the same measurement runs in both checkouts in turn, so that both meet the same noise; the results
have the ratio of the medians. One thread; seconds are of the processor.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
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
    rows: int = 256
    options: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, Any] = field(default_factory=dict)


WIDE = {"hidden": 256}
SETTINGS = {
    "REINFORCE, G2P, LSTM 256": Setting("rlseq/G2P-v0", "lstm", "reinforce", 1000, sizes=WIDE),
    "likelihood, G2P, LSTM 256": Setting("rlseq/G2P-v0", "lstm", "mle", 1000, sizes=WIDE),
    "RLOO, G2P, seq2seq 256": Setting("rlseq/G2P-v0", "seq2seq", "rloo", 300, sizes=WIDE),
    "SCST, captions, captioner 256": Setting("rlseq/Captions-v0", "captioner", "scst", 100, sizes=WIDE),
    "PPO, V = 5,000, transformer 128 × 4": Setting(
        *("rlseq/Copy-v0", "transformer", "ppo", 60),
        options={"vocab_size": 5000, "length": 20, "shortest": 1},
        sizes={"hidden": 128, "layers": 4, "value": True},
    ),
}
UPDATES = 4  # of a round


def prepared(setting: Setting) -> tuple[Any, Any]:
    """Return the task and the agent, after likelihood; the same in every round."""
    torch.manual_seed(0)
    env = rlseq.make(setting.env, num_envs=setting.rows, **setting.options)
    policy = rlseq.make_policy(setting.policy, env, **setting.sizes)
    likelihood = rlseq.make_agent("mle", policy, lr=2e-3)
    for _ in range(setting.likelihood):
        likelihood.update(likelihood.collect(env))
    return env, rlseq.make_agent(setting.agent, policy, lr=1e-6)


def serve() -> None:
    """Prepare every setting, then time a round of updates for every line of standard input."""
    torch.set_num_threads(1)
    made = {name: prepared(setting) for name, setting in SETTINGS.items()}
    for _ in sys.stdin:
        found = {}
        for name, (env, agent) in made.items():
            began = time.process_time()
            for _ in range(UPDATES):
                agent.update(agent.collect(env))
            found[name] = (time.process_time() - began) / UPDATES
        print(json.dumps(found), flush=True)


def started(checkout: Path) -> subprocess.Popen[str]:
    """Start this file as a process that measures a checkout."""
    return subprocess.Popen(
        [sys.executable, str(HERE), "--serve"],
        env={**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def asked(process: subprocess.Popen[str]) -> dict[str, float]:
    """Ask a process for a round."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
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
    checkouts = {"here": HERE.parents[1]}
    if options.against is not None:
        checkouts["before"] = options.against.resolve()
    processes = {name: started(checkout) for name, checkout in checkouts.items()}
    rounds = [{name: asked(process) for name, process in processes.items()} for _ in range(options.rounds)]
    for process in processes.values():
        process.communicate()
    rows = {}
    for setting in SETTINGS:
        medians = {name: statistics.median(each[name][setting] for each in rounds) for name in checkouts}
        ratio = {"ratio": round(medians["before"] / medians["here"], 2)} if "before" in medians else {}
        rows[setting] = {**{name: round(value, 4) for name, value in medians.items()}, **ratio}
        print(setting, rows[setting], flush=True)
    commits = {name: commit(checkout) for name, checkout in checkouts.items()}
    print(record.write("updates", {"commits": commits, "updates": rows}))


def commit(checkout: Path) -> str:
    """Return the commit of a checkout."""
    words = ["git", "-C", str(checkout), "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
