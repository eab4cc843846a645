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
from rlseq.errors import hint, pick

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
    mle_options: Options | None
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
        for _, settings in self.variants():
            pick(dict.fromkeys((*AGENTS, *STOCK)), settings["agent"], "agent")
        if START in named(self.agents):
            raise ValueError(f"{START!r} is the name of what all agents start from; give the agent another")
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
        """The start, agents as asked for, and these again for every other reward; likelihood has none."""
        if self.start is not None:
            yield START, {"agent": self.start, **(self.start_hyper or {})}
        for name, hyper in named(self.agents).items():
            algorithm = hyper.get("agent", name)
            yield name, {"agent": algorithm, **hyper}
            if algorithm != "mle" and "reward" not in hyper:
                for reward in (*self.rewards, *([self.control] if self.control else [])):
                    yield f"{name}@{reward}", {"agent": algorithm, **hyper, "reward": reward}

    def _jobs(
        self, place: Path, id: str, options: Options, variants: Mapping[str, Options], seed: int
    ) -> Iterator[Job]:
        """The runs of one task and seed: the shared start, and every agent from there."""
        shape = dict(self.policy) if isinstance(self.policy, Mapping) else {"name": self.policy}
        policy = shape.pop("name", "lstm")
        for name, settings in variants.items():
            starts, likelihood = name == START, settings["agent"] == "mle"
            yield Job(
                folder=str(place / name / str(seed)),
                env=id,
                options={**options, **((self.mle_options or {}) if likelihood else {})},
                agent=name,
                algorithm=settings["agent"],
                hyper={key: value for key, value in settings.items() if key not in ("agent", "reward")},
                reward=settings.get("reward"),
                policy=policy,
                sizes=shape,
                seed=seed,
                budget_tokens=(self.start_tokens if starts else None) or self.budget_tokens,
                evaluations=self.evaluations,
                metrics=None if self.metrics is None else tuple(self.metrics),
                texts=self.texts,
                start=None if starts or self.start is None else str(place / START / str(seed)),
                sweep=self.temperatures and likelihood and not starts,
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
