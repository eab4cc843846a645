"""What one of two ranks does: every agent is trained by both, then by rank 0 alone, from the same seeds."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import rlseq
from rlseq.policy_gradient.factors import Shuffle
from rlseq.training.parallel import FOR_RANKS
from rlseq.types import Rollout
from rlseq.utils import ranks

RANKS, ROWS, UPDATES = 2, 16, 2
LITTLE = {"pretraining": 1, "d": 1, "k": 1}  # lessons of a discriminator
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in FOR_RANKS},
    "moving average": ("reinforce", {"baseline": "moving_average"}),
    "regression": ("reinforce", {"baseline": "regression", "aggregate": "per_token"}),
    "greedy, corrected": ("reinforce", {"baseline": "greedy_corrected"}),
    "completions": ("reinforce", {"credit": "completions"}),
    "ranks": ("reinforce", {"scale": "bootstrapped", "kl": 0.1, "entropy": 0.1, "l2": 0.1, "mle": 0.5}),
    "whitened": ("rloo", {"scale": "by_batch", "kl_reward": 0.1, "weight_decay": 0.1}),
    "in parts": ("rloo", {"micro_batches": 2}),
    "clipped": ("mle", {"clip_norm": 1e-2, "schedule": "linear"}),
}


class OfRanks(Shuffle):
    """The order of minibatches in which two ranks learn from their own rows, for one process."""

    def __call__(self, batch: Rollout, parts: int) -> Iterator[Tensor]:
        half = batch.take(slice(len(batch.actions) // RANKS))
        ordered = list(super().__call__(half, parts))
        return (torch.cat([rows, rows + len(half.actions)]) for rows in ordered)


def trained(name: str, alone: bool) -> tuple[list[dict[str, float]], Tensor]:
    """Train an agent for a few updates; return the metrics of all, and the weights."""
    torch.manual_seed(0)
    algorithm, hyper = VARIANTS[name]
    known = rlseq.agents.AGENTS[algorithm].__dataclass_fields__
    hyper = {**{n: value for n, value in LITTLE.items() if n in known}, **hyper}
    if "completions" in known:
        hyper["completions"] = 2
    env = rlseq.make("rlseq/Copy-v0", length=3, vocab_size=5, num_envs=ROWS, seed=3)
    test = rlseq.make("rlseq/Copy-v0", length=3, vocab_size=5, num_envs=8, split="test")
    policy = rlseq.make_policy("lstm", env, hidden=8, embedding=4, value=True, seed=1)
    agent: Any = rlseq.make_agent(algorithm, policy, lr=1e-2, **hyper)
    if "adversary" in known:
        agent.adversary.texts = 24
    if alone and hasattr(agent, "shuffle"):
        agent.shuffle = OfRanks()
    settings: dict[str, Any] = {
        "eval_texts": 9,
        "alarms": "ignore",
        "quiet": True,
        "probe": name == "reinforce",
    }
    found = rlseq.train(agent, env, UPDATES, test, **settings)
    return found, torch.cat([p.detach().flatten() for p in agent.policy.parameters()])


def gap(here: dict[str, float], there: dict[str, float]) -> float:
    """Return the largest difference of two rows of metrics, relative where numbers are large."""
    parts = {"grad_variance", "grad_noise"}  # of other parts of the batch, which have rows of each rank
    names = here.keys() - parts
    assert names == there.keys() - parts, here.keys() ^ there.keys()
    return max(abs(here[n] - there[n]) / max(1.0, abs(there[n])) for n in names)


def alike() -> dict[str, Any]:
    """Train every agent by two ranks, and by rank 0 alone; return how far metrics and weights are apart."""
    answers: dict[str, Any] = {}
    both, alone = ranks.launched_as, lambda: ranks.ALONE
    for name in VARIANTS:
        history, weights = trained(name, alone=False)
        if both().number == 0:
            ranks.launched_as = alone
            single, known = trained(name, alone=True)
            ranks.launched_as = both
            answers[name] = {
                "metrics": max(map(gap, history, single)),
                "weights": float((weights - known).abs().max()),
                "moved": float((weights - initial()).abs().max()),
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
        "rows": lambda: made(rows=1),
        "agent": lambda: (rlseq.make_agent("dqn", policy), env),
        "factor": lambda: (rlseq.make_agent("reinforce", policy, baseline=lambda returns, batch: 0.5), env),
    }
    for name, case in cases.items():
        try:
            rlseq.train(*case(), 1, quiet=True)
        except ValueError as error:
            found[name] = str(error)
    return found


def unseeded() -> dict[str, float]:
    """Train from a start without seeds, which is that of rank 0 everywhere; return the spread of weights."""
    agent, env = made()
    rlseq.train(agent, env, 2, alarms="ignore", quiet=True)
    weights = torch.cat([p.detach().flatten() for p in agent.policy.parameters()])
    with ranks.together(torch.device("cpu")):
        both = ranks.gathered(weights.unsqueeze(0))
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


def initial() -> Tensor:
    env = rlseq.make("rlseq/Copy-v0", length=3, vocab_size=5, num_envs=ROWS, seed=3)
    policy = rlseq.make_policy("lstm", env, hidden=8, embedding=4, value=True, seed=1)
    return torch.cat([p.detach().flatten() for p in policy.parameters()])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
