"""Exact copies, a sparse reward: REINFORCE alone, with curiosity, and with two curricula.

    python benchmarks/sparse.py [--tokens 4e5] [--seeds 2]

Every row has as many tokens, those given by references among them. Tested on held-out sources of full length.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import record
import torch

import rlseq
from rlseq.envs.wrappers.curiosity import Curiosity
from rlseq.envs.wrappers.curriculum import BySuccess, Curriculum, ReverseCurriculum

WORDS, LENGTH, ROWS = 6, 4, 64  # V, words of a source, texts of a batch
CHECKS = 8  # evaluations of a run
SOLVED = 0.95


def task(seed: int, shortest: int | None = None, **options: Any) -> Any:
    """Return the task; full length where no shortest one is given."""
    sizes = {"vocab_size": WORDS, "length": LENGTH, "shortest": shortest, "reward": "exact"}
    return rlseq.make("rlseq/Copy-v0", **{"num_envs": ROWS, "seed": seed, **sizes, **options})


ROWS_OF_TABLE: dict[str, Callable[[int], Any]] = {
    "reinforce": task,
    "curiosity": lambda seed: Curiosity(task(seed), weight=0.01),
    "all lengths": lambda seed: task(seed, shortest=1),
    "short first": lambda seed: Curriculum(task(seed, shortest=1), BySuccess(wanted=0.6)),
    "reverse": lambda seed: ReverseCurriculum(task(seed)),
}


def trained(make: Callable[[int], Any], seed: int, tokens: int) -> dict[str, Any]:
    """Train once; return the curve of exact copies, and the tokens after which it was solved."""
    env, test = make(seed), task(0, num_envs=200, split="test")
    policy = rlseq.make_policy("lstm", env, hidden=48, embedding=24)
    agent = rlseq.make_agent("reinforce", policy, lr=3e-3, entropy=0.1)
    started = time.process_time()
    history = rlseq.train(
        agent,
        env,
        eval_env=test,
        budget_tokens=tokens,
        eval_every=tokens // CHECKS,
        quiet=True,
        alarms="ignore",
        probe=False,
    )
    curve = [(int(row["tokens"]), row["eval_reward"]) for row in history if "eval_reward" in row]
    solved = next((at for at, reward in curve if reward >= SOLVED), None)
    seconds = round(time.process_time() - started, 1)
    return {"seed": seed, "curve": curve, "solved": solved, "seconds": seconds, **env.counts.as_dict()}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=float, default=4e5)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ROWS_OF_TABLE}
    for seed in range(options.seeds):
        for name, make in ROWS_OF_TABLE.items():
            found[name].append(trained(make, seed, int(options.tokens)))
            last = found[name][-1]
            print(name, seed, last["curve"][-1], last["solved"], f"{last['seconds']} s", flush=True)
    record.write("sparse", {"words": WORDS, "length": LENGTH, "tokens": options.tokens, "rows": found})


if __name__ == "__main__":
    main()
