"""Generic answers: how many likelihood learns, and what each reward makes of them.

    OMP_NUM_THREADS=1 python benchmarks/chat.py [--seconds 6]

One answer in ten of the default data of `rlseq/Chat-v0` is generic. A seq2seq learns by likelihood, and goes
on from there by RLOO on each reward. Tested greedily and by samples on held-out questions, one seed.
"self-play" is a dialogue of three turns in which the policy speaks for both.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import record
import torch

import rlseq
from rlseq.engine.evaluation import evaluate_texts

ID = "rlseq/Chat-v0"
REWARDS = ("rules", "chrf", "bleu")
FIGURES = ("rules", "generic", "off_topic", "loops", "short", "distinct_2", "length", "different")


def main() -> None:
    """Learn, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--seconds", type=float, default=6, help="of each reward; likelihood takes twice as many"
    )
    seconds = parser.parse_args().seconds
    torch.set_num_threads(1)
    results = {}
    parts: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
        "answers": ({}, REWARDS),
        "self-play": ({"turns": 2, "user": "self"}, ("rules",)),
    }
    for name, (options, rewards) in parts.items():
        env = rlseq.make(ID, num_envs=64, **options)
        start = rlseq.make_policy("seq2seq", env, hidden=64, embedding=32)
        trained(rlseq.make_agent("mle", start, lr=4e-3), env, 2 * seconds)
        results[f"{name}: likelihood"] = tested(start, options)
        for reward in rewards:
            env = rlseq.make(ID, num_envs=64, reward=reward, **options)
            policy = rlseq.make_policy("seq2seq", env, hidden=64, embedding=32)
            policy.load_state_dict(start.state_dict())
            trained(rlseq.make_agent("rloo", policy, lr=1e-3), env, seconds)
            results[f"{name}: {reward}"] = tested(policy, options)
            print(name, reward, results[f"{name}: {reward}"]["greedy"], flush=True)
    print(record.write("chat", {"seconds_of_each_reward": seconds, "stages": results}))


def trained(agent: Any, env: Any, seconds: float) -> None:
    """Update for some CPU seconds."""
    start = time.process_time()
    while time.process_time() - start < seconds:
        agent.update(agent.collect(env))


def tested(policy: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Figures of greedy texts and of samples, and two of each."""
    found: dict[str, Any] = {}
    for decode in ("greedy", "sample"):
        env = rlseq.make(ID, num_envs=64, seed=1, split="test", **options)
        texts = evaluate_texts(policy, env, decode)
        lines, means = texts.lines(env), texts.means()
        means["different"] = len({line["text"] for line in lines}) / len(lines)
        found[decode] = {name: round(float(means[name]), 4) for name in FIGURES}
        found[f"{decode}_texts"] = [[line["source"], line["text"]] for line in lines[:2]]
    return found


if __name__ == "__main__":
    main()
