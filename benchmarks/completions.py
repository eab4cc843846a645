"""The cost of Monte-Carlo rewards: 64 texts × 19 prefixes × 16 completions, 5,000 words, SeqGAN's own CNN.

    python benchmarks/completions.py

The measure is the discriminator's own forward passes on those 19,456 texts, which nobody can save. Beside
`Completions`: one prefix at a time, its 16 completions together, with our engine; and as public ports do it,
16 × 19 passes of 64 rows from the first word, each drawn by `torch.multinomial` (two of the sixteen are
run, and counted eightfold). Seconds, the least of five in turn, on an otherwise idle machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import record
import torch
from throughput import plain_loop
from torch import Tensor

import rlseq
from rlseq.discriminators import Adversary
from rlseq.discriminators.texts import rewarded
from rlseq.policy_gradient.credit import Completions

ROWS, SAMPLES, PORTED, REPEATS = 64, 16, 2, 5


def spent(runs: dict[str, Callable[[], Any]], repeats: int = REPEATS) -> dict[str, float]:
    """Seconds of each, the least of some; in turn, so that a machine that slows down slows all of them."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            found[name].append(time.perf_counter() - start)
    return {name: min(seconds) for name, seconds in found.items()}


def main() -> None:
    """Measure, print, and write the JSON."""
    torch.set_num_threads(2)
    env: Any = rlseq.make("rlseq/Oracle-v0", num_envs=ROWS, references=100)
    policy = rlseq.make_policy("lstm", env, hidden=32, embedding=32)
    adversary = Adversary(rlseq.make_discriminator("cnn", env))
    judged = rewarded(env, adversary)
    batch = rlseq.rollout(policy, judged)
    prefixes = range(1, env.max_len)
    texts = env.oracle.sample(ROWS * SAMPLES * len(prefixes))
    mask = torch.ones_like(texts, dtype=torch.bool)
    wide = judged.replace(num_envs=ROWS * SAMPLES)

    def repeated(t: int, times: int) -> Tensor:
        return batch.actions[:, :t].repeat_interleave(times, 0)

    def one_at_a_time() -> None:
        for t in prefixes:
            rlseq.rollout(policy, wide, forced=repeated(t, SAMPLES))

    def ported() -> None:
        for t in prefixes:
            for _ in range(PORTED):
                written, _ = plain_loop(policy, env, batch.actions[:, :t])
                adversary(torch.cat([batch.actions[:, :t], written], 1), mask[:ROWS], {})

    def completed(compile: bool = False) -> None:
        Completions(SAMPLES, compile=compile).prepare(batch, policy, judged)

    completed(compile=True)  # which takes seconds, once
    seconds = {
        **spent(
            {
                "discriminator alone": lambda: adversary(texts, mask, {}),
                "completions": completed,
                "completions, compiled": partial(completed, compile=True),
            }
        ),
        **spent({"one prefix at a time": one_at_a_time, "as ported": ported}, 1),
    }
    seconds["as ported"] *= SAMPLES / PORTED
    ours, judge = seconds["completions, compiled"], seconds["discriminator alone"]
    results = {
        "texts": len(texts),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "completions_divided_by_discriminator": round(seconds["completions"] / judge, 3),
        "compiled_divided_by_discriminator": round(ours / judge, 3),
        "one_prefix_at_a_time_divided_by_compiled": round(seconds["one prefix at a time"] / ours, 2),
        "as_ported_divided_by_compiled": round(seconds["as ported"] / ours, 2),
    }
    print(results)
    print(record.write("completions", results))


if __name__ == "__main__":
    main()
