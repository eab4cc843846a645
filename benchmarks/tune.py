"""Do the settings that `rlseq tune` finds beat the defaults, on dev items and on test items?

    python benchmarks/tune.py [--trials 12] [--tokens 50000] [--seeds 4] [--folder runs/tune-g2p]

A search for likelihood on G2P from nothing. Then what it kept and the defaults are trained with further seeds
and tested, which the search never does. Two questions have an interval each: would other texts differ as well
(over the test items, means over seeds), and would other trainings (over seeds)? Writes results/tune.json. The
same folder continues a search that was interrupted.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import record
import torch

import rlseq
from rlseq.compare.statistics import as_tree, paired_difference, welch
from rlseq.engine.evaluation import evaluate_texts

TASK, AGENT, ROWS = "rlseq/G2P-v0", "mle", 64
SIZES = {"hidden": 64, "embedding": 32}
FIRST_SEED = 100  # of the tests; the search uses the first ones


def tested(seed: int, tokens: int, **hyper: Any) -> torch.Tensor:
    """Train from nothing; return the reward of the greedy text of every test item."""
    env = rlseq.make(TASK, num_envs=ROWS, seed=seed)
    policy = rlseq.make_policy("seq2seq", env, seed=seed, **SIZES)
    agent = rlseq.make_agent(AGENT, policy, **hyper)
    rlseq.train(agent, env, budget_tokens=tokens, alarms="ignore", probe=False, quiet=True)
    return evaluate_texts(policy, rlseq.make(TASK, split="test", num_envs=250)).scores["reward"]


def main() -> None:
    """Search, train again, test, and write the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=50_000)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--folder", default="runs/tune-g2p")
    given = parser.parse_args()
    began = time.process_time()
    found = rlseq.tune(
        TASK,
        AGENT,
        trials=given.trials,
        budget_tokens=given.tokens,
        policy="seq2seq",
        sizes=SIZES,
        options={"num_envs": ROWS},
        out=given.folder,
    ).results
    searched = time.process_time() - began
    seeds = range(FIRST_SEED, FIRST_SEED + given.seeds)
    settings = {"kept": found["hyper"], "defaults": {}}
    rewards = {
        name: torch.stack([tested(seed, given.tokens, **hyper) for seed in seeds]).double()
        for name, hyper in settings.items()
    }
    means = {name: rows.mean(1).tolist() for name, rows in rewards.items()}
    over_items = paired_difference(rewards["kept"].mean(0), rewards["defaults"].mean(0))
    over_seeds, p = welch(means["kept"], means["defaults"])
    results = {
        "task": TASK,
        "agent": AGENT,
        "tokens": given.tokens,
        "study": found["study"],
        "dev": found["again"],
        "kept": {"name": found["kept"], "hyper": found["hyper"]},
        "importances": found["importances"],
        "test": {"items": len(rewards["kept"][0]), "rewards": means},
        "difference over items": as_tree(over_items),
        "difference over seeds": {**as_tree(over_seeds), "p": float(p)},
        "CPU seconds of the search": round(searched),
        "CPU seconds": round(time.process_time() - began),
    }
    print(record.write("tune", results))


if __name__ == "__main__":
    main()
