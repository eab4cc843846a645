"""Minimum Bayes risk against beam search, on the metric that the utility is, and its cost.

    python benchmarks/mbr.py [--tasks G2P …] [--out mbr]

On G2P (edits of phonemes) and Parallel (BLEU) models are trained by likelihood, on Parallel not to the end,
where every decoder writes the reference. Then test items are written greedily, by a beam of 5, and by minimum
Bayes risk from K samples at temperature τ, with and without the texts of the beam as candidates. The utility
is the task's reward. K and τ were chosen on models of seed 0, of which that of Parallel is shown ("chosen
on"); the others have other seeds, on Parallel, which has 200 test items, five of them. Intervals are of the
paired difference from the beam over items, of all models together; seconds are of one core; texts are the
hypotheses written for each item. The last measurement is the utility matrix of 32 samples of 1,000 items.
"""

from __future__ import annotations

import argparse
import time
from typing import Any, NamedTuple

import record
import torch

import rlseq
from rlseq.compare import statistics
from rlseq.engine.evaluation import evaluate_texts
from rlseq.engine.mbr import MBR, utilities
from rlseq.mdp.task import no_reward

MODEL: dict[str, Any] = {"hidden": 64, "embedding": 32}


class Setting(NamedTuple):
    """A task, the updates of likelihood, seeds of models, test items of each, samples at temperatures."""

    task: str
    updates: int
    seeds: tuple[int, ...]
    items: int
    sampled: tuple[tuple[int, float], ...]


SETTINGS = {
    "G2P": Setting("rlseq/G2P-v0", 1500, (1,), 1500, ((64, 1.0),)),
    "Parallel": Setting("rlseq/Parallel-v0", 120, (1, 2, 3, 4, 5), 200, ((32, 1.0), (32, 0.3))),
    "Parallel, chosen on": Setting("rlseq/Parallel-v0", 120, (0,), 200, ((32, 1.0), (32, 0.3))),
}


def trained(setting: Setting, seed: int) -> Any:
    """Return a model trained by likelihood."""
    env = rlseq.make(setting.task, num_envs=64, seed=seed)
    policy = rlseq.make_policy("seq2seq", env, seed=seed, **MODEL)
    agent = rlseq.make_agent("mle", policy, lr=3e-3, schedule="linear")
    rlseq.train(agent, env, updates=setting.updates, alarms="ignore", quiet=True)
    return policy


def decoders(setting: Setting) -> dict[str, Any]:
    """Return the decoders by name."""
    least_risk = {
        f"MBR {k}, τ = {heat}{', and the beam' if beam else ''}": MBR(k, temperature=heat, beam=beam)
        for k, heat in setting.sampled
        for beam in (0, 5)
    }
    return {"beam 5": rlseq.Beam(5), "greedy": rlseq.Greedy(), **least_risk}


def measure(setting: Setting) -> dict[str, Any]:
    """Every decoder on one task."""
    test: Any = rlseq.make(setting.task, num_envs=50, split="test")
    models = [trained(setting, seed) for seed in setting.seeds]
    found: dict[str, Any] = {}
    beam = None
    for way, decode in decoders(setting).items():
        test.reseed(0)
        began = time.process_time()
        texts = [evaluate_texts(policy, test, decode, {}, setting.items) for policy in models]
        scores = torch.cat([each.scores["reward"] for each in texts]).double()
        seconds = (time.process_time() - began) / len(models)
        beam = scores if beam is None else beam
        mean, low, high, _ = statistics.paired_difference(scores.numpy(), beam.numpy())
        gain = {"mean": float(mean), "low": float(low), "high": float(high)}
        written = (decode.samples + decode.beam) if isinstance(decode, MBR) else getattr(decode, "width", 1)
        found[way] = {
            "seconds": seconds, "texts": written, "reward": float(scores.mean()), "beyond beam": gain,
        }  # fmt: skip
        print(way, found[way], flush=True)
    return {"decoders": found, "metric": "+".join(test.parts), **setting._asdict()}


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
    """Measure, and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--out", default="mbr", help="name of the file of results")
    given = parser.parse_args()
    torch.set_num_threads(1)
    tasks = {name: measure(SETTINGS[name]) for name in given.tasks}
    costs = {metric: matrix(metric) for metric in ("edit_distance", "bleu")}
    print(record.write(given.out, {"tasks": tasks, "utility matrix": costs}))


if __name__ == "__main__":
    main()
