"""Hostile values for every argument of the public functions and classes.

A call either works, with finite results, or raises a ValueError or TypeError that names the argument and
comes from rlseq's own checks. After an error the task, its random numbers and the weights are as before.
"""

from __future__ import annotations

import math
import random
import signal
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from inspect import signature
from typing import Any

import numpy as np
import torch

import rlseq
from rlseq.agents import AGENTS
from rlseq.compare.run import compare
from rlseq.discriminators import Adversary
from rlseq.mdp.registry import task_class
from rlseq.metrics import BLEU, ROUGEL, ChrF, CIDErD, DistinctN, Overlong, SelfBLEU
from rlseq.policy_gradient import agent as schedules
from rlseq.policy_gradient.baselines import ConstantBaseline, MovingAverage, Regression
from rlseq.policy_gradient.credit import Completions, Lambda, NStep
from rlseq.training.alarms import AlarmMonitor
from rlseq.utils.arguments import rules_of

SECONDS = 5  # a call may take
SAID = {"eval_env": {"a task"}, "response": {"alarms"}}  # other words for an argument, which errors use
OWN = {"tokenize", "on_update"}  # functions of the user, whose errors are their own
LASTING = {"budget_tokens", "updates"}  # training goes on for as long as it is asked
TASKS: dict[str, dict[str, Any]] = {
    **{name: {"num_envs": 2} for name in ("Copy", "Reverse", "Enumerable", "HMM")},
    "Oracle": {"num_envs": 2, "vocab_size": 20, "hidden": 4, "length": 3, "references": 8},
}
EXAMPLES = [["a b c"], ["d e"]]


