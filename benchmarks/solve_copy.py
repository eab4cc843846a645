"""The speed at which REINFORCE and SB3's PPO (bridged) solve `rlseq/Copy-v0` (V 8, length 5) from scratch.

    python benchmarks/solve_copy.py

Both get the same task and the same wall-clock budget, and are scored greedily on the same held-out
sources. REINFORCE must pass 0.95 in under a minute on two cores; PPO must improve. It is no contest of
algorithms: the two have different networks and neither was tuned beyond a handful of tries.
"""

from __future__ import annotations

import time
from typing import Any

import record
import torch
from stable_baselines3 import PPO

import rlseq
from rlseq.adapters.sb3 import TokenExtractor, as_vec_env

BUDGET = 60.0  # seconds each
SEEDS = (0, 1, 2)


def fresh(rows: int) -> Any:
    """Sources that are held out of training."""
    return rlseq.make("rlseq/Copy-v0", num_envs=rows, split="test")


def reinforce(seed: int) -> dict[str, Any]:
    """Seconds until greedy decoding passes 0.95, and where the budget ends."""
    env = rlseq.make("rlseq/Copy-v0", num_envs=256, seed=seed)
    policy = rlseq.make_policy("gru", env, hidden=64, embedding=32)
    agent = rlseq.make_agent("reinforce", policy, lr=3e-3, entropy=0.01)
    start, solved, curve = time.perf_counter(), None, []
    while (elapsed := time.perf_counter() - start) < BUDGET:
        rlseq.train(agent, env, updates=50)
        score = rlseq.evaluate(policy, fresh(500))["reward"]
        elapsed = time.perf_counter() - start
        curve.append([round(elapsed, 2), round(score, 4)])
        if score > 0.95 and solved is None:
            solved = elapsed
            break
    return {"seed": seed, "seconds_to_0.95": solved and round(solved, 2), "curve": curve}


def ppo(seed: int) -> dict[str, Any]:
    """Stock PPO on the same task over the bridge: mean episode reward, first and last."""
    env = as_vec_env(rlseq.make("rlseq/Copy-v0", num_envs=64, seed=seed))
    model = PPO(
        "MultiInputPolicy",
        env,
        policy_kwargs={"features_extractor_class": TokenExtractor},
        n_steps=24,
        batch_size=512,
        learning_rate=2e-3,
        gamma=1.0,
        ent_coef=0.01,
        seed=seed,
        device="cpu",
    )
    start, curve = time.perf_counter(), []

    def stop(local: dict[str, Any], _: Any) -> bool:
        return time.perf_counter() - start < BUDGET

    while time.perf_counter() - start < BUDGET:
        model.learn(env.num_envs * 24, callback=stop, reset_num_timesteps=False)
        rewards = [episode["r"] for episode in model.ep_info_buffer or []]
        curve.append([round(time.perf_counter() - start, 2), round(float(sum(rewards) / len(rewards)), 4)])
    return {"seed": seed, "steps": model.num_timesteps, "first": curve[0][1], "last": curve[-1][1]}


def main() -> None:
    """Run all, print a line each, and write the JSON."""
    torch.set_num_threads(2)
    results: dict[str, list[dict[str, Any]]] = {"reinforce": [], "sb3_ppo": []}
    for seed in SEEDS:
        results["reinforce"].append(reinforce(seed))
        print("REINFORCE", {k: v for k, v in results["reinforce"][-1].items() if k != "curve"}, flush=True)
        results["sb3_ppo"].append(ppo(seed))
        print("SB3 PPO  ", results["sb3_ppo"][-1], flush=True)
    print(record.write("solve-copy", results))


if __name__ == "__main__":
    main()
