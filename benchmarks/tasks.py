"""One CPU minute on every text task: likelihood, then REINFORCE, scored on items held out; and samples.

    OMP_NUM_THREADS=1 python benchmarks/tasks.py

No tuned recipe: it shows that each task can be learned by name alone, on one processor core.
"""

from __future__ import annotations

import time
from typing import Any

import record
import torch

import rlseq

SECONDS = 25  # of each stage, on one processor core
SHOWN = 3
POLICIES = {"rlseq/Text-v0": "lstm"}  # seq2seq where there is a source
HELD_OUT: dict[str, dict[str, Any]] = {"rlseq/HMM-v0": {"data_seed": 1}}  # "test" elsewhere
IDS = [f"rlseq/{name}-v0" for name in ("Parallel", "G2P", "Numbers", "Text", "HMM")]


def main() -> None:
    """Train on every task, and write the results."""
    results = {}
    for id in IDS:
        results[id] = learned(id)
        print(id, {stage: found["reward"] for stage, found in results[id]["stages"].items()})
    print(record.write("tasks", {"seconds_of_each_stage": SECONDS, "tasks": results}))


def learned(id: str) -> dict[str, Any]:
    """Scores before training and after each stage, and what the last policy writes."""
    env = rlseq.make(id, num_envs=64)
    test = rlseq.make(id, num_envs=100, **HELD_OUT.get(id, {"split": "test"}))
    policy = rlseq.make_policy(POLICIES.get(id, "seq2seq"), env, hidden=128, embedding=64)
    stages = {"untrained": scored(policy, test)}
    for name, agent in (
        ("likelihood", rlseq.make_agent("mle", policy, lr=2e-3)),
        ("reinforce", rlseq.make_agent("reinforce", policy, lr=5e-4)),
    ):
        updates = trained(agent, env)
        stages[name] = {"updates": updates, **scored(policy, test)}
    batch = rlseq.rollout(policy, test, decode=rlseq.Greedy(), index=torch.arange(test.num_envs))
    texts = test.texts(batch.actions, batch.mask)[:SHOWN]
    references = [
        test.vocab.decode(row[0, : n[0]].tolist())
        for row, n in zip(batch.context["references"], batch.context["reference_lengths"], strict=True)
    ]
    samples = list(zip(test.sources()[:SHOWN], references, texts, strict=False))
    return {"stages": stages, "samples": samples}


def trained(agent: Any, env: Any) -> int:
    """Updates that fit into the time."""
    start, updates = time.process_time(), 0
    while time.process_time() - start < SECONDS:
        agent.update(agent.collect(env))
        updates += 1
    return updates


def scored(policy: Any, env: Any) -> dict[str, Any]:
    """Greedy scores, and those of samples where a task asks for variety, on 500 items."""
    decode = "sample" if env.source_vocab is None else "greedy"
    return {name: round(value, 4) for name, value in rlseq.evaluate(policy, env, decode, limit=500).items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
