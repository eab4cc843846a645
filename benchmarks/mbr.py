"""Minimum Bayes risk against beam search, on the metric that the utility is, and its cost.

    python benchmarks/mbr.py [--tasks G2P …] [--out mbr]

On G2P (edits of phonemes) and Parallel (BLEU) models are trained by likelihood, on Parallel not to the end,
where every decoder writes the reference. Then test items are written greedily, by a beam of 5, and by minimum
Bayes risk from K samples: at temperature τ, of the k likeliest words ("top"), or of a nucleus, with and
without the texts of the beam as candidates. The utility is the task's reward. K and the kind of samples were
chosen on models of seed 0 ("chosen on", "samples"); the others have other seeds, on Parallel, which has 200
test items, five of them. Intervals are of the paired difference from the beam over items, of all models
together; seconds are of one core; texts are the hypotheses written for each item. The last measurement is the
utility matrix of 32 samples of 1,000 items.
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
    """A task, the updates of likelihood, seeds of models, test items of each, and decoders."""

    task: str
    updates: int
    seeds: tuple[int, ...]
    items: int
    ways: tuple[MBR, ...]


HEATS = (MBR(32), MBR(32, beam=5), MBR(32, temperature=0.3), MBR(32, temperature=0.3, beam=5))
SAMPLES = (  # of the settings from which is chosen
    *(MBR(k) for k in (8, 32, 128)),
    *(MBR(32, temperature=heat) for heat in (0.7, 0.5, 0.3)),
    *(MBR(32, top_k=k) for k in (2, 3, 5)),
    *(MBR(32, top_p=p) for p in (0.9, 0.7, 0.5)),
)
SETTINGS = {
    "G2P": Setting("rlseq/G2P-v0", 1500, (1,), 1500, (MBR(64), MBR(64, beam=5))),
    "Parallel": Setting("rlseq/Parallel-v0", 120, (1, 2, 3, 4, 5), 200, HEATS),
    "Parallel, chosen on": Setting("rlseq/Parallel-v0", 120, (0,), 200, HEATS),
    "G2P, τ = 0.7": Setting(
        "rlseq/G2P-v0", 1500, (1, 2), 1000, (MBR(64, temperature=0.7), MBR(64, temperature=0.7, beam=5))
    ),
    "G2P, samples": Setting("rlseq/G2P-v0", 1500, (0,), 1000, SAMPLES),
    "Parallel, samples": Setting("rlseq/Parallel-v0", 120, (0,), 200, SAMPLES),
}


def trained(setting: Setting, seed: int) -> Any:
    """Return a model trained by likelihood."""
    env = rlseq.make(setting.task, num_envs=64, seed=seed)
    policy = rlseq.make_policy("seq2seq", env, seed=seed, **MODEL)
    agent = rlseq.make_agent("mle", policy, lr=3e-3, schedule="linear")
    rlseq.train(agent, env, updates=setting.updates, alarms="ignore", quiet=True)
    return policy


def name(decode: MBR) -> str:
    """Return a decoder as it is named in the table."""
    cut = {"top": decode.top_k, "nucleus": decode.top_p}
    kind = "".join(f", {word} {value}" for word, value in cut.items() if value is not None)
    return f"MBR {decode.samples}, τ = {decode.temperature}{kind}{', and the beam' if decode.beam else ''}"


def measure(setting: Setting) -> dict[str, Any]:
    """Every decoder on one task."""
    test: Any = rlseq.make(setting.task, num_envs=50, split="test")
    models = [trained(setting, seed) for seed in setting.seeds]
    found: dict[str, Any] = {}
    beam = None
    others: dict[str, Any] = {"beam 5": rlseq.Beam(5), "greedy": rlseq.Greedy()}
    decoders = others | {name(way): way for way in setting.ways}
    for way, decode in decoders.items():
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
    described = {**setting._asdict(), "ways": [repr(way) for way in setting.ways]}
    return {"decoders": found, "metric": "+".join(test.parts), **described}


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
    tasks = {task: measure(SETTINGS[task]) for task in given.tasks}
    costs = {metric: matrix(metric) for metric in ("edit_distance", "bleu")}
    print(record.write(given.out, {"tasks": tasks, "utility matrix": costs}))


if __name__ == "__main__":
    main()
