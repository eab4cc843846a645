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
from rlseq.engine.evaluation import evaluate_texts
from rlseq.policies import POLICIES, make_policy, size_names
from rlseq.training.experiment_envs import testing_env, training_env
from rlseq.training.loop import train
from rlseq.training.reward_hacking import diversity_metrics
from rlseq.training.run_folder import RunFolder, read_job, read_results, read_state
from rlseq.utils.arguments import Checked, PositiveInt, Seed, Tokens
from rlseq.utils.errors import pick
from rlseq.utils.files import Damaged, write_sealed
from rlseq.utils.imports import import_modules

TEMPERATURES = (0.25, 0.5, 0.75, 1.0, 1.25)  # of the sweep of likelihood (Caccia et al. 2020)


@dataclass(frozen=True)
class RunConfig(Checked):
    """What one run trains on what, for how long, and into which folder: plain values, kept in `job.json`."""

    env: str
    """Id of the task (`rlseq envs`)."""
    agent: str
    """Name of the agent in its comparison."""
    algorithm: str
    """Name of the agent in `rlseq.agents`, or of one of stable-baselines3."""
    folder: str = "runs/train"
    """Folder of the run."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the task, `length=6`."""
    training_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the task in training alone."""
    hyper: Mapping[str, Any] = field(default_factory=dict)
    """Hyper-parameters of the agent."""
    reward: str | None = None
    """A metric to train on, or "constant" or "shuffled"; the task's own reward when not given."""
    policy: str = "lstm"
    """Name of the policy; on the command line with its sizes, `lstm hidden=64` (`rlseq policies`)."""
    sizes: Mapping[str, Any] = field(default_factory=dict)
    """Sizes of the policy."""
    start: str | None = None
    """Folder of a run whose policy this one starts from."""
    budget_tokens: Tokens = 1_000_000
    """Tokens that are written or imitated in training."""
    evaluations: PositiveInt = 10
    """Number of tests at equal distances, on the items that the task holds out."""
    metrics: tuple[str, ...] | None = None
    """Metrics that are tested beside the reward; the task's own when not given."""
    texts: PositiveInt | None = None
    """The most items of a test, drawn at random by a fixed seed; all when not given."""
    seed: Seed = 0
    """Seed of data, samples and initial weights."""
    sweep: bool = False
    """Test samples at several temperatures, too."""
    imports: tuple[str, ...] = ()
    """Modules of your own that are imported first, so that what they register has a name here."""

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

    def plain(self) -> dict[str, Any]:
        """Return the settings as JSON holds them, without folders; `imports` only where there are any."""
        left_out = ("folder", "start", *(() if self.imports else ("imports",)))
        found: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {name: value for name, value in found.items() if name not in left_out}

    @classmethod
    def read(cls, folder: Path) -> RunConfig:
        """The job of a run, which must be the one that the run was begun with."""
        job = read_job(folder)
        try:
            return cls(folder=str(folder), **job)
        except (TypeError, ValueError) as error:
            raise Damaged(f"{folder / 'job.json'} has other fields than a job ({error})") from error


def build(job: RunConfig) -> tuple[Any, Any, Any]:
    """Agent, task and test of a job; refuses what cannot be made, before anything is written."""
    import_modules(job.imports)
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
        first = evaluate_texts(agent.policy, fresh, limit=job.texts)
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
    found = evaluate_texts(policy, env, Sample(temperature), limit=texts)
    return {"temperature": temperature, **found.means(), **diversity_metrics(found)}
