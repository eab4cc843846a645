"""Bias and variance of estimators of the gradient, on one policy and at equal numbers of written texts.

    python benchmarks/variance.py [--estimators "OPO, K = 4" …] [--out variance]

The task is `rlseq/Enumerable-v0` with two contexts; its rewards, of standard deviation 1, have mean 2 in both
("alike"), or 1 in one and 3 in the other ("apart"). With `--rewards graded` they are two metrics in [0, 1],
which MaxRL needs: the share of places at which a text has the words of the policy's greedy text, and whether
it is that text. The policy is an LSTM with random weights. Every estimate is made of
at most 64 texts, greedy ones and completions counted. V and regressions have learned from 800 batches before,
on the hidden states as they are. The teacher of `gkd` is the policy after 50 steps along the exact gradient.

Estimates are divided by the constant that an agent states, or, where it follows an objective of its own, by
the one that makes its mean as long along ∇J as ∇J is. Then, of each,

* variance: Σ over parameters, divided by that of REINFORCE without a baseline, with the 95 % interval of the
  ratio (of batches, by the delta method on its logarithm);
* bias: ‖E[ĝ] − ∇J‖ / ‖∇J‖ by enumeration of all batches of two texts, groups being pairs;
* off: the bias along ∇J that was measured, in its standard errors: noise, where there is no bias.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import record
import torch
from torch import Tensor

import rlseq
from rlseq.agents import AGENTS
from rlseq.agents.black_box import BlackBox
from rlseq.policy_gradient.baselines import CompletedValue, MovingAverage, Regression
from rlseq.policy_gradient.credit import Completions, Consensus, PassAtK
from rlseq.types import Context, Reward

TEXTS, BATCHES, LESSONS, STEPS = 64, 400, 800, 50
LEARNED = (MovingAverage, Regression)  # baselines that learn from batches


def better(env: Any, policy: Any, rates: tuple[float, ...] = (0.02,)) -> dict[str, Any]:
    """Return the policy after some steps along the exact gradient, at each of the rates, as teachers."""
    teachers = [deepcopy(policy) for _ in rates]
    for teacher, rate in zip(teachers, rates, strict=True):
        optimizer = torch.optim.Adam(teacher.parameters(), rate)
        for _ in range(STEPS):
            for name, slope in rlseq.exact.gradient(teacher, env).items():
                teacher.get_parameter(name).grad = -slope
            optimizer.step()
    return {"teacher": [teacher.requires_grad_(False) for teacher in teachers]}


@dataclass
class Case:
    """An estimator, what it costs, and what it states."""

    agent: str
    hyper: dict[str, Any] = field(default_factory=dict)
    beside: float = 0.0  # texts written beside each sample: greedy ones, completions
    factor: Callable[[int], float] | None = lambda k: 1.0  # of ∇J that it states, for K texts of a context
    exact: bool = True  # whether enumeration says its bias
    needs: Callable[[Any, Any], dict[str, Any]] = lambda env, policy: {}  # further settings, made for a task


PLAIN = "REINFORCE, none"  # by whose variance others are divided
K4 = {"samples": 4}
MOVED = {"kl": 0.0, "samples": 4}
AS_PAID = {"fitness_shaping": "none", "sigma": 0.2}  # the larger σ, the less noise, and the more bias
CASES = {
    **{
        f"REINFORCE, {name}": Case("reinforce", {"baseline": name})
        for name in ("none", "mean", "moving_average", "value", "regression")
    },
    "SCST (greedy)": Case("scst", beside=1.0),
    "SCST, K = 4": Case("scst", K4, beside=0.25),
    "REINFORCE, greedy_corrected": Case("reinforce", {"baseline": "greedy_corrected"}, beside=1.0),
    "RLOO, K = 2": Case("rloo", {"samples": 2}),
    "RLOO, K = 4": Case("rloo", K4),
    "RLOO, K = 16": Case("rloo", {"samples": 16}),
    "Dr. GRPO, K = 4": Case("dr_grpo", K4, factor=lambda k: (k - 1) / k / 3),
    "MRT corrected, K = 4": Case("mrt_corrected", K4, factor=lambda k: (k - 1) / k),
    "MRT, α = 0.005, K = 4": Case("mrt", K4, factor=lambda k: 0.005 * (k - 1) / k),
    "A2C, λ = 1": Case("a2c", {"lam": 1.0}),
    "A2C, λ = 0.95": Case("a2c", {"lam": 0.95}),
    "A2C, λ = 0 (TD)": Case("a2c", {"lam": 0.0}),
    "REINFORCE, 4 completions": Case(
        "reinforce", {"credit": Completions(4), "baseline": "none"}, beside=8.0, exact=False
    ),
    "MRT, α = 1, K = 4": Case("mrt", {"sharpness": 1.0, **K4}, factor=None),
    "GRPO, K = 4": Case("grpo", MOVED, factor=None),
    "GRPO without std, K = 4": Case("grpo", {"scale": "none", **MOVED}, factor=None),
    "DAPO, K = 4": Case("dapo", MOVED, factor=None),
    **{
        f"{name.upper()}, K = 4": Case(name, MOVED, factor=None)
        for name in ("gspo", "cispo", "sapo", "gmpo", "dppo")
    },
    "PPO, one step": Case("ppo", {"epochs": 1, "minibatches": 1}, factor=None),
    "OPO, K = 4": Case("reinforce", {"baseline": "length_weighted", **K4}, factor=None),
    "optimal token, K = 4": Case("reinforce", {"baseline": "optimal_token", **K4}, factor=None),
    "REINFORCE++": Case("reinforce_pp", {"kl_reward": 0.0}, factor=None),
    "REINFORCE++-baseline, K = 4": Case(
        "reinforce_pp", {"kl_reward": 0.0, "baseline": "group_mean", **K4}, factor=None
    ),
    "best of 4 (pass@4)": Case("reinforce", {"credit": "pass_at_k", "baseline": "none", **K4}, factor=None),
    "DPO, K = 4": Case("dpo", K4, factor=None),
    "CPO, K = 4": Case("cpo", K4, factor=None),
    "DRO, K = 4": Case("dro", {"baseline": "leave_one_out", **K4}),
    "Kimi's loss, K = 4": Case("dro", {"baseline": "group_mean", **K4}, factor=lambda k: (k - 1) / k),
    "A*PO, K = 4": Case("dro", {"baseline": "optimal_value", **K4}, factor=None),
    "REINVENT": Case("dro", {"baseline": "none"}),
    **{
        f"GKD, {name}": Case("gkd", {"distance": name}, factor=None, needs=better)
        for name in ("reverse_kl", "forward_kl", "jensen_shannon")
    },
    "GKD, reverse_kl, two teachers": Case(
        "gkd", factor=None, needs=lambda env, policy: better(env, policy, (0.02, 0.01))
    ),
    "MaxRL, K = 4": Case("grpo", {"scale": "by_mean", **MOVED}, factor=None),
    "best of 2 (pass@2), K = 4": Case(
        "reinforce", {"credit": PassAtK(2), "baseline": "none", **K4}, factor=None
    ),
    "GDPO, K = 4": Case(
        "reinforce", {"credit": "per_metric", "baseline": "none", "scale": "by_batch", **K4}, factor=None
    ),
    "best of 4 imitated (RAFT)": Case(
        "reinforce", {"baseline": "none", "scale": "best_of_group", **K4}, factor=None
    ),
    "MBR fine-tuning, K = 4": Case(
        "reinforce",
        {"credit": Consensus("edit_distance"), "baseline": "none", "scale": "best_of_group", **K4},
        factor=None,
        exact=False,  # two texts agree as well with each other
    ),
    "MBR-DPO, K = 4": Case("dpo", {"credit": Consensus("edit_distance"), **K4}, factor=None, exact=False),
    "VinePPO, 4 completions": Case(
        "vineppo",
        {"completions": 4, "baseline": CompletedValue(4), "epochs": 1, "minibatches": 1},
        beside=12.0,
        exact=False,
    ),
    "all actions, exact Q": Case("all_action", {"action_values": "exact"}),
    "all actions, 1 completion": Case("all_action", beside=9.0, exact=False),
    "ES, 64 policies": Case("es", {"population": 64, **AS_PAID}, exact=False),
    "finite differences, 64 policies": Case("finite_differences", {"population": 64, **AS_PAID}, exact=False),
}


def table(apart: float) -> Callable[[Any, Any], dict[str, Reward]]:
    """Return what makes a reward that is N(2, 1) in both contexts, or apart by so much."""

    def rewards(env: Any, policy: Any) -> dict[str, Reward]:
        def look_up(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
            paid: Tensor = env.look_up(tokens, mask, context) + 2 + apart * (context["index"] - 0.5)
            return paid

        return {"table": look_up}

    return rewards


def graded(env: Any, policy: Any) -> dict[str, Reward]:
    """Return two metrics in [0, 1], whose best text is the policy's greedy one."""
    wanted = rlseq.rollout(policy, env.replace(num_envs=2), decode=rlseq.Greedy(), index=torch.arange(2))

    def right(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        index = context["index"]
        same: Tensor = (tokens == wanted.actions[index]) & mask & wanted.mask[index]
        return same.sum(1) / torch.maximum(mask.sum(1), wanted.mask[index].sum(1))

    return {"near": right, "exact": lambda *text: (right(*text) == 1).float()}


REWARDS = {"alike": table(0.0), "apart": table(2.0), "graded": graded}


def setting(rewards: str) -> tuple[Any, Any]:
    """The task, with one of the rewards, and the policy."""
    env: Any = rlseq.make("rlseq/Enumerable-v0", num_envs=TEXTS, sources=2)
    policy = rlseq.make_policy("lstm", env, hidden=8, embedding=4, value=True)
    with torch.no_grad():
        for p in policy.parameters():
            p.mul_(2.5)
    env.parts = REWARDS[rewards](env, policy)
    return env, policy


def flat(grads: dict[str, Tensor]) -> Tensor:
    """One vector."""
    return torch.cat([grad.flatten() for grad in grads.values()]).double()


def learn(agent: Any, env: Any) -> None:
    """Teach V or the regression what texts earn, and leave the rest of the policy where it is."""
    head = agent.policy.head.value
    optimizer = torch.optim.Adam(head.parameters(), 0.05)
    for _ in range(LESSONS):
        batch = agent.with_advantages(agent.collect(env))
        if batch.values is None and not isinstance(agent.baseline, LEARNED):
            return
        if isinstance(agent.baseline, LEARNED):
            agent.baseline.learn(batch.targets, batch)
        elif batch.values is not None:
            seen = agent.policy.evaluate(batch.actions, batch.context)
            optimizer.zero_grad()
            ((seen.values - batch.targets).square() * batch.weights).sum().backward()
            optimizer.step()


def estimates(agent: Any, env: Any) -> Tensor:
    """Gradients of the objective, `[batches, parameters]`."""
    rows = []
    for _ in range(BATCHES):
        agent.policy.zero_grad(set_to_none=False)
        agent.loss(agent.collect(env))[0].backward()
        grads = [torch.zeros_like(p) if p.grad is None else -p.grad for p in agent.policy.parameters()]
        rows.append(torch.cat([grad.flatten() for grad in grads]).double())
    return torch.stack(rows)


def matched(found: Tensor, wanted: Tensor, factor: float | None) -> Tensor:
    """Estimates, or their mean, divided by a constant."""
    mean = found.reshape(-1, len(wanted)).mean(0)
    return found / (mean @ wanted / wanted.square().sum() if factor is None else factor)


def measure(case: Case, rewards: str) -> dict[str, Any]:
    """One estimator on one task."""
    env, policy = setting(rewards)
    black_box = issubclass(AGENTS[case.agent], BlackBox)
    hyper = case.hyper if black_box else {"value_weight": 0.0, **case.hyper}
    agent: Any = rlseq.make_agent(case.agent, policy, **hyper, **case.needs(env, policy))
    if not black_box:
        learn(agent, env)
    wanted = flat(rlseq.exact.gradient(policy, env))
    k = getattr(agent, "samples", 1)
    rows = int(TEXTS / (1 + case.beside)) // k * k
    found = estimates(agent, env.take(torch.zeros(rows, dtype=torch.int64)) if rows < TEXTS else env)
    found = matched(found, wanted, case.factor and case.factor(k))
    along = (found - wanted) @ wanted
    off = float(along.mean() / along.std() * len(along) ** 0.5)
    squares = (found - found.mean(0)).square().sum(1)
    result = {
        "samples": rows,
        "variance": float(found.var(0).sum()),
        "error": float(squares.std() / squares.mean()) / len(squares) ** 0.5,  # of the variance, relative
        "off": None if case.factor is None else off,
    }
    if case.exact:
        agent.samples = min(k, 2)
        mean = flat(rlseq.exact.expected_gradient(agent, env, rows=2))
        mean = matched(mean, wanted, case.factor and case.factor(agent.samples))
        result["bias"] = float((mean - wanted).norm() / wanted.norm())
    return result


def compared(result: dict[str, Any], plain: dict[str, Any]) -> dict[str, Any]:
    """Return a result with its variance divided by that of another, and the interval of the ratio."""
    ratio = result["variance"] / plain["variance"]
    if result is plain:
        return {**result, "ratio": 1.0, "interval": [1.0, 1.0]}
    off = math.exp(1.96 * math.hypot(result["error"], plain["error"]))
    return {**result, "ratio": ratio, "interval": [ratio / off, ratio * off]}


def main() -> None:
    """Run all, print a line each, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--estimators", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--rewards", nargs="+", default=["alike", "apart"], choices=list(REWARDS))
    parser.add_argument("--out", default="variance", help="name of the file of results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys([PLAIN, *options.estimators]):
        start = time.perf_counter()
        found = {rewards: measure(CASES[name], rewards) for rewards in options.rewards}
        plain = results.get(PLAIN, found)
        results[name] = {rewards: compared(found[rewards], plain[rewards]) for rewards in found}
        print(f"{name:28s} {results[name]} {time.perf_counter() - start:.0f} s", flush=True)
    print(record.write(options.out, {"texts": TEXTS, "batches": BATCHES, "estimators": results}))


if __name__ == "__main__":
    main()
