"""One run of a comparison, as plain values, so that another process can make it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from rlseq.agents import make_agent
from rlseq.engine.decode import Sample
from rlseq.engine.evaluation import judged
from rlseq.policies import POLICIES, make_policy, size_names
from rlseq.training.experiment_envs import testing_env, training_env
from rlseq.training.loop import train
from rlseq.training.reward_hacking import diversity_metrics
from rlseq.training.run_folder import RunFolder, read_job, read_results, read_state
from rlseq.utils.errors import pick
from rlseq.utils.files import Damaged, read_sealed, write_sealed

SPENT = "spent.json"


TEMPERATURES = (0.25, 0.5, 0.75, 1.0, 1.25)  # of the sweep of likelihood (Caccia et al. 2020)


@dataclass(frozen=True)
class RunConfig:
    """Which agent learns which task from where, how long, and into which folder."""

    folder: str
    env: str
    options: Mapping[str, Any]
    agent: str  # its name in the comparison
    algorithm: str  # its name in rlseq.agents, or a stock one
    hyper: Mapping[str, Any]
    reward: str | None  # what it is trained on; the task's own when None
    policy: str
    sizes: Mapping[str, Any]
    seed: int
    budget_tokens: int
    evaluations: int
    metrics: tuple[str, ...] | None
    texts: int | None  # the most items of a test; all when None
    start: str | None = None  # folder of the run whose policy this one starts from
    sweep: bool = False  # test at several temperatures, too
    training_options: Mapping[str, Any] = field(default_factory=dict)  # of the task in training alone

    @property
    def stock(self) -> bool:
        """Is it one of stable-baselines3?"""
        return self.algorithm.startswith("sb3-")

    @property
    def done(self) -> bool:
        """Whether it is finished, and all that is made of it afterwards is there."""
        folder = Path(self.folder)
        needed = ["results.json", "start.json", *(["temperatures.json"] if self.sweep else [])]
        there = all((folder / name).exists() for name in needed)
        return there and read_results(folder)["status"] == "finished"

    @property
    def seconds(self) -> float:
        """How long its process took, the last time that it came to an end; 0 if it never did."""
        path = Path(self.folder) / SPENT
        return float(read_sealed(path)["seconds"]) if path.exists() else 0.0

    def plain(self) -> dict[str, Any]:
        """As JSON, without its place."""
        return json.loads(json.dumps({k: v for k, v in asdict(self).items() if k not in ("folder", "start")}))  # type: ignore[no-any-return]

    @classmethod
    def read(cls, folder: Path) -> RunConfig:
        """The job of a run, which must be the one that the run was begun with."""
        job = read_job(folder)
        try:
            return cls(folder=str(folder), **job)
        except TypeError as error:
            raise Damaged(f"{folder / 'job.json'} has other fields than a job ({error})") from error


def build(job: RunConfig) -> tuple[Any, Any, Any]:
    """Agent, task and test of a job; refuses what cannot be made, before anything is written."""
    env = training_env(job.env, {**job.options, **job.training_options}, job.reward, job.seed)
    fresh = testing_env(job.env, job.options, job.metrics)
    if job.stock:
        from rlseq.adapters.sb3_agent import stock_agent

        return stock_agent(job.algorithm, env, **job.hyper), env, fresh
    value = {"value": True} if "value" in size_names(pick(POLICIES, job.policy, "policy")) else {}
    policy = make_policy(job.policy, env, **{**value, **job.sizes})
    agent = make_agent(job.algorithm, policy, **job.hyper)
    agent.check(env)
    return agent, env, fresh


def run(job: RunConfig) -> None:
    """Make the run, or go on with it."""
    torch.manual_seed(job.seed)
    agent, env, fresh = build(job)
    folder = Path(job.folder)
    if job.start is not None and not job.stock:
        agent.policy.load_state_dict(read_state(Path(job.start))["policy"])
    if not (folder / "start.json").exists():
        first = judged(agent.policy, fresh, limit=job.texts)
        write_sealed(folder / "start.json", {**first.means(), **diversity_metrics(first)})
    train(
        agent,
        env,
        eval_env=fresh,
        eval_every=max(1, job.budget_tokens // job.evaluations),
        eval_texts=job.texts,
        budget_tokens=job.budget_tokens,
        out=RunFolder(folder, job.plain()),
        alarms=_logged,
        probe=False,
    )
    if job.sweep:
        sweep = [_at(agent.policy, fresh, t, job.texts) for t in TEMPERATURES]
        write_sealed(folder / "temperatures.json", {"temperatures": sweep})


def _logged(alarm: str) -> None:
    """Say an alarm in the log of the run; `alarms.json` records it."""
    sys.stderr.write(f"{alarm}\n")


def _at(policy: Any, env: Any, temperature: float, texts: int | None) -> dict[str, float]:
    """Quality and variety of samples at a temperature."""
    found = judged(policy, env, Sample(temperature), limit=texts)
    return {"temperature": temperature, **found.means(), **diversity_metrics(found)}
