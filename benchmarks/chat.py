"""Generic answers: how many likelihood learns, and what each reward makes of them.

    OMP_NUM_THREADS=1 python benchmarks/chat.py [--seconds 6]

One answer in ten of the default data of `rlseq/Chat-v0` is generic. A seq2seq learns by likelihood, and goes
on from there by RLOO on each reward, or against a discriminator that reads question and answer: of whole
answers, or of every prefix. Tested greedily and by samples on held-out questions; means over several seeds,
with intervals over them. "self-play" is a dialogue of three turns in which the policy speaks for both, or two
policies speak, each for itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import record
import torch
from recipes.seeds import trained

import rlseq
from rlseq.agents.adversarial import Adversarial
from rlseq.agents.seqgan import REGS
from rlseq.compare.statistics import mean_interval
from rlseq.discriminators import Adversary
from rlseq.discriminators.adversary import random_prefix, whole
from rlseq.discriminators.objectives import log_probability
from rlseq.engine.evaluation import evaluate_texts
from rlseq.policy_gradient.baselines import mean

ID = "rlseq/Chat-v0"
FIGURES = ("rules", "generic", "off_topic", "loops", "short", "distinct_2", "length", "different")


def main() -> None:
    """Learn, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--seconds", type=float, default=6, help="of each reward; likelihood takes twice as many"
    )
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = [learned(options.seconds, seed) for seed in range(options.seeds)]
    stages = {stage: over_seeds([one[stage] for one in seeds]) for stage in seeds[0]}
    print(record.write("chat", {"seconds_of_each_reward": options.seconds, "stages": stages}))


def learned(seconds: float, seed: int) -> dict[str, Any]:
    """Train every policy with a seed, and test it."""
    torch.manual_seed(seed)
    found: dict[str, Any] = {}
    for name, (policy, options, ways) in PARTS.items():
        env = rlseq.make(ID, num_envs=64, seed=seed, **options)
        start = rlseq.make_policy(policy, env, hidden=64, embedding=32)
        trained(rlseq.make_agent("mle", start, lr=4e-3), env, 2 * seconds)
        found[f"{name}: likelihood"] = tested(start, options)
        for way in ways:
            rewarded: dict[str, Any] = {**options, "reward": way if way in REWARDS else "rules"}
            env = rlseq.make(ID, num_envs=64, seed=seed, **rewarded)
            follower = rlseq.make_policy(policy, env, hidden=64, embedding=32)
            follower.load_state_dict(start.state_dict())
            trained(AGENTS.get(way, by_reward)(follower, env), env, seconds)
            found[f"{name}: {way}"] = tested(follower, options)
            print(seed, name, way, found[f"{name}: {way}"]["greedy"], flush=True)
    return found


def over_seeds(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean of every figure with its interval over seeds, and the texts of the first seed."""
    stage: dict[str, Any] = {}
    for how in ("greedy", "sample"):
        stage[how] = {name: interval([one[how][name] for one in found]) for name in FIGURES}
        stage[f"{how}_texts"] = found[0][f"{how}_texts"]
    return stage


def interval(values: Sequence[float]) -> list[float]:
    """Return the mean with Student's interval; of one value the value alone."""
    mean_, low, high, _ = mean_interval(values)
    return [round(float(x), 4) for x in (mean_, low, high)[: 3 if len(values) > 1 else 1]]


def by_reward(policy: Any, env: Any) -> Any:
    """Return the agent that trains on the reward of the task."""
    return rlseq.make_agent("rloo", policy, lr=1e-3)


def by_answers(policy: Any, env: Any) -> Any:
    """Return an agent whose reward is log D of question and answer."""
    return Adversarial(policy, lr=1e-3, baseline=mean, **against(env, whole))


def by_prefixes(policy: Any, env: Any) -> Any:
    """Return an agent whose every word is credited with D of the answer so far."""
    return REGS(policy, lr=1e-3, baseline=mean, **against(env, random_prefix))


def against(env: Any, view: Any) -> dict[str, Any]:
    """Return the adversary, and how often it learns."""
    network = rlseq.make_discriminator("gru", env, hidden=64, embedding=32)
    adversary = Adversary(network, value=log_probability, view=view, lr=1e-3, texts=256)
    return {"adversary": adversary, "pretraining": 8, "g": 2, "d": 1, "k": 1}


REWARDS = ("rules", "chrf", "bleu")
AGENTS = {"D of answers": by_answers, "D of prefixes": by_prefixes}
SELF_PLAY = {"turns": 2, "user": "self"}
PARTS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "answers": ("seq2seq", {}, (*REWARDS, *AGENTS)),
    "self-play": ("seq2seq", SELF_PLAY, ("rules",)),
    "self-play of two": ("speakers", SELF_PLAY, ("rules",)),
}


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
