"""All families of algorithms on four tasks, at equal numbers of tokens and at equal seconds.

    python benchmarks/families.py [--tasks copy g2p oracle cartpole] [--methods reinforce dqn] [--seeds 4]

A run goes on until it has used both the tokens and the seconds of its task. It is tested greedily when it has
used the tokens, and when it has used the seconds. Generated words count as tokens, those of completions, of
perturbed policies and of greedy texts among them; so do words of references, and labels. Seconds are of the
processor, one thread, without tests. Exploration and temperatures that change during training reach their
last value when the tokens are used; step sizes are constant.

Every method trains the same policy, with a value head only where it needs V. Its setting is one of two,
chosen by the score after the tokens on a seed that is used for nothing else. On `g2p` all methods start from
the likelihood policy of their seed, elsewhere from nothing. `mle`, `dagger` and `gumbel` learn from
references, the others from rewards alone. Texts from which the discriminator of `gumbel` learns count, too.

A run is added to results/families.json as soon as it is done, and is not done again. After a change of what
all settings of a method share, remove its runs from there.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import record
import torch

import rlseq
from rlseq.adapters import GymEnv
from rlseq.envs.g2p import the_dictionary

SEARCH_SEED = 1000
FILE = record.RESULTS / "families.json"
Hyper = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Task:
    """A task, the policy that learns it, and what a run may use."""

    make: Callable[..., Any]  # (rows, seed, **options) -> the task
    policy: str
    sizes: Hyper
    tokens: int
    seconds: float
    rows: int
    start: int = 0  # tokens of likelihood training before
    test: Hyper = field(default_factory=dict)  # options of the task when it tests
    limit: int | None = None  # items, or episodes, of a test


def copy(rows: int, seed: int, **options: Any) -> Any:
    """Return the task to copy three words of seven; 343 sources, of which 34 are tested."""
    return rlseq.make("rlseq/Copy-v0", num_envs=rows, seed=seed, vocab_size=8, length=3, **options)


def g2p(rows: int, seed: int, **options: Any) -> Any:
    """Return the task to pronounce words of at most five letters."""
    return rlseq.make("rlseq/G2P-v0", num_envs=rows, seed=seed, path=short_words(), **options)


@cache
def short_words() -> Path:
    """Write a dictionary of the words of at most five letters."""
    path = Path(tempfile.mkdtemp()) / "short.dict"
    lines = the_dictionary().read_text("utf-8").splitlines()
    short = [line for line in lines if line and len(line.split()[0].split("(")[0]) <= 5]
    path.write_text("\n".join(short) + "\n", "utf-8")
    return path


def oracle(rows: int, seed: int, **options: Any) -> Any:
    """Return the task to write texts that a random language model finds likely."""
    sizes = {"vocab_size": 20, "length": 8, "references": 5_000}
    return rlseq.make("rlseq/Oracle-v0", num_envs=rows, seed=seed, **sizes, **options)


def cartpole(rows: int, seed: int, steps: int = 32, unit: float = 1.0) -> Any:
    """Return the pole, in batches of so many steps of every row, with rewards in a unit of ours."""
    return GymEnv("CartPole-v1", rows, steps, seed=seed, rewards=lambda rewards, ends: unit * rewards)


SMALL = {"hidden": 32, "embedding": 16}
TEST = {"split": "test"}
TASKS = {
    "copy": Task(copy, "lstm", SMALL, 40_000, 1.5, 64, test=TEST),
    "cartpole": Task(cartpole, "mlp", {"hidden": 32}, 10_000, 2.0, 8, limit=20),
    "oracle": Task(oracle, "lstm", SMALL, 15_000, 0.8, 64, limit=1),  # the greedy text is always the same
    "g2p": Task(g2p, "lstm", SMALL, 15_000, 0.8, 64, start=60_000, test=TEST, limit=500),
}


@dataclass(frozen=True)
class Method:
    """An agent on some tasks, and the settings that are tried."""

    family: str
    tasks: tuple[str, ...]
    search: tuple[Hyper, ...]
    agent: str | None = None  # where it is not the name of the method
    always: Hyper = field(default_factory=dict)  # what all settings share
    value: bool = False  # whether the policy has a value head
    task: Hyper = field(default_factory=dict)  # options of the task, as `rows`


TEXTS = ("copy", "g2p", "oracle")
RATES = ({"lr": 3e-3}, {"lr": 1e-2})
SCORE, REGION, VALUES = "score function", "trust region", "values"
SEARCH, RELAXED, LIKELIHOOD = "black box", "relaxed", "likelihood and imitation"
EXPLORE = {"entropy": 0.01}
LESSONS = {"pretraining": 5, "d": 1, "k": 1}  # of the discriminator
TARGET = {"target_every": 25}
SOFT = ({"temperature": 0.05}, {"temperature": 0.2})
SEARCHES = ({"lr": 0.03, "sigma": 0.1}, {"lr": 0.1, "sigma": 0.1})
SPREADS = ({"sigma": 0.3}, {"sigma": 0.3, "only": "head.*"})

# On texts, and below on the pole, where an agent of the same name has other settings.
METHODS = {
    "mle": Method(LIKELIHOOD, TEXTS, RATES),
    "dagger": Method(LIKELIHOOD, ("copy", "g2p"), RATES),
    "reinforce": Method(SCORE, TEXTS, RATES, always=EXPLORE),
    "rloo": Method(SCORE, TEXTS, RATES, always=EXPLORE),
    "scst": Method(SCORE, TEXTS, RATES, always=EXPLORE),
    "a2c": Method(SCORE, TEXTS, RATES, always=EXPLORE, value=True),
    "ppo": Method(SCORE, TEXTS, RATES, always=EXPLORE, value=True, task={"rows": 256}),
    "all_action": Method(SCORE, ("copy", "oracle"), RATES, always=EXPLORE, task={"rows": 16}),
    "all_action, critic": Method(
        *(SCORE, TEXTS, RATES, "all_action"), always={**EXPLORE, "action_values": "critic"}
    ),
    "trpo": Method(
        *(REGION, TEXTS, ({"kl_target": 0.03}, {"kl_target": 0.1})),
        always={**EXPLORE, "cg_steps": 5, "value_epochs": 4, "value_minibatches": 2},
        value=True,
        task={"rows": 256},
    ),
    "dqn": Method(VALUES, TEXTS, RATES, always=TARGET, task={"rows": 128}),
    "soft_q": Method(VALUES, TEXTS, SOFT, always={**TARGET, "lr": 1e-2}, task={"rows": 128}),
    "g_learning": Method(
        *(VALUES, ("g2p",), SOFT),
        always={**TARGET, "lr": 3e-3},
        value=True,
        task={"rows": 128},
    ),
    "es": Method(SEARCH, TEXTS, SEARCHES, always={"population": 32}),
    "cem": Method(SEARCH, TEXTS, SPREADS, always={"population": 32}),
    "finite_differences": Method(SEARCH, TEXTS, SEARCHES, always={"population": 32}),
    "gumbel": Method(RELAXED, ("oracle",), ({"lr": 1e-3}, {"lr": 3e-3}), always=LESSONS),
}

POLE = ("cartpole",)
ADVANTAGE = {"gamma": 0.98, "clip_norm": 0.5, "value_weight": 1.0}
REPLAY = {"gamma": 0.98, "clip_norm": 10.0, "rows": 256, "target_every": 1, "target_share": 0.05}
REPLAY |= {"gradient_steps": 32}
EPISODES = {"rows": 16, "steps": 100}
METHODS |= {
    "reinforce, pole": Method(
        *(SCORE, POLE, ({"lr": 5e-3}, {"lr": 1e-2}), "reinforce"),
        always={"baseline": "value", "scale": "by_batch", **ADVANTAGE},
        value=True,
        task={"steps": 128},
    ),
    "a2c, pole": Method(
        *(SCORE, POLE, ({"lr": 1e-3}, {"lr": 3e-3}), "a2c"), always=ADVANTAGE, value=True, task={"steps": 16}
    ),
    "ppo, pole": Method(
        *(SCORE, POLE, ({"lr": 1e-3}, {"lr": 3e-3}), "ppo"),
        always={**ADVANTAGE, "lam": 0.8, "epochs": 10, "minibatches": 1},
        value=True,
    ),
    "all_action, critic, pole": Method(
        *(SCORE, POLE, ({"lr": 5e-3}, {"lr": 1e-2}), "all_action"),
        always={"action_values": "critic", "gamma": 0.98, "clip_norm": 0.5},
        task={"steps": 128},
    ),
    "trpo, pole": Method(
        *(REGION, POLE, ({"kl_target": 0.01}, {"kl_target": 0.03}), "trpo"),
        always={"gamma": 0.98, "cg_steps": 5},
        value=True,
        task={"steps": 128},
    ),
    "dqn, pole": Method(
        *(VALUES, POLE, ({"lr": 1e-3}, {"lr": 2e-3}), "dqn"),
        always={**REPLAY, "backup": "double", "epsilon": 0.04, "exploration": 0.3},
        task={"unit": 0.02},  # values of at most 1, see control.py
    ),
    "soft_q, pole": Method(
        *(VALUES, POLE, ({"temperature": 1.0}, {"temperature": 10.0}), "soft_q"),
        always={**REPLAY, "gamma": 0.9, "lr": 5e-3, "form": "soft_dueling"},
        value=True,
    ),
    "es, pole": Method(SEARCH, POLE, SEARCHES, "es", always={"population": 16}, task=EPISODES),
    "cem, pole": Method(
        *(SEARCH, POLE, ({"sigma": 0.3}, {"sigma": 0.5, "only": "actor.*"}), "cem"),
        always={"population": 16},
        task=EPISODES,
    ),
    "finite_differences, pole": Method(
        *(SEARCH, POLE, SEARCHES, "finite_differences"), always={"population": 16}, task=EPISODES
    ),
}


def policy_of(task: Task, env: Any, seed: int, value: bool) -> Any:
    """Return an untrained policy, or one that likelihood has trained."""
    policy = rlseq.make_policy(task.policy, env, **task.sizes, **({"value": True} if value else {}))
    if task.start:
        missing = policy.load_state_dict(likelihood(task, seed), strict=False).missing_keys
        assert all("value" in name for name in missing), missing
    return policy


@cache
def likelihood(task: Task, seed: int) -> dict[str, Any]:
    """Return the weights from which all methods of a seed start."""
    env = task.make(task.rows, seed)
    policy = rlseq.make_policy(task.policy, env, **task.sizes)
    agent = rlseq.make_agent("mle", policy, lr=3e-3)
    rlseq.train(agent, env, budget_tokens=task.start, quiet=True)
    return deepcopy(policy.state_dict())


def tested(policy: Any, task: Task, seed: int) -> float:
    """Return the mean reward of greedy texts, or the mean return of greedy episodes."""
    env = task.make(20 if task.limit == 20 else 100, 2_000 + seed, **task.test)
    return float(rlseq.evaluate(policy, env, limit=task.limit)["reward"])


def trained(method: Method, task: Task, name: str, hyper: Hyper, seed: int, search: bool) -> dict[str, Any]:
    """Return the scores after the tokens and after the seconds, and what had been used by then."""
    options = {"rows": task.rows, **method.task}
    env = task.make(seed=seed, **options)
    policy = policy_of(task, env, seed, method.value)
    agent = rlseq.make_agent(method.agent or name, policy, **method.always, **hyper)
    limits = {"tokens": task.tokens} | ({} if search else {"seconds": task.seconds})
    used: dict[str, Any] = {"tokens": 0, "seconds": 0.0}
    marks: dict[str, Any] = {}
    while missing := [name for name in limits if name not in marks]:
        started = time.process_time()
        agent.set_progress(min(1.0, used["tokens"] / task.tokens))
        batch = agent.collect(env)
        agent.update(batch)
        env.learn(batch)
        used["seconds"] += time.process_time() - started
        used["tokens"] = int(env.counts.as_dict()["tokens"])
        due = [name for name in missing if used[name] >= limits[name]]
        if due:
            score = tested(policy, task, seed)
            marks |= {name: {"score": score, **used} for name in due}
    return marks


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for task in options.tasks:
        starts(task, options.seeds)
        for name in options.methods:
            if task in METHODS[name].tasks:
                compared(name, task, options.seeds)


def starts(task: str, seeds: int) -> None:
    """Test the policies that nothing has trained but, where the task says so, likelihood."""
    for seed in range(seeds):
        env = TASKS[task].make(TASKS[task].rows, seed)
        once(
            ("start", task, {}, seed),
            lambda env=env, seed=seed: {  # type: ignore[misc]
                "start": {"score": tested(policy_of(TASKS[task], env, seed, False), TASKS[task], seed)}
            },
        )


def compared(name: str, task: str, seeds: int) -> None:
    """Choose the settings of a method, and run it with every seed."""
    method = METHODS[name]

    def run(hyper: Hyper, seed: int) -> dict[str, Any]:
        arguments = method, TASKS[task], name.split(",")[0], hyper, seed, seed == SEARCH_SEED
        return once((name, task, hyper, seed), lambda: trained(*arguments))

    found = [run(hyper, SEARCH_SEED)["tokens"]["score"] for hyper in method.search]
    best = method.search[max(range(len(found)), key=lambda i: found[i])]
    for seed in range(seeds):
        run(best, seed)


def once(key: tuple[str, str, Hyper, int], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return a run that is there, or make it and write it down."""
    kept = json.loads(FILE.read_text("utf-8"))["results"] if FILE.exists() else {"tasks": {}, "runs": []}
    name, task, hyper, seed = key
    head = {"method": name, "task": task, "setting": hyper, "seed": seed}
    for run in kept["runs"]:
        if {field: run[field] for field in head} == head:
            found: dict[str, Any] = run
            return found
    run = {**head, **make()}
    kept["runs"].append(run)
    families = {name: method.family for name, method in METHODS.items()}
    limits = {name: {"tokens": t.tokens, "seconds": t.seconds} for name, t in TASKS.items()}
    results = {"tasks": limits, "families": families, "runs": kept["runs"]}
    record.write("families", results, command="python benchmarks/families.py")  # whatever this part of it is
    print(json.dumps(run), flush=True)
    return run


if __name__ == "__main__":
    main()
