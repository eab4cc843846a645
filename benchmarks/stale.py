"""What do older samples and older gradients cost at equal tokens?

    python benchmarks/stale.py [--tokens 30000] [--seeds 3]

Copies of four words of six, from nothing: GRPO with one step a batch without and with `overlap`, whose
batches are one update old and corrected by the ratio; A2C, and A3C with 2, 4 and 8 workers, whose gradients
are 1, 3 and 7 updates old and not corrected. Greedy texts of held-out sources. Writes results/stale.json.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import record
import torch

import rlseq

ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "grpo": ("grpo", {"samples": 4}),
    "grpo, overlap": ("grpo", {"samples": 4, "overlap": True}),
    "a2c": ("a2c", {}),
    **{f"a3c, {workers} workers": ("a3c", {"workers": workers}) for workers in (2, 4, 8)},
}


def reached(arm: str, seed: int, tokens: int) -> float:
    """Train from nothing; return the reward of greedy texts of held-out sources."""
    name, hyper = ARMS[arm]
    task: dict[str, Any] = {"length": 4, "vocab_size": 6}
    env = rlseq.make("rlseq/Copy-v0", num_envs=64, seed=seed, **task)
    policy = rlseq.make_policy("gru", env, hidden=32, embedding=16, value=True, seed=seed)
    agent = rlseq.make_agent(name, policy, lr=5e-3, **hyper)
    rlseq.train(agent, env, budget_tokens=tokens, alarms="ignore", probe=False, quiet=True)
    test = rlseq.make("rlseq/Copy-v0", num_envs=50, split="test", **task)
    return round(rlseq.evaluate(policy, test)["reward"], 4)


def main() -> None:
    """Train all arms with all seeds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=30_000)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    rewards = {arm: [reached(arm, seed, given.tokens) for seed in range(given.seeds)] for arm in ARMS}
    results = {"tokens": given.tokens, "rewards": rewards, "CPU seconds": round(time.process_time() - began)}
    print(rewards, record.write("stale", results))


if __name__ == "__main__":
    main()
