"""Minimum Bayes risk against beam search, on the metric that the utility is, and its cost.

    python benchmarks/mbr.py [--items 2000] [--samples 8 32]

On G2P (edits of phonemes) and Parallel (BLEU) a model is trained by likelihood, on Parallel not to the end,
where every decoder writes the reference; then test items are written greedily, by a beam of 5, and by minimum
Bayes risk from samples at temperature τ. The utility is the task's reward. Intervals are of the paired
difference from the beam over items; seconds are of one core; texts are the hypotheses written for each item.
The last measurement is the whole utility matrix of 32 samples of 1,000 items.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import record
import torch

import rlseq
from rlseq.compare import statistics
from rlseq.engine.evaluation import evaluate_texts
from rlseq.engine.mbr import MBR, utilities
from rlseq.mdp.task import no_reward

TASKS = {"G2P": ("rlseq/G2P-v0", 1500), "Parallel": ("rlseq/Parallel-v0", 120)}  # with their updates
MODEL: dict[str, Any] = {"hidden": 64, "embedding": 32}


def measure(name: str, items: int, samples: list[int]) -> dict[str, Any]:
    """Every decoder on one task."""
    id, updates = TASKS[name]
    env: Any = rlseq.make(id, num_envs=64)
    test: Any = rlseq.make(id, num_envs=50, split="test")
    policy = rlseq.make_policy("seq2seq", env, seed=0, **MODEL)
    agent = rlseq.make_agent("mle", policy, lr=3e-3, schedule="linear")
    history = rlseq.train(agent, env, updates=updates, alarms="ignore", quiet=True)
    decoders: dict[str, Any] = {
        "greedy": rlseq.Greedy(),
        "beam 5": rlseq.Beam(5),
        **{f"MBR {k}, τ = {heat}": MBR(k, temperature=heat) for heat in (1.0, 0.5) for k in samples},
    }
    found: dict[str, Any] = {}
    for way, decode in decoders.items():
        test.reseed(0)
        began = time.process_time()
        scores = evaluate_texts(policy, test, decode, {}, items).scores["reward"].double()
        texts = decode.samples if isinstance(decode, MBR) else getattr(decode, "width", 1)
        found[way] = {"scores": scores, "seconds": time.process_time() - began, "texts": texts}
    beam = found["beam 5"]["scores"]
    for each in found.values():
        scores = each.pop("scores")
        mean, low, high, _ = statistics.paired_difference(scores.numpy(), beam.numpy())
        gain = {"mean": float(mean), "low": float(low), "high": float(high)}
        each |= {"reward": float(scores.mean()), "beyond beam": gain}
    return {
        "decoders": found,
        "metric": "+".join(env.parts),
        "items": len(beam),
        "nll": float(history[-1]["nll"]),
    }


def matrix(metric: str) -> dict[str, float]:
    """Seconds of one core for the utilities of 32 samples of 1,000 items of about 17 words."""
    env = rlseq.make("rlseq/Copy-v0", num_envs=32_000, vocab_size=40, length=20)
    policy = rlseq.make_policy("gru", env, hidden=16, embedding=8, seed=0)
    index = torch.arange(1000) % env.size
    batch = rlseq.rollout(policy, env.replace(reward=no_reward), repeat=32, index=index)
    began = time.process_time()
    utilities(batch, 32, metric, env.vocab)
    return {"seconds": time.process_time() - began, "length": float(batch.lengths.float().mean())}


def main() -> None:
    """Measure, and print or keep the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--samples", type=int, nargs="+", default=[8, 32])
    given = parser.parse_args()
    torch.set_num_threads(1)
    tasks = {name: measure(name, given.items, given.samples) for name in TASKS}
    costs = {metric: matrix(metric) for metric in ("edit_distance", "bleu")}
    print(record.write("mbr", {"tasks": tasks, "utility matrix": costs, "settings": vars(given)}))


if __name__ == "__main__":
    main()
