"""What is compared: agents × tasks × seeds as a list of runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from rlseq.agents import AGENTS
from rlseq.compare.jobs import Job, made
from rlseq.compare.tasks import CONTROLS
from rlseq.errors import hint

START = "start"  # the name of the shared start
STOCK = ("sb3-a2c", "sb3-ppo")
Options = Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """The settings of a comparison; `rlseq.compare.runner.compare` says what each means."""

    envs: str | Sequence[str] | Mapping[str, Options]
    agents: str | Sequence[str] | Mapping[str, Options]
    seeds: int
    budget_tokens: int
    policy: str | Options
    metrics: Sequence[str] | None
    rewards: Sequence[str]
    control: str | None
    start: str | None
    start_tokens: int | None
    start_hyper: Options | None
    temperatures: bool
    evaluations: int
    texts: int | None

    def __post_init__(self) -> None:
        for name in ("seeds", "budget_tokens", "start_tokens", "evaluations", "texts"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"{name} must be ≥ 1, got {number}")
        if self.control is not None and self.control not in CONTROLS:
            raise ValueError(f"unknown control {self.control!r}{hint(self.control, CONTROLS)}")
        if not named(self.envs) or not named(self.agents):
            raise ValueError(f"nothing to compare: envs={self.envs!r}, agents={self.agents!r}")

    def plain(self) -> dict[str, Any]:
        """As JSON: the keyword arguments of `compare`."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**found, "envs": named(self.envs), "agents": named(self.agents)}

    def jobs(self, folder: Path) -> list[Job]:
        """All runs, each after the one it starts from."""
        tasks, variants = named(self.envs), dict(self.variants())
        return [
            job
            for (id, options), seed in itertools.product(tasks.items(), range(self.seeds))
            for job in self._jobs(folder / "runs" / id.replace("/", "_"), id, options, variants, seed)
        ]

    def variants(self) -> Iterator[tuple[str, Options]]:
        """Agents as asked for, and again for every other reward; likelihood has none."""
        known = {*AGENTS, *STOCK}
        for name, hyper in named(self.agents).items():
            algorithm = hyper.get("agent", name)
            if algorithm not in known:
                raise ValueError(f"unknown agent {algorithm!r}{hint(algorithm, known)}")
            yield name, {"agent": algorithm, **hyper}
            if algorithm != "mle" and "reward" not in hyper:
                for reward in (*self.rewards, *([self.control] if self.control else [])):
                    yield f"{name}@{reward}", {"agent": algorithm, **hyper, "reward": reward}

    def _jobs(
        self, place: Path, id: str, options: Options, variants: Mapping[str, Options], seed: int
    ) -> Iterator[Job]:
        """The runs of one task and seed: the shared start, and every agent from there."""
        shape = dict(self.policy) if isinstance(self.policy, Mapping) else {"name": self.policy}
        common: dict[str, Any] = {
            "env": id,
            "options": options,
            "seed": seed,
            "policy": shape.pop("name", "lstm"),
            "sizes": shape,
            "evaluations": self.evaluations,
            "metrics": None if self.metrics is None else tuple(self.metrics),
            "texts": self.texts,
        }
        first = None
        if self.start is not None:
            first = str(place / START / str(seed))
            common |= {"budget_tokens": self.start_tokens or self.budget_tokens}
            yield Job(first, agent=START, algorithm=self.start, hyper=self.start_hyper or {}, reward=None, **common)
        common |= {"budget_tokens": self.budget_tokens, "start": first}
        for name, options in variants.items():
            hyper = {key: value for key, value in options.items() if key not in ("agent", "reward")}
            yield Job(
                str(place / name / str(seed)),
                agent=name,
                algorithm=options["agent"],
                hyper=hyper,
                reward=options.get("reward"),
                sweep=self.temperatures and options["agent"] == "mle",
                **common,
            )


def check(jobs: Sequence[Job]) -> None:
    """Make one run of each kind without training it: what is wrong is said before anything is written."""
    seen = set()
    for job in jobs:
        if (job.env, job.agent) in seen:
            continue
        seen.add((job.env, job.agent))
        _, env, _ = made(job)
        if job.algorithm == "mle" and "references" not in env.contexts(torch.zeros(1, dtype=torch.int64)):
            raise ValueError(f"{job.env} has no references, which mle needs; use start=None, and no mle")


def named(given: str | Sequence[str] | Mapping[str, Options]) -> dict[str, Options]:
    """Names with options, whichever way they were given."""
    if isinstance(given, Mapping):
        return {name: dict(options) for name, options in given.items()}
    names = [given] if isinstance(given, str) else list(given)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice!r} is named twice; give variants names of their own, in a dict")
    return {name: {} for name in names}
