"""The settings of a comparison, and its runs: agents × tasks × seeds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from rlseq.agents import AGENTS
from rlseq.compare.folders import check_names, folder_name
from rlseq.engine.computing import OFF, Autocast, Compile, stated
from rlseq.envs.wrappers.shaping import read_shaping
from rlseq.training.experiment import build
from rlseq.training.experiment_envs import CONTROLS
from rlseq.training.run_config import RunConfig
from rlseq.training.tuned_settings import TunedSettings, settings_for, tuned_settings
from rlseq.utils.arguments import Checked, NonNegativeFloat, PositiveInt, Tokens
from rlseq.utils.errors import hint, pick
from rlseq.utils.imports import import_modules
from rlseq.utils.memory import check_fits

START = "start"  # the name of the shared start
SB3_AGENTS = ("sb3-a2c", "sb3-ppo")
Options = Mapping[str, Any]
Names = str | Sequence[str] | Mapping[str, Options]
# Settings that do not change the results, and are not recorded.
OF_MACHINE = ("jobs", "executor", "gpus", "slurm", "out", "quiet")
OF_RUN = (
    "agent",
    "reward",
    "curriculum",
    "curiosity",
    "shaping",
)  # settings of an agent that are not hyper-parameters
RUN_BYTES = 1000  # memory of the settings of a run, at least


@dataclass(frozen=True)
class ComparisonConfig(Checked):
    """The settings of a comparison; keywords, flags, files and docs are generated from these fields."""

    envs: Names
    """Ids of tasks; in Python also a dictionary of their options by id, on the command line `--option
    length=6` for all of them. Agents are tested on the items that
    a task declares as held out (`SequenceEnv.held_out`), or on its training items if it declares none; the
    results name which."""
    agents: Names
    """Names of agents; "sb3-ppo" and "sb3-a2c" are those of stable-baselines3. In Python also a dictionary
    of hyper-parameters by name: `{"fast": {"agent": "scst", "lr": 1e-3}}` defines a variant, and "reward" in
    the hyper-parameters is a metric to train on, while tests report the reward of the task;
    "curriculum", such as "reverse" or `{"name": "by_success", "wanted": 0.6}`, "curiosity", and "shaping",
    a table or the name of its file, are those of `rlseq train`. On the command line, `--hyper scst.lr=1e-3
    rloo.curriculum=reverse`."""
    seeds: PositiveInt = 4
    """Number of runs of every agent on every task: seeds 0, 1, … of data, samples and initial weights."""
    budget_tokens: Tokens = 1_000_000
    """Length of every run: tokens that are generated or imitated."""
    policy: str | Options | None = None
    """Name and sizes of the policy: `lstm hidden=64` on the command line, `{"name": "lstm", "hidden": 64}` in
    Python. By default that of the task's tuned settings, or `lstm`."""
    tuned: bool = True
    """Use the tuned settings of each task (policy, rows of a batch, hyper-parameters of the agents that were
    tuned) where no others are given; otherwise, and for agents that were not tuned, the defaults."""
    settings: str | PathLike[str] | None = None
    """A file of settings, as `rlseq tune` writes: the policy with its sizes, options of the tasks, and
    hyper-parameters of agents, in place of which any of these may be given."""
    metrics: Sequence[str] | None = None
    """Metrics to report beside the reward in tests; by default those of the task."""
    rewards: Sequence[str] = ()
    """Metrics on each of which every agent is also trained, for a matrix of training × test metrics."""
    control: str | None = None
    """A reward without information, on which every agent is also trained: "constant" or "shuffled"."""
    start: str | None = "mle"
    """The agent that trains the common initial policy of all others, once for each seed; `none` (None in
    Python) for no common start."""
    start_tokens: Tokens | None = None
    """Tokens of the common start; by default `budget_tokens`."""
    start_hyper: Options | None = None
    """Hyper-parameters of the common start, such as `lr=1e-3`."""
    mle_options: Options | None = None
    """Options of the task for likelihood training only; `items=200` limits it to few references."""
    compile: Compile = OFF
    """`compile` of all agents that do not state it: "rollout", "all" or "auto" (docs/how/performance.md)."""
    autocast: Autocast = OFF
    """`autocast` of all agents that do not state it: "bfloat16" or "auto"."""
    temperatures: bool = False
    """Also test samples of the likelihood runs at several temperatures."""
    evaluations: PositiveInt = 10
    """Number of evaluations of every run, at equal intervals."""
    texts: PositiveInt | None = 500
    """The largest number of items in a test, drawn at random by a fixed seed, the same for all agents; all
    items if None."""
    imports: Sequence[str] = ()
    """Modules of your own that every process imports first, so that the names they register are known."""
    jobs: PositiveInt | None = None
    """Number of processes at a time; by default the number of threads that torch may use here
    (`OMP_NUM_THREADS`, `torch.set_num_threads`, the processors of the machine and of its container). Together
    they use no more threads than that, unless more processes are requested; then each has one thread."""
    executor: Literal["local", "workers", "ray", "slurm"] = "local"
    """How runs are trained: "local", by processes on this machine; "workers", by any number of `rlseq compare
    --worker FOLDER` on machines that share the folder; "ray" and "slurm", by as many workers as `jobs` on a
    cluster of Ray, or submitted to Slurm."""
    gpus: NonNegativeFloat = 0.0
    """GPUs of a worker on Ray."""
    slurm: Sequence[str] = ()
    """Options of sbatch for workers on Slurm, `time=2:00:00 partition=short`."""
    out: str | PathLike[str] = "runs/compare"
    """Folder of the comparison."""
    quiet: bool = False
    """Print no lines about the runs and show no progress bar; every run still writes its `log.txt`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        import_modules(self.imports)
        self._take_settings()
        if self.control is not None and self.control not in CONTROLS:
            raise ValueError(f"unknown control {self.control!r}{hint(self.control, CONTROLS)}")
        if not named(self.envs) or not named(self.agents):
            raise ValueError(f"nothing to compare: envs={self.envs!r}, agents={self.agents!r}")
        if START in named(self.agents):
            raise ValueError(f"{START!r} is the name of what all agents start from; rename the agent")
        check_names(named(self.envs), "a task")
        variants = [name for name, _ in self.variants()]
        check_names(variants, "an agent")
        twice = next((name for name in variants if variants.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two agents are called {twice!r}: one that is given, and one with that reward")
        check_fits(RUN_BYTES * self.seeds * len(variants) * len(named(self.envs)), seeds=self.seeds)
        for _, settings in self.variants():
            pick(dict.fromkeys((*AGENTS, *SB3_AGENTS)), settings["agent"], "agent")

    def _take_settings(self) -> None:
        """Replace a file of settings by what it holds."""
        if self.settings is None:
            return
        agents = {name: {"agent": name, **hyper} for name, hyper in named(self.agents).items()}
        likelihood, algorithms = self.start == "mle", [hyper["agent"] for hyper in agents.values()]
        found = settings_for(self.settings, algorithms, after_likelihood=likelihood)
        given: dict[str, Any] = {
            "envs": {id: {**found.options, **options} for id, options in named(self.envs).items()},
            "agents": {
                name: {**found.hyper(hyper["agent"], after_likelihood=likelihood), **hyper}
                for name, hyper in agents.items()
            },
            "settings": None,
            "tuned": False,
        }
        if found.policy is not None and self.policy is None:
            given["policy"] = {"name": found.policy, **found.sizes}
        for name, value in given.items():
            object.__setattr__(self, name, value)

    def plain(self) -> dict[str, Any]:
        """Return the settings as JSON holds them, without those of the machine and an empty `imports`."""
        left_out = (*OF_MACHINE, "settings", *(() if self.imports else ("imports",)))
        found = {name: value for name, value in vars(self).items() if name not in left_out and value != OFF}
        return {**found, "envs": named(self.envs), "agents": named(self.agents)}

    def runs(self) -> list[RunConfig]:
        """Return all runs, each after the one it starts from."""
        folder = Path(self.out)
        tasks, variants = named(self.envs), dict(self.variants())
        return [
            run
            for (id, options), seed in itertools.product(tasks.items(), range(self.seeds))
            for run in self._runs(folder / "runs" / folder_name(id), id, options, variants, seed)
        ]

    def variants(self) -> Iterator[tuple[str, Options]]:
        """Yield the start, the agents, and each agent again for every other reward; likelihood has none."""
        if self.start is not None:
            yield START, {"agent": self.start, **(self.start_hyper or {})}
        for name, hyper in named(self.agents).items():
            algorithm = hyper.get("agent", name)
            yield name, {"agent": algorithm, **hyper}
            if algorithm != "mle" and "reward" not in hyper:
                for reward in (*self.rewards, *([self.control] if self.control else [])):
                    yield f"{name}@{reward}", {"agent": algorithm, **hyper, "reward": reward}

    def tuned_settings(self, id: str) -> TunedSettings:
        """Return the tuned settings of a task that this comparison uses."""
        return tuned_settings(id, self._given_policy()[0]) if self.tuned else TunedSettings()

    def _given_policy(self) -> tuple[str | None, dict[str, Any]]:
        """Return the name and the sizes of the policy that were given; no name if none was."""
        shape = dict(self.policy) if isinstance(self.policy, Mapping) else {"name": self.policy}
        return shape.pop("name", RunConfig.policy), shape

    def _runs(
        self, place: Path, id: str, options: Options, variants: Mapping[str, Options], seed: int
    ) -> Iterator[RunConfig]:
        """Yield the runs of one task and seed: the shared start, and every agent from there."""
        tuned = self.tuned_settings(id)
        policy, sizes = self._given_policy()
        if policy is None:
            policy, sizes = tuned.policy or RunConfig.policy, dict(tuned.sizes)
        for name, settings in variants.items():
            run = str(place / folder_name(name) / str(seed))
            starts, likelihood = name == START, settings["agent"] == "mle"
            suited = tuned.hyper(settings["agent"], after_likelihood=not starts and self.start == "mle")
            yield RunConfig(
                folder=run,
                env=id,
                options={**tuned.options, **options},
                agent=name,
                algorithm=settings["agent"],
                hyper={
                    **stated(self.compile, self.autocast),
                    **suited,
                    **{key: value for key, value in settings.items() if key not in OF_RUN},
                },
                reward=settings.get("reward"),
                curriculum=_as_options(settings.get("curriculum") or {}),
                curiosity=settings.get("curiosity", 0.0),
                shaping=_as_table(settings.get("shaping") or {}),
                policy=policy,
                sizes=sizes,
                seed=seed,
                budget_tokens=(self.start_tokens if starts else None) or self.budget_tokens,
                evaluations=self.evaluations,
                metrics=None if self.metrics is None else tuple(self.metrics),
                texts=self.texts,
                start=None if starts or self.start is None else str(place / START / str(seed)),
                imports=tuple(self.imports),
                sweep=self.temperatures and likelihood and not starts,
                training_options=(self.mle_options or {}) if likelihood else {},
            )


def _as_options(given: str | Options) -> Options:
    """Return a name with its settings as a dictionary."""
    return {"name": given} if isinstance(given, str) else given


def _as_table(given: Options | str | PathLike[str]) -> Options:
    """Return a table of shaping, which may be in a file."""
    return given if isinstance(given, Mapping) else read_shaping(given)


def check_runs(jobs: Sequence[RunConfig]) -> None:
    """Build one run of each kind without training it, so that mistakes are refused early."""
    seen = set()
    for job in jobs:
        if (job.env, job.agent) in seen:
            continue
        seen.add((job.env, job.agent))
        try:
            build(job)
        except ValueError as error:
            if job.agent != START or "no references" not in str(error):
                raise
            raise ValueError(f"{error}; compare without a common start: start=None, --start none") from None


def named(given: str | Sequence[str] | Mapping[str, Options]) -> dict[str, Options]:
    """Return options by name, from a name, a sequence of names, or a dictionary."""
    if isinstance(given, Mapping):
        for name, options in given.items():
            if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
                raise TypeError(f"{name!a:.60} must have options by name, {{}} for none, got {options!a:.60}")
        return {name: dict(options) for name, options in given.items()}
    names = [given] if isinstance(given, str) else list(given)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice!r} is named twice; give variants names of their own, in a dict")
    return {name: {} for name in names}
