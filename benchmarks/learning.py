"""Every agent from the same likelihood start, for the same number of sampled tokens: what does each gain?

    python benchmarks/learning.py [--seeds 4] [--tokens 300000] [--agents scst rloo …]

The task is to write six letters backwards, judged by edit distance (1 − errors / length). Likelihood learns
from 200 pairs until it overfits them, and is kept where fresh pairs are likeliest; every agent goes on from
that, on sources without references (but for MIXER, which needs them and has the 200). A greedy text that an
agent writes for its baseline, and a completion, count as tokens like any other.

Each agent's step size is chosen from three on a seed of its own (the tuning seed), and then used for all
others. Scores are greedy, on 1,000 sources that nobody trained on. Two controls show what is gained without
information: a constant reward, and rewards dealt to other texts. `gkd` looks at no reward: its teachers are
wider LSTMs that likelihood has taught 10,000 pairs, the same for all seeds. Finished runs are kept in
runs/learning and not done again; remove that folder to start afresh.
"""

from __future__ import annotations

import argparse
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import record
import torch
from safetensors.torch import load_model, save_model

import rlseq
from rlseq.compare import statistics
from rlseq.discriminators import Adversary, make_discriminator
from rlseq.discriminators.adversary import random_prefix, whole
from rlseq.metrics import Constant, EditDistance, Shuffled

TASK: dict[str, Any] = {"vocab_size": 10, "length": 6}
RATES = (1e-4, 3e-4, 1e-3)
ROWS = 256
TUNING_SEED = 1000
FEW = ("mixer", "adversarial", "regs")  # agents that learn from references get those of likelihood only
ROUNDS: dict[str, Any] = {"d": 1, "k": 1, "pretraining": 20}  # texts that a discriminator reads spend tokens
VIEWS = {"adversarial": whole, "regs": random_prefix}  # agent → what its discriminator learns from
TEACHERS = {"gkd, two teachers": 2}  # how many, where it is not one
TAUGHT: dict[str, Any] = {"hidden": 128, "embedding": 64, "lr": 3e-3, "updates": 600}  # a teacher
RUNS = Path("runs/learning")

