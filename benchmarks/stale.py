"""What do older samples and older gradients cost at equal tokens, and what do they gain at equal seconds?

    python benchmarks/stale.py [--tokens 30000] [--seconds 2] [--seeds 3]

Copies of four words of six, from nothing: GRPO with one step a batch without and with `overlap`, whose
batches are one update old and corrected by the ratio; A2C, and A3C with 2, 4 and 8 workers, whose gradients
are 1, 3 and 7 updates old and not corrected. Greedy texts of held-out sources. Seconds are those of the
clock, and worth something on a machine with two processors that does nothing else. Writes results/stale.json.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
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


Training = Callable[[Any, Any], Any]  # of an agent on a task


def for_tokens(tokens: int) -> Training:
    """Return a training of a number of tokens."""
    settings: dict[str, Any] = {"alarms": "ignore", "probe": False, "quiet": True}
    return lambda agent, env: rlseq.train(agent, env, budget_tokens=tokens, **settings)


def for_seconds(seconds: float) -> Training:
    """Return a training of a number of seconds by the clock; the first update is not counted."""

    def train(agent: Any, env: Any) -> None:
        agent.update(agent.collect(env))
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            agent.update(agent.collect(env))

    return train


def reached(arm: str, seed: int, train: Training) -> dict[str, float]:
    """Train from nothing; return the reward of greedy texts of held-out sources, and the tokens it took."""
    name, hyper = ARMS[arm]
    task: dict[str, Any] = {"length": 4, "vocab_size": 6}
    env = rlseq.make("rlseq/Copy-v0", num_envs=64, seed=seed, **task)
    policy = rlseq.make_policy("gru", env, hidden=32, embedding=16, value=True, seed=seed)
    agent = rlseq.make_agent(name, policy, lr=5e-3, **hyper)
    train(agent, env)
    test = rlseq.make("rlseq/Copy-v0", num_envs=50, split="test", **task)
    reward = round(rlseq.evaluate(policy, test)["reward"], 4)
    return {"reward": reward, "tokens": env.counts.as_dict()["tokens"]}


def table(train: Training, seeds: int) -> dict[str, dict[str, list[float]]]:
    """Return rewards and tokens of all arms with all seeds, which take turns."""
    found = [{arm: reached(arm, seed, train) for arm in ARMS} for seed in range(seeds)]
    return {arm: {what: [row[arm][what] for row in found] for what in ("reward", "tokens")} for arm in ARMS}


def main() -> None:
    """Train all arms with all seeds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=30_000)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    results: dict[str, Any] = {
        "tokens": given.tokens,
        "rewards": {arm: row["reward"] for arm, row in table(for_tokens(given.tokens), given.seeds).items()},
        "seconds": given.seconds,
        "load": os.getloadavg()[0],
        "at equal seconds": table(for_seconds(given.seconds), given.seeds),
        "CPU seconds": round(time.process_time() - began),
    }
    print(results, record.write("stale", results))


if __name__ == "__main__":
    main()
