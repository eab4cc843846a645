"""Does the reward fall when a policy gradient takes over from likelihood, and does a warm-up prevent it?

    python benchmarks/warmup.py [--updates 260] [--seeds 2]

The demonstration's task and start (`rlseq.cli.demo`): likelihood from 200 references. From its weights each
agent goes on with a step size that falls from the first update on (linear), and with one that rises during
the first tenth and falls then (warmup_linear). Greedy reward on held-out sources after so many updates.
"""

from __future__ import annotations

import argparse
from typing import Any

import record

import rlseq
from rlseq.cli.demo import SETTINGS

AGENTS = ("reinforce", "rloo", "scst")
LOOKS = (0, 5, 10, 15, 20, 30, 50, 100, 150, 200, 260)
START = 200  # updates of likelihood
((TASK, OPTIONS),) = SETTINGS["envs"].items()


def start(seed: int) -> Any:
    """The policy after likelihood."""
    env = rlseq.make(TASK, seed=seed, **SETTINGS["mle_options"], **OPTIONS)
    sizes = {name: size for name, size in SETTINGS["policy"].items() if name != "name"}
    policy = rlseq.make_policy(SETTINGS["policy"]["name"], env, **sizes)
    rlseq.train(rlseq.make_agent("mle", policy, **SETTINGS["start_hyper"]), env, START, quiet=True)
    return policy


def curve(name: str, schedule: str, policy: Any, weights: Any, seed: int, updates: int) -> list[list[float]]:
    """The reward after so many updates."""
    policy.load_state_dict(weights)
    env = rlseq.make(TASK, seed=seed, **OPTIONS)
    test = rlseq.make(TASK, split="test", **{**OPTIONS, "num_envs": 250})
    agent = rlseq.make_agent(name, policy, **{**SETTINGS["agents"][name], "schedule": schedule})
    points = []
    for update in range(updates + 1):
        if update in LOOKS:
            points.append([update, round(rlseq.evaluate(policy, test)["reward"], 4)])
        if update < updates:
            agent.set_progress(update / updates)
            agent.update(agent.collect(env))
    return points


def main() -> None:
    """All curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--updates", type=int, default=LOOKS[-1])
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    rows = []
    for seed in range(options.seeds):
        policy = start(seed)
        weights = {key: value.clone() for key, value in policy.state_dict().items()}
        for name in AGENTS:
            for schedule in ("linear", "warmup_linear"):
                points = curve(name, schedule, policy, weights, seed, options.updates)
                rows.append({"agent": name, "schedule": schedule, "seed": seed, "curve": points})
                print(name, schedule, seed, points, flush=True)
    print(record.write("warmup", {"start_updates": START, "updates": options.updates, "rows": rows}))


if __name__ == "__main__":
    main()