class Raises:
    """An object that raises whatever it is asked."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("asked for equality")

    def __repr__(self) -> str:
        raise RuntimeError("asked for its text")

    def __bool__(self) -> bool:
        raise RuntimeError("asked for its truth")

    __hash__ = None  # type: ignore[assignment]


HOSTILE: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 3, 10**12, 10**15, 10**30, 10**400, -(10**30), 10**5000),
    *(0.0, -0.5, 0.5, 1.0, 1.5, 1e-300, 1e300, math.nan, math.inf, -math.inf),
    *("", "3", "nan", "copy", "\x00", "x" * 10_000),
    *(np.int64(-3), np.float32("nan"), np.float64("inf"), np.bool_(True), np.array([1, 2]), np.array(3)),
    *((), [], {}, [[]], {"a": {"b": 1}}, [math.nan], ("a", 1), {1, 2}, range(10**12), b"bytes"),
    *(object(), Raises(), len, int, torch.tensor(1.0), torch.tensor([math.nan]), 1j),
)


class Hang(BaseException):
    """A call took too long."""


@contextmanager
def limited() -> Iterator[None]:
    """Interrupts what takes too long."""

    def ask(number: int, frame: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ask)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class World:
    """A task and a policy that all calls share, and what of them no failed call may change."""

    def __init__(self) -> None:
        self.env = rlseq.make("rlseq/Copy-v0", num_envs=4, items=16, length=3)
        self.policy = rlseq.make_policy("lstm", self.env, hidden=4, embedding=3, value=True)
        self.batch = rlseq.rollout(self.policy, self.env)
        self.discriminator = rlseq.make_discriminator("gru", self.env, hidden=4, embedding=3)

    def state(self) -> list[torch.Tensor]:
        """Episodes, counts, random numbers and weights."""
        env = self.env
        return [
            *(t.clone() for t in (env.tokens, env.length, env.done, *self.policy.parameters())),
            *(env.generator.get_state(), torch.get_rng_state()),
            torch.tensor([*env.counts.as_dict().values()]),
        ]

    def targets(self) -> dict[str, tuple[Callable[..., Any], dict[str, Any], set[str]]]:
        """Callables by name: the function, arguments that work, and those that are given hostile values."""
        env, policy = self.env, self.policy
        found: dict[str, tuple[Callable[..., Any], dict[str, Any], set[str]]] = {}

        def add(name: str, call: Callable[..., Any], good: dict[str, Any], hostile: set[str]) -> None:
            found[name] = call, good, hostile

        for name, algorithm in AGENTS.items():
            if not algorithm.writes_texts:
                continue
            hyper = {f.name for f in fields(algorithm) if f.init and f.name != "policy"}
            add(f"agent {name}", algorithm, {"policy": policy}, hyper)
        for task, small in TASKS.items():
            make = _making(task)
            constructor: Any = getattr(task_class(f"rlseq/{task}-v0"), "__init__")  # noqa: B009
            names = set(rules_of(constructor))
            add(f"task {task}", make, small, names | {"num_envs", "seed"})
        parts: tuple[tuple[Any, dict[str, Any]], ...] = (
            *((kind, {}) for kind in (rlseq.Sample, rlseq.Beam, Lambda, NStep, Completions)),
            *((kind, {}) for kind in (MovingAverage, Regression, DistinctN, SelfBLEU, AlarmMonitor)),
            *((kind, {"references": EXAMPLES}) for kind in (BLEU, CIDErD, ChrF, ROUGEL)),
            (ConstantBaseline, {"threshold": 0.0}),
            (rlseq.Vocab, {"words": ("a", "b")}),
            (Adversary, {"discriminator": self.discriminator}),
        )
        for kind, good in parts:
            names = set(rules_of(kind)) & {f.name for f in fields(kind)}
            add(kind.__name__, kind, good, names)
        sizes = {"hidden": 4, "embedding": 4, "layers": 1}
        for name in ("lstm", "gru", "seq2seq", "transformer"):
            more = {"heads": 2} if name == "transformer" else {}
            wanted = {*sizes, *more, "dropout", "value", "seed"}
            add(f"policy {name}", rlseq.make_policy, {"name": name, "env": env, **sizes, **more}, wanted)
        for name in ("cnn", "gru"):
            good = {"name": name, "env": env, "embedding": 4}
            add(f"discriminator {name}", rlseq.make_discriminator, good, {"embedding", "dropout", "seed"})
        pair = {"policy": policy, "env": env}
        agent = rlseq.make_agent("reinforce", policy)
        training = {"agent": agent, "env": env, "updates": 1, "alarms": "ignore", "probe": False}
        add("Overlong", Overlong, {"limit": 4, "margin": 2}, {"limit", "margin", "weight"})
        add("numbered", rlseq.Vocab.numbered, {"size": 4}, {"size"})
        add("rollout", rlseq.rollout, pair, {"decode", "forced", "forced_steps", "repeat", "index"})
        add("complete", rlseq.complete, {**pair, "batch": self.batch, "samples": 2}, {"samples", "prefixes"})
        add("beam_search", rlseq.beam_search, pair, {"beam", "repeat", "index"})
        add("evaluate", rlseq.evaluate, {**pair, "limit": 4}, {"decode", "metrics", "limit"})
        add("generate", rlseq.generate, {**pair, "sources": ["a b"]}, {"sources", "decode", "n"})
        add("preflight", rlseq.preflight, {"env": env, "policy": policy}, {"limit"})
        add("train", rlseq.train, training, {*signature(rlseq.train).parameters} - {*training, "out"})
        for schedule in schedules.SCHEDULES.values():
            add(f"schedule {schedule.__name__}", schedule, {"done": 0.5}, {"done"})
        plan = {"envs": "rlseq/Copy-v0", "agents": "reinforce", "control": "no such control"}
        add("compare", compare, plan, {"seeds", "budget_tokens", "evaluations", "texts", "jobs"})
        return found


def _making(task: str) -> Callable[..., Any]:
    return lambda **options: rlseq.make(f"rlseq/{task}-v0", **options)


def kind_of(error: BaseException, names: Iterable[str]) -> str:
    """How a call ended: refused in our own words, or an error that is not ours."""
    if isinstance(error, Hang):
        return "hang"
    if not isinstance(error, (TypeError, ValueError)):
        return "other error"
    last = traceback.extract_tb(error.__traceback__)[-1].filename
    ours = any(f"/{part}/" in last for part in ("rlseq", "agents", "envs")) and "site-packages" not in last
    wanted = {name.replace("_", " ") for name in names} | (
        SAID.get(next((n for n in names if n in SAID), ""), set())
    )
    return "refused" if ours and any(n in str(error).replace("_", " ") for n in wanted) else "not ours"


def finite(value: Any) -> bool:
    """Whether the numbers of a result are finite."""
    if isinstance(value, rlseq.Rollout):
        return bool(value.rewards.isfinite().all() and value.log_probs.isfinite().all())
    if isinstance(value, dict):
        return all(finite(entry) for entry in value.values())
    return not isinstance(value, float) or math.isfinite(value)


def is_count(value: Any) -> bool:
    """Whether a value is an integer ≥ 1."""
    return type(value) is int and value >= 1


def test_hostile_arguments(campaign: Any) -> None:
    draw, world, counts, wrong = random.Random(campaign.seed), World(), Counter[str](), list[str]()
    targets = sorted(world.targets().items())
    for _ in range(campaign.trials(1000, 10_000)):
        name, (call, good, hostile) = draw.choice(targets)
        chosen = draw.sample(sorted(hostile - OWN), min(len(hostile - OWN), draw.choice((1, 1, 1, 2))))
        given = {argument: draw.choice(HOSTILE) for argument in chosen}
        if name == "train" and any(is_count(given.get(argument)) for argument in LASTING):
            continue
        before, ended = world.state(), "worked"
        try:
            with limited(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = call(**{**good, **given})
            ended = "worked" if finite(result) else "not finite"
        except (Exception, Hang) as error:
            ended = kind_of(error, {*good, *given})
            shown = f"{type(error).__name__}: {str(error)[:150]}"
            changed = [
                i for i, (a, b) in enumerate(zip(before, world.state(), strict=True)) if not a.equal(b)
            ]
            if changed:
                ended = "state changed"
                shown += f" (parts {changed})"
            if ended != "refused":
                values = ", ".join(f"{key}={type(value).__name__}" for key, value in given.items())
                wrong.append(f"{ended}: {name}({values}): {shown}")
        counts[ended] += 1
    campaign.record("api", {"calls": sum(counts.values()), **counts})
    sys.stderr.write(f"{dict(counts)}\n")
    assert not wrong, f"{len(wrong)} of {sum(counts.values())} {dict(counts)}:\n" + "\n".join(wrong[:60])
    assert not counts["not finite"]
    assert counts["refused"] > counts["worked"] > 0
