"""What one of two ranks does: every agent is trained by both, then by one of them alone, from equal seeds."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

import rlseq
from rlseq.adapters import GymEnv, ReturnScale
from rlseq.agents import AGENTS
from rlseq.envs.wrappers.curiosity import Curiosity
from rlseq.envs.wrappers.curriculum import ReverseCurriculum, with_curriculum
from rlseq.envs.wrappers.regimes import TwoRegimes
from rlseq.policies.mlp import MLP
from rlseq.policy_gradient.credit import Consensus
from rlseq.policy_gradient.factors import Shuffle, factor_name
from rlseq.training.parallel import COMPARED_FIELDS
from rlseq.types import Rollout
from rlseq.utils import ranks

RANKS, ROWS, UPDATES = 2, 16, 2
LITTLE = {  # settings of which less is enough here
    "pretraining": 1,
    "d": 1,
    "k": 1,
    "completions": 2,
    "gradient_steps": 2,
    "rows": 8,
    "cg_steps": 2,
    "value_epochs": 2,
    "value_minibatches": 2,
    "reconstructor_pretraining": 1,
}
TESTED = ("reinforce",)  # evaluated and probed, too, which costs time
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name, cls in AGENTS.items() if cls.for_ranks},
    "moving average": ("reinforce", {"baseline": "moving_average"}),
    "regression": ("reinforce", {"baseline": "regression", "aggregate": "per_token"}),
    "greedy, corrected": ("reinforce", {"baseline": "greedy_corrected"}),
    "completions": ("reinforce", {"credit": "completions"}),
    "ranks": ("reinforce", {"scale": "bootstrapped", "kl": 0.1, "entropy": 0.1, "l2": 0.1, "mle": 0.5}),
    "whitened": ("rloo", {"scale": "by_batch", "kl_reward": 0.1, "weight_decay": 0.1}),
    "td": ("a2c", {"credit": "td", "divergence": "k1", "kl": 0.1}),
    "n steps": ("a2c", {"credit": "n_step", "divergence": "k2", "kl": 0.1}),
    "immediate": ("reinforce", {"credit": "immediate", "baseline": "length_weighted", "samples": 2}),
    "pass at k": ("rloo", {"credit": "pass_at_k", "baseline": "none", "scale": "best_of_group"}),
    "per metric": ("rloo", {"credit": "per_metric", "baseline": "none", "divergence": "k3", "kl": 0.1}),
    "consensus": ("rloo", {"credit": Consensus("edit"), "baseline": "none"}),
    "optimal token": ("rloo", {"baseline": "optimal_token", "scale": "by_mean"}),
    "exact values of actions": ("all_action", {"action_values": "exact"}),
    "critic of actions": ("all_action", {"action_values": "critic"}),
    "optimal value": ("dro", {"baseline": "optimal_value"}),
    "in parts": ("rloo", {"micro_batches": 2}),
    "clipped": ("mle", {"clip_norm": 1e-2, "schedule": "linear"}),
    "ddpg": ("ddpg", {"relaxation": "straight_through_gumbel"}),
    "curiosity": ("reinforce", {}),
    "by success": ("reinforce", {}),
    "reverse": ("rloo", {}),
    "regimes": ("mle", {}),
    "a2c, pole": ("a2c", {}),
    "dqn, pole": ("dqn", {}),
    "ddpg, pendulum": ("ddpg", {}),
}
CLEAN = torch.arange(64) % 3 == 0
CHANGED: dict[str, Callable[[Any], Any]] = {  # tasks of variants that change as an agent learns
    "curiosity": lambda env: Curiosity(env, weight=1.0, hidden=8),
    "by success": lambda env: with_curriculum(env, "by_success", wanted=0.0),
    "reverse": ReverseCurriculum,
    "regimes": lambda env: TwoRegimes(env, CLEAN),
}


class OfRanks(Shuffle):
    """The order of minibatches in which two ranks learn from their own rows, for one process."""

    def __call__(self, batch: Rollout, parts: int) -> Iterator[Tensor]:
        half = batch.take(slice(len(batch.actions) // RANKS))
        ordered = list(super().__call__(half, parts))
        return (torch.cat([rows, rows + len(half.actions)]) for rows in ordered)


def trained(name: str, alone: bool) -> tuple[list[dict[str, float]], Any]:
    """Train an agent for a few updates; return the metrics of all, and the agent."""
    torch.manual_seed(0)
    algorithm, hyper = VARIANTS[name]
    known: dict[str, Any] = AGENTS[algorithm].__dataclass_fields__
    hyper = {**{n: value for n, value in LITTLE.items() if n in known}, **hyper}
    hyper |= {n: 2 for n in ("epochs", "minibatches") if n in known and known[n].default > 1}
    env, policy, test = *made_for(name), None
    if name in TESTED:
        test = rlseq.make("rlseq/Copy-v0", length=3, vocab_size=5, num_envs=8, split="test")
    if "teacher" in known:
        hyper["teacher"] = [written_by(env, seed=2)]
    agent: Any = rlseq.make_agent(algorithm, policy, lr=1e-2, **hyper)
    if "adversary" in known:
        agent.adversary.texts = 8
    if alone and hasattr(agent, "shuffle"):
        agent.shuffle = OfRanks()
    settings: dict[str, Any] = {
        "eval_texts": 9,
        "alarms": "ignore",
        "quiet": True,
        "probe": name in TESTED,
    }
    found = rlseq.train(agent, env, UPDATES, test, **settings)
    return found, agent


class InDouble(MLP):
    """A perceptron in double precision, whatever is observed."""

    def _scaled(self, observed: Tensor) -> Tensor:
        return super()._scaled(observed).double()


class ScaledInDouble(ReturnScale):
    """Scaled rewards in double precision."""

    for_ranks = True

    def forward(self, rewards: Tensor, ends: Tensor) -> Tensor:
        return super().forward(rewards, ends).double()


def made_for(name: str) -> tuple[Any, Any]:
    """Return the task and the policy of a variant."""
    if "pole" in name or "pendulum" in name:
        id = "CartPole-v1" if "pole" in name else "Pendulum-v1"
        sizes: dict[str, Any] = {"num_envs": 4, "steps": 24, "vectorization_mode": "sync"}
        control = GymEnv(id, rewards=ScaledInDouble(), seed=3, **sizes)
        perceptron = rlseq.make_policy("mlp", control, hidden=8, value=True, standardise=True, seed=1)
        perceptron.__class__ = InDouble
        return control, perceptron
    env = rlseq.make("rlseq/Copy-v0", length=3, vocab_size=5, items=64, num_envs=ROWS, seed=3)
    return CHANGED.get(name, lambda env: env)(env), written_by(env, seed=1)


def written_by(env: Any, seed: int) -> Any:
    """Return a small policy for a task."""
    return rlseq.make_policy("lstm", env, hidden=8, embedding=4, value=True, seed=seed)


def weights_of(policy: Any) -> Tensor:
    """Return all weights of a policy as one vector."""
    return torch.cat([p.detach().flatten() for p in policy.parameters()])


def gap(here: dict[str, float], there: dict[str, float]) -> float:
    """Return the largest difference of two rows of metrics, relative where numbers are large."""
    parts = {"grad_variance", "grad_noise"}  # of other parts of the batch, which have rows of each rank
    names = here.keys() - parts
    assert names == there.keys() - parts, here.keys() ^ there.keys()
    return max(abs(here[n] - there[n]) / max(1.0, abs(there[n])) for n in names)


def alike() -> dict[str, Any]:
    """Train every agent by two ranks, then by one alone; return how far metrics and weights are apart.

    Each rank does half of what is done alone.
    """
    answers: dict[str, Any] = {}
    both, alone = ranks.launched_as, lambda: ranks.ALONE
    for place, name in enumerate(VARIANTS):
        history, agent = trained(name, alone=False)
        if both().number == place % RANKS:
            ranks.launched_as = alone
            single, known = trained(name, alone=True)
            ranks.launched_as = both
            weights, start = weights_of(agent.policy), weights_of(made_for(name)[1])
            answers[name] = {
                "metrics": max(map(gap, history, single)),
                "weights": float((weights - weights_of(known.policy)).abs().max()),
                "moved": float((weights - start).abs().max()),
                "factors": [
                    f"{f} {factor_name(getattr(agent, f))}" for f in COMPARED_FIELDS if hasattr(agent, f)
                ],
            }
    return answers


def made(rows: int = ROWS, **options: Any) -> tuple[Any, Any]:
    """Return an agent and its task, without a seed that all ranks know unless one is given."""
    env = rlseq.make("rlseq/Copy-v0", length=3, vocab_size=5, num_envs=rows, **options)
    return rlseq.make_agent("ppo", rlseq.make_policy("lstm", env, hidden=8, value=True)), env


def resumed(folder: Path) -> dict[str, Any]:
    """Train for six updates at once, and in two parts; return whether the metrics are the same."""
    whole = rlseq.train(*made(seed=5), 6, eval_every=3, out=folder / "whole", alarms="ignore", quiet=True)
    counts = []
    for updates in (3, 6):
        agent, env = made(seed=5)
        parts = rlseq.train(
            agent, env, updates, eval_every=3, out=folder / "parts", alarms="ignore", quiet=True
        )
        counts.append(env.counts.as_dict()["episodes"])
    return {"resumed": whole == parts, "episodes": counts}


def refused() -> dict[str, str]:
    """Return the message of everything that ranks refuse, as it is on this rank."""
    number, found = ranks.launched_as().number, {}
    env = rlseq.make("rlseq/Copy-v0", length=3, vocab_size=5, num_envs=ROWS, seed=0)
    policy = rlseq.make_policy("lstm", env, hidden=8)
    cases: dict[str, Callable[[], tuple[Any, Any]]] = {
        "settings": lambda: (rlseq.make_agent("rloo", policy, lr=1e-3 * (1 + number)), env),
        "data": lambda: made(data_seed=number),
        "training": made,
        "rows": lambda: made(rows=1),
        "agent": lambda: (type("Own", (AGENTS["rloo"],), {})(policy), env),
        "sharded": lambda: (rlseq.make_agent("rloo", sharded(env)), env),
        "replay": lambda: (rlseq.make_agent("dqn", policy, rows=5), env),
        "population": lambda: (rlseq.make_agent("cem", policy, population=3), made(rows=6)[1]),
        "reward": lambda: (rlseq.make_agent("rloo", policy), rlseq.make("rlseq/Copy-v0", reward=Learning())),
        "made already": lambda: control(gym.make_vec("CartPole-v1", RANKS)),
        "factor": lambda: (rlseq.make_agent("reinforce", policy, baseline=lambda returns, batch: 0.5), env),
    }
    for name, case in cases.items():
        try:
            rlseq.train(*case(), 1, eval_every=1 + (number if name == "training" else 0), quiet=True)
        except ValueError as error:
            found[name] = str(error)
    return found


class Learning:
    """A reward of one's own that learns from the rows of a batch."""

    def __call__(self, tokens: Tensor, mask: Tensor, context: Any) -> Tensor:
        """Return 0."""
        return torch.zeros(len(tokens))

    def learn(self, batch: Rollout) -> None:
        """Learn nothing."""