# name → the agent, its hyper-parameters, and what becomes of the reward
AGENTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "reinforce, none": ("reinforce", {"baseline": "none"}, "true"),
    "reinforce, mean": ("reinforce", {"baseline": "mean"}, "true"),
    "reinforce, moving average": ("reinforce", {"baseline": "moving_average"}, "true"),
    "reinforce, regression": ("reinforce", {"baseline": "regression"}, "true"),
    "reinforce, learned value": ("reinforce", {"baseline": "value"}, "true"),
    "reinforce, greedy corrected": ("reinforce", {"baseline": "greedy_corrected"}, "true"),
    "reinforce, whitened": ("reinforce", {"baseline": "mean", "scale": "by_batch"}, "true"),
    "scst": ("scst", {}, "true"),
    "rloo": ("rloo", {}, "true"),
    "grpo": ("grpo", {}, "true"),
    "dr_grpo": ("dr_grpo", {}, "true"),
    "dapo": ("dapo", {}, "true"),
    "gspo": ("gspo", {"minibatches": 4}, "true"),
    "cispo": ("cispo", {"minibatches": 4}, "true"),
    "sapo": ("sapo", {"minibatches": 4}, "true"),
    "gmpo": ("gmpo", {"minibatches": 4}, "true"),
    "dppo": ("dppo", {"minibatches": 4}, "true"),
    "reinforce_pp": ("reinforce_pp", {}, "true"),
    "reinforce_pp, baseline": ("reinforce_pp", {"samples": 4, "baseline": "group_mean"}, "true"),
    "opo": ("reinforce", {"samples": 4, "baseline": "length_weighted"}, "true"),
    "optimal token": ("reinforce", {"samples": 4, "baseline": "optimal_token"}, "true"),
    "pass@8": ("reinforce", {"samples": 8, "credit": "pass_at_k", "baseline": "none"}, "true"),
    "maxrl": ("grpo", {"scale": "by_mean", "kl": 0.0}, "true"),
    "gdpo": (
        "reinforce",
        {"samples": 8, "credit": "per_metric", "baseline": "none", "scale": "by_batch"},
        "true",
    ),
    "dpo": ("dpo", {"samples": 4}, "true"),
    "cpo": ("cpo", {"samples": 4}, "true"),
    "dro": ("dro", {"baseline": "leave_one_out"}, "true"),
    "dro, kimi": ("dro", {"baseline": "group_mean"}, "true"),
    "dro, a-star-po": ("dro", {"baseline": "optimal_value"}, "true"),
    "dro, reinvent": ("dro", {"baseline": "none"}, "true"),
    "mbr fine-tuning": (
        "reinforce",
        {"samples": 8, "credit": "consensus", "baseline": "none", "scale": "best_of_group"},
        "true",
    ),
    "mbr-dpo": ("dpo", {"samples": 8, "credit": "consensus"}, "true"),
    "gkd, reverse KL": ("gkd", {"distance": "reverse_kl"}, "true"),
    "gkd, forward KL": ("gkd", {"distance": "forward_kl"}, "true"),
    "gkd, Jensen-Shannon": ("gkd", {"distance": "jensen_shannon"}, "true"),
    "gkd, two teachers": ("gkd", {"distance": "reverse_kl"}, "true"),
    "vineppo": ("vineppo", {"completions": 4}, "true"),
    "raft": ("reinforce", {"samples": 8, "baseline": "none", "scale": "best_of_group"}, "true"),
    "adversarial, D of texts": ("adversarial", ROUNDS, "true"),
    "regs, D of every prefix": ("regs", ROUNDS, "true"),
    "mrt": ("mrt", {"sharpness": 0.05}, "true"),
    "mrt_corrected": ("mrt_corrected", {}, "true"),
    "a2c": ("a2c", {}, "true"),
    "ppo": ("ppo", {}, "true"),
    "ppo_kl": ("ppo_kl", {}, "true"),
    "mixer": ("mixer", {"xent_share": 0.0, "delta": 2}, "true"),
    "control: constant reward": ("reinforce", {"baseline": "none"}, "constant"),
    "control: shuffled reward": ("reinforce", {"baseline": "mean"}, "shuffled"),
    "control: shuffled reward, rloo": ("rloo", {}, "shuffled"),
}


def task(rows: int, **options: Any) -> Any:
    """Reverse-v0, judged by edit distance."""
    env = rlseq.make("rlseq/Reverse-v0", num_envs=rows, **options, **TASK)
    references = [[row] for row in env.items["references"][:, 0].tolist()]
    env.parts = {"edit": EditDistance(references, eos=0)}
    return env


def likelihood(seed: int) -> Any:
    """The start of all agents of a seed: it imitated 200 pairs, until fresh ones were likeliest."""
    kept = RUNS / f"start-{seed}.safetensors"
    pairs, dev = task(128, items=200, seed=seed), task(500, items=500, data_seed=2, seed=seed)
    policy = rlseq.make_policy("lstm", pairs, hidden=64, embedding=32, value=True)
    if kept.exists():
        load_model(policy, kept)
        return policy
    agent, best = rlseq.make_agent("mle", policy, lr=3e-3), (float("inf"), deepcopy(policy.state_dict()))
    held_out = agent.collect(dev)
    for _ in range(40):
        rlseq.train(agent, pairs, updates=10)
        with torch.no_grad():
            nll = float(agent.loss(held_out)[0])
        if nll < best[0]:
            best = nll, deepcopy(policy.state_dict())
    policy.load_state_dict(best[1])
    RUNS.mkdir(parents=True, exist_ok=True)
    save_model(policy, str(kept))
    return policy


def teacher(number: int) -> Any:
    """Return a wider policy that likelihood has taught 10,000 pairs."""
    kept, pairs = RUNS / f"teacher-{number}.safetensors", task(128, items=10_000, seed=number)
    policy = rlseq.make_policy(
        "lstm", pairs, hidden=TAUGHT["hidden"], embedding=TAUGHT["embedding"], seed=number
    )
    if kept.exists():
        load_model(policy, kept)
        return policy
    agent = rlseq.make_agent("mle", policy, lr=TAUGHT["lr"])
    rlseq.train(agent, pairs, updates=TAUGHT["updates"], alarms="ignore", quiet=True)
    RUNS.mkdir(parents=True, exist_ok=True)
    save_model(policy, str(kept))
    return policy


