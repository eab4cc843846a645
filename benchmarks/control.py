"""Classic control, beside stable-baselines3 and sb3-contrib, at equal numbers of environment steps.

    python benchmarks/control.py [--only cartpole-ppo …] [--seeds 0 1 2] [--out control] [--who rlseq]

The peers have the hyper-parameters of their own zoo (rl-baselines3-zoo, hyperparams/{a2c,ppo,dqn,trpo}.yml),
their own optimiser and exploration (generalised state-dependent noise on Pendulum) included; a number of
steps that differs from the zoo's is a budget that we set for both. Ours has the same rows, steps, epochs,
minibatches, discount, λ, step size and its schedule, where nothing else is said beside a setting; the setting
called "scaled" is ours alone, at the same number of steps. A score is the mean return of 100 greedy episodes
after training. One thread each. Seconds are of training, evaluation apart, by the clock and of the processor,
which neighbours on the machine disturb less. The peer of `trpo` is in sb3-contrib, which
`pip install 'rlseq[benchmarks]'` installs; `--who rlseq` leaves all peers out. Every run is added to
results/OUT.json as it is done.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import record
import torch

import rlseq
from rlseq.adapters.gym_env import GymEnv, Rewards, as_paid
from rlseq.policies.normalize import ReturnScale
from rlseq.utils.errors import need

EPISODES = 100


@dataclass(frozen=True)
class Setting:
    """A task, an agent, and their sizes."""

    id: str
    agent: str
    total: int  # steps of the environment
    rows: int
    steps: int  # of every row in a batch
    solved: float
    hyper: dict[str, Any] = field(default_factory=dict)  # of our agent
    policy: dict[str, Any] = field(default_factory=dict)  # of our policy
    rewards: Callable[[], Rewards] = lambda: as_paid  # what we learn from
    peer: dict[str, Any] | None = None  # of the peer; None where it has no such agent
    peer_rows: int | None = None  # of the peer, where they are not ours
    normalise: bool = False  # the peer's VecNormalize
    linear: tuple[str, ...] = ()  # hyper-parameters that fall to 0


A2C: dict[str, Any] = {"lr": 7e-4, "gamma": 0.99, "lam": 1.0, "value_weight": 1.0, "clip_norm": 0.5}
PENDULUM: dict[str, Any] = {"lr": 1e-3, "gamma": 0.9, "lam": 0.95, "epochs": 10, "minibatches": 64}
PENDULUM |= {"value_weight": 1.0, "clip_norm": 0.5}
DQN: dict[str, Any] = {"lr": 2e-3, "schedule": "linear", "gamma": 0.98, "backup": "double", "rows": 256}
DQN |= {"gradient_steps": 32, "capacity": 100_000, "target_every": 1, "target_share": 0.05}
DQN |= {"epsilon": 0.04, "exploration": 0.16, "clip_norm": 10.0}
DQN_PEER: dict[str, Any] = {"learning_rate": 2.3e-3, "gamma": 0.99, "batch_size": 64, "train_freq": 256}
DQN_PEER |= {"gradient_steps": 128, "buffer_size": 100_000, "target_update_interval": 10}
DQN_PEER |= {"exploration_final_eps": 0.04, "exploration_fraction": 0.16, "learning_starts": 1_000}
DQN_PEER |= {"policy_kwargs": {"net_arch": [256, 256]}}
SETTINGS = {
    "cartpole-reinforce": Setting(
        *("CartPole-v1", "reinforce", 100_000, 8, 128, 475),
        hyper={"lr": 5e-3, "gamma": 0.99, "baseline": "value", "scale": "by_batch", "clip_norm": 0.5},
        linear=("lr",),
    ),
    "cartpole-a2c": Setting(
        *("CartPole-v1", "a2c", 200_000, 8, 5, 475),
        hyper=A2C,
        peer={},
    ),
    "cartpole-ppo": Setting(
        *("CartPole-v1", "ppo", 100_000, 8, 32, 475),
        hyper={"lr": 1e-3, "gamma": 0.98, "lam": 0.8, "epochs": 20, "minibatches": 1, "clip": 0.2}
        | {"value_weight": 1.0, "clip_norm": 0.5},
        peer={"batch_size": 256, "gae_lambda": 0.8, "gamma": 0.98, "n_epochs": 20}
        | {"learning_rate": lambda left: 1e-3 * left, "clip_range": lambda left: 0.2 * left},
        linear=("lr", "clip"),
    ),
    "acrobot-ppo": Setting(
        *("Acrobot-v1", "ppo", 100_000, 16, 256, -100),
        hyper={"lr": 3e-4, "gamma": 0.99, "lam": 0.94, "epochs": 4, "minibatches": 64}
        | {"value_weight": 1.0, "clip_norm": 0.5},
        policy={"standardise": True},
        rewards=lambda: ReturnScale(0.99),
        peer={"gae_lambda": 0.94, "gamma": 0.99, "n_epochs": 4, "batch_size": 64},
        normalise=True,
    ),
    "pendulum-ppo": Setting(
        *("Pendulum-v1", "ppo", 100_000, 4, 1024, -300),
        hyper=PENDULUM,
        peer={"gae_lambda": 0.95, "gamma": 0.9, "n_epochs": 10, "learning_rate": 1e-3}
        | {"batch_size": 64, "use_sde": True, "sde_sample_freq": 4},
    ),
    "pendulum-ppo, scaled": Setting(
        *("Pendulum-v1", "ppo", 100_000, 4, 1024, -300),
        hyper=PENDULUM,
        policy={"standardise": True},
        rewards=lambda: ReturnScale(0.9),
    ),
    "cartpole-trpo": Setting(
        *("CartPole-v1", "trpo", 50_000, 2, 512, 475),
        hyper={"gamma": 0.99, "lam": 0.98, "damping": 1e-3, "cg_steps": 15}
        | {"value_epochs": 20, "value_minibatches": 2},
        peer={"batch_size": 512, "cg_damping": 1e-3, "gae_lambda": 0.98, "gamma": 0.99}
        | {"learning_rate": 1e-3, "n_critic_updates": 20},
    ),
    "pendulum-trpo": Setting(
        *("Pendulum-v1", "trpo", 100_000, 2, 1024, -300),
        hyper={"gamma": 0.9, "lam": 0.95, "cg_steps": 15, "value_epochs": 15, "value_minibatches": 16},
        peer={"gamma": 0.9, "n_critic_updates": 15, "use_sde": True, "sde_sample_freq": 4},
    ),
    # Ours has settings of its own. A value is at most 1: Huber's loss would count the rare ends, where values
    # of 50 are wrong by 50, as little as errors of 1.
    "cartpole-dqn": Setting(
        *("CartPole-v1", "dqn", 50_000, 8, 32, 475),
        hyper=DQN,
        policy={"value": False, "hidden": 128, "standardise": True},
        rewards=lambda: lambda rewards, ends: 0.02 * rewards,
        peer=DQN_PEER,
        peer_rows=1,
    ),
}


def ours(setting: Setting, seed: int) -> tuple[Any, GymEnv]:
    """Our agent, and what it learns on."""
    env = GymEnv(setting.id, setting.rows, setting.steps, seed=seed, rewards=setting.rewards())
    policy = rlseq.make_policy("mlp", env, **{"value": True, **setting.policy})
    return rlseq.make_agent(setting.agent, policy, **setting.hyper), env


def learn(agent: Any, env: GymEnv, setting: Setting) -> None:
    """Until the steps are used up."""
    first = {name: setting.hyper[name] for name in setting.linear}
    while (done := env.counts.generated_tokens) < setting.total:
        left = 1 - done / setting.total
        if "lr" in first:
            agent.optimizer.param_groups[0]["lr"] = first["lr"] * left
        if "clip" in first:
            agent.clip = first["clip"] * left
        agent.set_progress(1 - left)
        agent.update(agent.collect(env))


def theirs(setting: Setting, seed: int) -> Any:
    """A stock agent."""
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
    from stable_baselines3.common.vec_env import VecNormalize

    env = make_vec_env(setting.id, setting.peer_rows or setting.rows, seed=seed)
    env = VecNormalize(env, gamma=setting.hyper["gamma"]) if setting.normalise else env
    cls = peer_class(setting.agent)
    sizes = {"n_steps": setting.steps} if issubclass(cls, OnPolicyAlgorithm) else {}
    return cls("MlpPolicy", env, seed=seed, device="cpu", **sizes, **(setting.peer or {}))


def peer_class(agent: str) -> Any:
    """Return the class of an agent in stable-baselines3, or in sb3-contrib."""
    import stable_baselines3

    name = agent.upper()
    if hasattr(stable_baselines3, name):
        return getattr(stable_baselines3, name)
    return getattr(need("sb3_contrib", "benchmarks"), name)


def score_of_theirs(model: Any, setting: Setting, seed: int) -> float:
    """Mean return of greedy episodes, as paid."""
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import VecNormalize

    env = make_vec_env(setting.id, 20, seed=1000 + seed)
    if setting.normalise:
        own, env = model.get_env(), VecNormalize(env, training=False, norm_reward=False)
        env.obs_rms = own.obs_rms
    return float(evaluate_policy(model, env, n_eval_episodes=EPISODES, deterministic=True)[0])  # type: ignore[arg-type]


def trained(who: str, setting: Setting, seed: int) -> dict[str, Any]:
    """Score and seconds of one run."""
    if who == "rlseq":
        agent, env = ours(setting, seed)
        seconds = timed(lambda: learn(agent, env, setting))
        score = rlseq.evaluate(agent.policy, GymEnv(setting.id, 20, seed=1000 + seed), limit=EPISODES)[
            "reward"
        ]
    else:
        model = theirs(setting, seed)
        seconds = timed(lambda: model.learn(setting.total))
        score = score_of_theirs(model, setting, seed)
    return {"seed": seed, "score": round(score, 1), **seconds}


def timed(run: Callable[[], Any]) -> dict[str, float]:
    """Seconds that it takes, by the clock and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    run()
    spent = {"seconds": time.perf_counter() - clock, "processor": time.process_time() - processor}
    return {name: round(value, 1) for name, value in spent.items()}


def main() -> None:
    """Run what is asked for, and add it to what is there."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", default="control", help="name of the file of results")
    parser.add_argument("--who", nargs="+", default=["rlseq", "sb3"], choices=["rlseq", "sb3"])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for name in asked.only:
        setting = SETTINGS[name]
        for seed in asked.seeds:
            for who in ("rlseq",) if setting.peer is None else asked.who:
                run = trained(who, setting, seed)
                print(name, who, run, flush=True)
                add(asked.out, name, who, run)


def add(out: str, name: str, who: str, run: dict[str, Any]) -> None:
    """Write a run down, in place of an earlier one of its seed."""
    path = record.RESULTS / f"{out}.json"
    results = json.loads(path.read_text("utf-8"))["results"] if path.exists() else {}
    setting, found = SETTINGS[name], results.setdefault(name, {})
    found |= {"steps": setting.total, "solved": setting.solved, "episodes": EPISODES}
    others = [other for other in found.get(who, []) if other["seed"] != run["seed"]]
    found[who] = sorted([*others, run], key=lambda r: r["seed"])
    record.write(out, {name: results[name] for name in SETTINGS if name in results})


if __name__ == "__main__":
    main()
