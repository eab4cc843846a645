"""Reward models from simulated labels with noise: what a policy that is trained on them gains, and loses.

    OMP_NUM_THREADS=1 python benchmarks/feedback.py [--updates 160]

A seq2seq learns `rlseq/Chat-v0` by likelihood for a short time. A simulated labeller compares pairs of its
samples by the rules of the task, and is wrong with a given probability; a reward model learns from the pairs,
and RLOO trains on it. The rules are the true reward, which the policy never sees. Tested by ten samples for
each held-out question while training goes on, several seeds; beside it training on the true reward.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import record
import torch

import rlseq
from rlseq.feedback import label, load_reward, train_reward_model

ID = "rlseq/Chat-v0"
LIKELIHOOD = 300  # updates
CASES = ((100, 0.0), (400, 0.0), (400, 0.1), (400, 0.3), (400, 0.5))  # labels, and the share of wrong ones
SAMPLES = 10  # for each question
BETWEEN = 40  # updates after which texts are labelled again
LOOKS = (0, 5, 10, 20, 40, 80, 160, 320)  # updates after which is tested


def main() -> None:
    """Learn, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--updates", type=int, default=160, help="of each policy on its reward")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = [learned(options.updates, seed) for seed in range(options.seeds)]
    cases = {name: [one[name] for one in seeds] for name in seeds[0]}
    results = {"likelihood_updates": LIKELIHOOD, "samples": SAMPLES, "cases": cases}
    print(record.write("feedback", results))


def learned(updates: int, seed: int) -> dict[str, Any]:
    """Learn by likelihood with a seed, and from there on every reward; return what each case found."""
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        env = rlseq.make(ID, num_envs=64, seed=seed)
        start = made(env)
        agent = rlseq.make_agent("mle", start, lr=4e-3)
        rlseq.train(agent, env, LIKELIHOOD, out=folder / "run", quiet=True, probe=False)
        cases: dict[str, Any] = {"the rules themselves": {"curve": curve(start, "rules", updates)}}
        for number, noise in CASES:
            cases[f"{number} labels, {noise:.0%} wrong"] = case(start, folder, number, noise, updates)
        cases["200 + 200 labels, 10% wrong"] = two_rounds(start, folder, 400, 0.1, updates)
    print(seed, {name: found["curve"][-1]["rules"] for name, found in cases.items()}, flush=True)
    return cases


def made(env: Any) -> Any:
    """Make the policy."""
    return rlseq.make_policy("seq2seq", env, hidden=64, embedding=32)


def case(start: Any, folder: Path, number: int, noise: float, updates: int) -> dict[str, Any]:
    """Label texts of likelihood, learn a reward model, and train on it."""
    report, reward = judged(labels(folder, "run", number, noise), folder)
    return {"report": report, "curve": curve(start, reward, updates)}


def two_rounds(start: Any, folder: Path, number: int, noise: float, updates: int) -> dict[str, Any]:
    """Label half as many; train on that for a while, label texts of the new policy too, and begin anew."""
    first = labels(folder, "run", number // 2, noise)
    _, reward = judged(first, folder)
    env = rlseq.make(ID, num_envs=128)
    env.parts = {"model": reward}
    policy = made(env)
    policy.load_state_dict(start.state_dict())
    rlseq.train(
        agent_of(policy), env, BETWEEN, out=folder / "second", quiet=True, probe=False, alarms="ignore"
    )
    second = labels(folder, "second", number // 2, noise)
    both = folder / "both.jsonl"
    both.write_text(first.read_text("utf-8") + second.read_text("utf-8"), "utf-8")
    report, reward = judged(both, folder)
    return {"report": report, "curve": curve(start, reward, updates)}


def labels(folder: Path, run: str, number: int, noise: float) -> Path:
    """Return labels of pairs of a run's samples, by the rules of the task."""
    out = folder / f"{run}-{number}-{noise}.jsonl"
    return label(folder / run, out=str(out), number=number, simulate="rules", noise=noise)


def judged(path: Path, folder: Path) -> tuple[dict[str, Any], Any]:
    """Return the report of a reward model of labels, and the model."""
    out = str(folder / f"judge-{path.stem}")
    model = train_reward_model(path, out=out, sizes={"hidden": 64, "embedding": 32})
    return {name: value for name, value in model.report.items() if name != "labels"}, load_reward(out)


def agent_of(policy: Any) -> Any:
    """Return the agent that trains on a reward."""
    return rlseq.make_agent("rloo", policy, lr=1e-3)


def curve(start: Any, reward: Any, updates: int) -> list[dict[str, float]]:
    """Train on a reward; return what it says of samples, and what the rules say, while training goes on."""
    env = rlseq.make(ID, num_envs=128, reward=reward)
    policy = made(env)
    policy.load_state_dict(start.state_dict())
    agent, found = agent_of(policy), []
    for update in range(updates + 1):
        if update in LOOKS:
            found.append({"update": update, **tested(policy, reward)})
        agent.update(agent.collect(env))
    return found


def tested(policy: Any, reward: Any) -> dict[str, float]:
    """Return means over samples about held-out questions: the reward, the rules, and variety."""
    env = rlseq.make(ID, num_envs=1, seed=1, split="test")
    index = torch.arange(env.size).repeat_interleave(SAMPLES)
    batch = rlseq.rollout(policy, env.replace(num_envs=len(index)), index=index)
    texts = batch.actions, batch.mask, batch.context
    scores = {name: env.metrics[name](*texts) for name in ("rules", "generic", "off_topic", "loops", "short")}
    of_model = scores["rules"] if reward == "rules" else reward(*texts)
    written = env.texts(batch.actions, batch.mask)
    return {
        "reward": round(float(of_model.mean()), 4),
        **{name: round(float(values.float().mean()), 4) for name, values in scores.items()},
        "different": round(len(set(written)) / len(written), 4),
        "length": round(float(batch.lengths.float().mean()), 4),
    }


if __name__ == "__main__":
    main()
