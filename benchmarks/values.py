"""Agents that learn values, on classic control, from rewards as they are paid.

A score is the mean return of 100 greedy episodes after training; control.py has the settings of `dqn` that
reach 475.

    python benchmarks/values.py [--only cartpole-dqn pendulum-ddpg] [--seeds 0 1 2] [--out values]

One thread each; seconds are of the processor, of training alone. The settings were chosen on seed 0. Every
run is added to results/OUT.json as it is done.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import record
import torch
from control import EPISODES, Setting

import rlseq
from rlseq.adapters import GymEnv

CARTPOLE: dict[str, Any] = {"lr": 2e-3, "schedule": "linear", "gamma": 0.98, "clip_norm": 10.0, "rows": 128}
CARTPOLE |= {"gradient_steps": 64, "target_every": 1, "target_share": 0.02, "epsilon": 0.04}
CARTPOLE |= {"exploration": 0.16}
SETTINGS = {
    "cartpole-dqn": Setting(
        *("CartPole-v1", "dqn", 15_000, 8, 32, 475), hyper=CARTPOLE, policy={"standardise": True}
    ),
    "cartpole-dqn-long": Setting(
        *("CartPole-v1", "dqn", 40_000, 8, 32, 475), hyper=CARTPOLE, policy={"standardise": True}
    ),
    "pendulum-ddpg": Setting(
        *("Pendulum-v1", "ddpg", 12_000, 4, 16, -200),
        hyper={"gradient_steps": 32},
        policy={},
    ),
}


def trained(setting: Setting, seed: int) -> dict[str, Any]:
    """Score and seconds of one run."""
    env = GymEnv(setting.id, setting.rows, setting.steps, seed=seed)
    policy = rlseq.make_policy("mlp", env, **setting.policy)
    agent = rlseq.make_agent(setting.agent, policy, **setting.hyper)
    started = time.process_time()
    rlseq.train(agent, env, config=rlseq.TrainConfig(budget_tokens=setting.total, quiet=True))
    seconds = time.process_time() - started
    test = GymEnv(setting.id, 20, seed=1000 + seed)
    score = rlseq.evaluate(policy, test, limit=EPISODES)["reward"]
    return {"seed": seed, "score": score, "seconds": seconds}


def main() -> None:
    """Train, and write after every run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--only", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", default="values", help="name of the file of results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    for name in options.only:
        setting = SETTINGS[name]
        kept = results[name] = {"setting": vars(setting), "runs": []}
        for seed in options.seeds:
            kept["runs"].append(trained(setting, seed))
            print(name, json.dumps(kept["runs"][-1]), flush=True)
            record.write(options.out, results)


if __name__ == "__main__":
    main()