def control(env: Any) -> tuple[Any, Any]:
    """Return an agent for an environment of Gymnasium, and the task."""
    task = GymEnv(env, steps=4)
    return rlseq.make_agent("a2c", rlseq.make_policy("mlp", task, value=True)), task


def sharded(env: Any) -> Any:
    """Return a policy whose weights are divided among the ranks."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    policy = written_by(env, seed=1)
    fully_shard(policy, mesh=init_device_mesh("cpu", (RANKS,)))
    return policy


def unseeded() -> dict[str, float]:
    """Train from a start without seeds, which is that of rank 0 everywhere; return the spread of weights."""
    agent, env = made()
    rlseq.train(agent, env, 2, alarms="ignore", quiet=True)
    with ranks.together(torch.device("cpu")):
        both = ranks.gathered(weights_of(agent.policy).unsqueeze(0))
    return {"spread": float((both[0] - both[1]).abs().max())}


def lost(folder: Path) -> dict[str, str]:
    """Train until rank 1 ends without a word; return what rank 0 says of it."""

    def end(row: dict[str, float]) -> None:
        if ranks.launched_as().number == 1 and row["update"] == 4:
            os._exit(9)

    try:
        rlseq.train(
            *made(seed=5), 6, eval_every=3, out=folder / "lost", alarms="ignore", quiet=True, on_update=end
        )
    except ranks.RankLost as error:
        return {"lost": str(error)}
    return {}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    answers: dict[str, Any] = {**resumed(folder), **unseeded(), "refused": refused()}
    torch.set_default_dtype(torch.float64)
    answers["alike"] = alike()
    torch.set_default_dtype(torch.float32)
    (folder / f"{ranks.launched_as().number}.json").write_text(json.dumps(answers))
    answers |= lost(folder)
    (folder / "0.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