def beside(name: str, env: Any, seed: int) -> dict[str, Any]:
    """Return the networks that an agent learns from beside the rewards of a task."""
    agent = AGENTS[name][0]
    if agent in VIEWS:
        return {"adversary": adversary(env, VIEWS[agent], seed)}
    if agent == "gkd":
        return {"teacher": [teacher(number) for number in range(TEACHERS.get(name, 1))]}
    return {}


def adversary(env: Any, view: Any, seed: int) -> Adversary:
    """A discriminator of pairs that has learned nothing yet, a GRU whatever it learns from."""
    judge = make_discriminator("gru", env, seed=seed, hidden=64, embedding=32)
    return Adversary(judge, view=view, lr=1e-3, texts=ROWS)


def run(name: str, seed: int, lr: float, tokens: int) -> dict[str, Any]:
    """One agent from one start; read where it was done before."""
    kept = RUNS / f"{name.replace(' ', '-')}-{seed}-{lr}-{tokens}.json"
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return found
    policy, test = likelihood(seed), task(500, split="test", seed=seed)
    agent_name, hyper, reward = AGENTS[name]
    env = task(ROWS, items=200 if agent_name in FEW else 10_000, seed=seed)
    if reward == "constant":
        env.parts = {"constant": Constant()}
    elif reward == "shuffled":
        env.parts = {"shuffled": Shuffled(env.parts["edit"], seed=seed)}
    before = rlseq.evaluate(policy, test)["reward"]
    agent = rlseq.make_agent(agent_name, policy, lr=lr, **hyper, **beside(name, env, seed))
    history = rlseq.train(
        agent, env, budget_tokens=tokens, eval_env=test, eval_every=max(1, tokens // 8), alarms="ignore"
    )
    curve = [[row["tokens"], row["eval_reward"]] for row in history if "eval_reward" in row]
    sampled = rlseq.evaluate(policy, test, decode="sample")["reward"]
    result = {
        "before": before,
        "after": curve[-1][1],
        "sampled": sampled,
        "curve": curve,
        "updates": len(history),
    }
    kept.write_text(json.dumps(result), encoding="utf-8")
    return result


def main() -> None:
    """Choose step sizes, run all seeds, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=300_000)
    parser.add_argument("--agents", nargs="+", default=list(AGENTS), choices=list(AGENTS))
    parser.add_argument("--out", default="learning", help="name of the file of results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in options.agents:
        tuned = {lr: run(name, TUNING_SEED, lr, options.tokens)["after"] for lr in RATES}
        lr = max(tuned, key=lambda rate: tuned[rate])
        runs = [run(name, seed, lr, options.tokens) for seed in range(options.seeds)]
        before, after = ([r[key] for r in runs] for key in ("before", "after"))
        gain = [a - b for a, b in zip(after, before, strict=True)]
        (mean, low, high, _), n = statistics.welch(gain, [0.0] * len(gain))[0], len(gain)
        rows.append(
            {
                "agent": name,
                "lr": lr,
                "before": before,
                "after": after,
                "sampled": [r["sampled"] for r in runs],
                "gain": {"mean": float(mean), "low": float(low), "high": float(high), "n": n},
                "updates": runs[0]["updates"],
                "tuning": {str(rate): score for rate, score in tuned.items()},
                "curves": [r["curve"] for r in runs],
            }
        )
        print(
            f"{name:<32} lr {lr:<7} {sum(after) / n:.3f}  gain {mean:+.3f} [{low:+.3f}, {high:+.3f}]",
            flush=True,
        )
    results: dict[str, Any] = {"tokens": options.tokens, "agents": rows}
    if any(AGENTS[name][0] == "gkd" for name in options.agents):
        test = task(500, split="test", seed=0)
        scores = [rlseq.evaluate(teacher(number), test)["reward"] for number in range(2)]
        results["teachers"] = {**TAUGHT, "reward": scores}
    print(record.write(options.out, results))


if __name__ == "__main__":
    main()
