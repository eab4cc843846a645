"""Two CPU minutes on every task: likelihood where there are references, then REINFORCE; and samples.

    OMP_NUM_THREADS=1 python benchmarks/tasks.py [--seconds 60] [--only Boxes Chat --name tasks-more]

Scored on at most 500 of the items that a task holds out, drawn at random, or on its training items where it
declares no held-out data. No tuned recipe: it shows that each task can be learned by name alone, on one
processor core.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Any

import record
import torch

import rlseq
from rlseq.engine.evaluation import evaluate_texts, selection
from rlseq.training.experiment_envs import held_out, tested_on

SHOWN = 3
TEXTS = 500


@dataclass(frozen=True)
class Setting:
    """How a task is learned, and on what it is tested."""

    policy: str = "seq2seq"
    decode: str = "greedy"  # or samples, where a task asks for variety
    lr: float = 5e-4  # of REINFORCE


SETTINGS = {
    "rlseq/Parallel-v0": Setting(),
    "rlseq/G2P-v0": Setting(),
    "rlseq/Numbers-v0": Setting(),
    "rlseq/Captions-v0": Setting("captioner"),
    "rlseq/Text-v0": Setting("lstm", decode="sample"),
    "rlseq/HMM-v0": Setting(),
    "rlseq/Copy-v0": Setting(),
    "rlseq/Reverse-v0": Setting(),
    "rlseq/Oracle-v0": Setting("lstm", decode="sample"),
    "rlseq/Enumerable-v0": Setting("lstm", lr=1e-2),
    "rlseq/Summary-v0": Setting(),
    "rlseq/Extract-v0": Setting(),
    "rlseq/Chat-v0": Setting(),
    "rlseq/Retrieval-v0": Setting(),
    "rlseq/Boxes-v0": Setting("captioner"),
    "rlseq/Bandit-v0": Setting("lstm", lr=1e-2),
    "rlseq/CreditChain-v0": Setting("lstm", lr=1e-2),
    "rlseq/PlayOrStudy-v0": Setting("lstm", lr=1e-2),
    "rlseq/TwoStates-v0": Setting("lstm", lr=1e-2),
}


def main() -> None:
    """Train on every task, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="of each stage, on one processor core")
    parser.add_argument("--only", nargs="*", help="names of tasks, such as Boxes; all when not given")
    parser.add_argument("--name", default="tasks", help="of the results: tasks, or tasks-…")
    options = parser.parse_args()
    seconds, wanted = options.seconds, [f"rlseq/{name}-v0" for name in options.only or ()]
    torch.set_num_threads(1)
    results = {}
    for id, setting in SETTINGS.items():
        if wanted and id not in wanted:
            continue
        results[id] = learned(id, setting, seconds)
        print(id, {name: found["reward"] for name, found in results[id]["stages"].items()}, flush=True)
    print(record.write(options.name, {"seconds_of_each_stage": seconds, "tasks": results}))


def learned(id: str, setting: Setting, seconds: float) -> dict[str, Any]:
    """Scores before training and after each stage, and what the last policy writes."""
    torch.manual_seed(0)
    env = rlseq.make(id, num_envs=64)
    test = rlseq.make(id, num_envs=100, **held_out(id))
    policy = rlseq.make_policy(setting.policy, env, hidden=128, embedding=64)
    stages: dict[str, dict[str, Any]] = {"untrained": scored(policy, test, setting).means()}
    agents = {"reinforce": rlseq.make_agent("reinforce", policy, lr=setting.lr)}
    if "references" in env.contexts(torch.zeros(1, dtype=torch.int64)):
        agents = {"likelihood": rlseq.make_agent("mle", policy, lr=2e-3), **agents}
    for name, agent in agents.items():
        updates = trained(agent, env, seconds)
        found = scored(policy, test, setting)
        stages[name] = {"updates": updates, **found.means()}
    return {
        "tested_on": tested_on(id),
        "selection": selection(test.size, TEXTS),
        "stages": stages,
        "decode": setting.decode,
        "samples": found.lines(test)[:SHOWN],
    }


def trained(agent: Any, env: Any, seconds: float) -> int:
    """Updates that fit into the time."""
    start, updates = time.process_time(), 0
    while time.process_time() - start < seconds:
        agent.update(agent.collect(env))
        updates += 1
    return updates


def scored(policy: Any, test: Any, setting: Setting) -> Any:
    """The texts for some items, the same each time, and their scores."""
    return evaluate_texts(policy, test, setting.decode, limit=TEXTS)


if __name__ == "__main__":
    main()
