"""`tune`: a search for hyper-parameters by Optuna, on dev items, by any number of workers.

A worker asks for settings, trains with them, and tells the reward on dev items; test items are never looked
at. The journal of the study is a file in the folder, so that workers need nothing else in common. A trial is
a run in a folder of its own: one whose worker has ended is resumed by another.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from inspect import signature
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from rlseq.agents import AGENTS
from rlseq.mdp.registry import option_names, task_class
from rlseq.recipe.spaces import Space, chosen_spaces, defaults_of
from rlseq.recipe.tune_config import TuneConfig
from rlseq.recipe.tune_page import write_tune_page
from rlseq.training.experiment import build, inherited
from rlseq.training.experiment_envs import held_out, task_with_words
from rlseq.training.fingerprint import differences, machine
from rlseq.training.loop import train
from rlseq.training.model import load
from rlseq.training.run_config import RunConfig
from rlseq.training.run_folder import RunFolder
from rlseq.training.tuned_settings import AFTER_LIKELIHOOD
from rlseq.utils.errors import check_options, in_one_line, need, pick
from rlseq.utils.files import Json, locked, make_folder, opened, read_sealed, write_sealed, write_whole
from rlseq.utils.imports import import_modules
from rlseq.utils.ranks import check_alone
from rlseq.utils.settings import takes_fields_of

JOURNAL, SETTINGS, RESULTS = "journal.log", "settings.yaml", "results.json"
STUDY = "rlseq"
POLL_SECONDS_OF_TUNE = 1.0  # between two looks at whether other workers are done
FOLDER = "folder"  # an attribute: the number of the trial whose folder is continued
DEV, NO_DEV = "dev items", "training items: this task declares no dev items"


@dataclass(frozen=True)
class Tuned:
    """The result of a search; `results` is the content of `results.json`."""

    folder: Path
    results: Json

    @property
    def settings(self) -> Path:
        """The file of settings that `--settings` of train, fit and compare takes."""
        return self.folder / SETTINGS

    @property
    def page(self) -> Path:
        """The page."""
        return self.folder / "report.html"


@takes_fields_of(TuneConfig)
def tune(env: str, agent: str, **settings: Any) -> Tuned:
    """Search hyper-parameters of an agent on a task, by the reward on dev items.

    Args:
        env: the id of the task.
        agent: the name of the agent.
        **settings: the settings below.
    """
    check_options(settings, signature(TuneConfig).parameters, "tune")
    return run_tune(TuneConfig(env, agent, **settings))


def run_tune(config: TuneConfig) -> Tuned:
    """Work on the trials of a search until all are done, and write what it found."""
    check_alone("a search")
    optuna = need("optuna", "tune")
    import_modules(config.imports)
    cls = pick(AGENTS, config.agent, "agent")
    spaces = chosen_spaces(cls, config.search, config.hyper)
    search = _Search(config, spaces, optuna, _begun(config))
    search.work()
    while search.others_are_busy():
        time.sleep(POLL_SECONDS_OF_TUNE)
        search.work()  # on what a worker that has ended meanwhile left behind
    return search.concluded()


def _begun(config: TuneConfig) -> Path:
    """Return the folder of a search, new or begun with these settings; refuse that of another one."""
    folder, plain = Path(config.out), config.plain()
    make_folder(folder)
    with _waiting_for(folder / "tune.lock"):
        path = folder / "tune.json"
        if not path.exists() and any(folder.glob("*.json")):
            raise ValueError(f"{folder} holds something else than a search; write it to another folder")
        there = read_sealed(path) if path.exists() else plain
        differ = "".join(f"\n  {line}" for line in differences(there, plain, "tune"))
        if differ:
            raise ValueError(
                f"{folder} holds another search:{differ}\nchange it back, or write to another folder"
            )
        os.close(opened(folder / JOURNAL, os.O_WRONLY | os.O_CREAT | os.O_APPEND))  # refused if unwritable
        if not path.exists():
            write_sealed(path, plain)
    return folder


@contextmanager
def _waiting_for(path: Path) -> Iterator[None]:
    """Hold a lock that another worker holds for a moment only."""
    with os.fdopen(opened(path, os.O_RDWR | os.O_CREAT), "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class _Search:
    """The work of one process on a search."""

    def __init__(self, config: TuneConfig, spaces: Mapping[str, Space], optuna: Any, folder: Path) -> None:
        self.config, self.spaces, self.optuna, self.folder = config, spaces, optuna, folder
        self.start = None if config.start is None else load(config.start)
        self.distributions = {name: space.distribution(optuna) for name, space in spaces.items()}
        self.dev, self.tested_on = self._dev_options()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of interfaces that Optuna calls experimental
            backend = optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL))
            storage = optuna.storages.JournalStorage(backend)
            with _waiting_for(folder / "tune.lock"):
                self.study = optuna.create_study(
                    storage=storage, study_name=STUDY, direction="maximize", load_if_exists=True
                )
                number = len(self.study.get_trials(deepcopy=False))
                # Workers draw from other seeds, as they began after other numbers of trials.
                self.study.sampler = optuna.samplers.TPESampler(seed=config.seed + number)
                self.study.pruner = optuna.pruners.MedianPruner(n_startup_trials=5)
                if not number:
                    self.study.enqueue_trial(self._defaults())

    def say(self, line: str) -> None:
        """Write a line to standard error."""
        if not self.config.quiet:
            sys.stderr.write(f"{line}\n")

    # ── trials ───────────────────────────────────────────────────────────────────────────────────────

    def work(self) -> None:
        """Train trials until there are as many as are wanted."""
        while (found := self._next()) is not None:
            trial, folder, lock = found
            try:
                self._trained(trial, folder)
            finally:
                lock.close()

    def others_are_busy(self) -> bool:
        """Return whether another worker is training a trial."""
        running = self.optuna.trial.TrialState.RUNNING
        return bool(self.study.get_trials(deepcopy=False, states=(running,)))

    def _next(self) -> tuple[Any, Path, Any] | None:
        """Return the next trial, its folder, and the lock that says it is worked on; None if all are done."""
        states = self.optuna.trial.TrialState
        with _waiting_for(self.folder / "tune.lock"):
            self._continue_left_behind()
            trials = self.study.get_trials(deepcopy=False)
            waiting = any(trial.state == states.WAITING for trial in trials)
            if not waiting and len(self._last_of_folders(trials)) >= self.config.trials:
                return None
            trial = self.study.ask(self.distributions)
            folder = self._folder_of(trial)
            make_folder(folder)
            return trial, folder, locked(folder / "worker.lock")

    def _continue_left_behind(self) -> None:
        """Have trials whose workers have ended continued: with the same settings, in the same folder."""
        states = self.optuna.trial.TrialState
        trials = self.study.get_trials(deepcopy=False)
        waiting = {trial.user_attrs.get(FOLDER) for trial in trials if trial.state == states.WAITING}
        for trial in trials:
            folder = self._folder_of(trial)
            if trial.state != states.RUNNING or not _is_free(folder):
                continue
            if int(folder.name) not in waiting:
                self.study.enqueue_trial(trial.params, user_attrs={FOLDER: int(folder.name)})
            self.study.tell(trial.number, state=states.FAIL)

    def _last_of_folders(self, trials: Sequence[Any]) -> list[Any]:
        """Return the trials that no other one continues, without those that wait to begin."""
        begun = [trial for trial in trials if trial.state != self.optuna.trial.TrialState.WAITING]
        return list({self._folder_of(trial): trial for trial in begun}.values())

    def _folder_of(self, trial: Any) -> Path:
        """Return the folder of the run of a trial."""
        return self.folder / "trials" / f"{trial.user_attrs.get(FOLDER, trial.number):05d}"

    def _trained(self, trial: Any, folder: Path) -> None:
        """Train a trial, and tell the study how it ended."""
        states, pruned = self.optuna.trial.TrialState, self.optuna.TrialPruned
        steps = iter(range(1, self.config.evaluations + 2))

        def look(row: dict[str, float]) -> None:
            if "eval_reward" in row:
                trial.report(row["eval_reward"], next(steps))
                if self.config.prune and trial.should_prune():
                    raise pruned

        try:
            reward = self.reward(folder, trial.params, self.config.seed, look)
        except pruned:
            self.study.tell(trial, state=states.PRUNED)
            self.say(f"trial {trial.number}: ended early, {_shown(trial.params)}")
        except (ValueError, RuntimeError, ArithmeticError) as error:
            self.study.tell(trial, state=states.FAIL)
            if trial.number == 0:  # the defaults: nothing can be trained so
                raise
            self.say(f"trial {trial.number}: failed, {in_one_line(error)}, {_shown(trial.params)}")
        else:
            self.study.tell(trial, reward)
            self.say(f"trial {trial.number}: reward {reward:.4f} on {DEV}, {_shown(trial.params)}")

    def reward(
        self,
        folder: Path,
        hyper: Mapping[str, Any],
        seed: int,
        look: Callable[[dict[str, float]], None] | None = None,
    ) -> float:
        """Train with some hyper-parameters; return the reward on dev items at the end."""
        config = self.config
        job = RunConfig(
            folder=str(folder),
            env=config.env,
            agent=config.agent,
            algorithm=config.agent,
            options=config.options,
            hyper={**(AFTER_LIKELIHOOD if config.start else {}), **config.hyper, **hyper},
            policy="" if config.start else config.policy,
            sizes=config.sizes,
            start=config.start,
            budget_tokens=config.budget_tokens,
            evaluations=config.evaluations,
            texts=config.texts,
            seed=seed,
            imports=config.imports,
        )
        job = job if self.start is None else inherited(job, self.start)
        torch.manual_seed(seed)  # for networks that an agent makes itself, such as a discriminator
        agent, env, _ = build(job, self.start)
        history = train(
            agent,
            env,
            eval_env=self._dev_task(job),
            eval_every=max(1, job.budget_tokens // job.evaluations),
            eval_texts=job.texts,
            budget_tokens=job.budget_tokens,
            out=RunFolder(folder, job.plain()),
            alarms="ignore",
            probe=False,
            quiet=True,
            on_update=look,
        )
        return history[-1]["eval_reward"]

    def _dev_options(self) -> tuple[dict[str, Any], str]:
        """Return the options for the dev items of the task, and what they are; never those of the test."""
        tested = held_out(self.config.env)
        if "split" in option_names(task_class(self.config.env)) and tested.get("split") != "dev":
            try:
                task_with_words(self.config.env, {**self.config.options, "split": "dev"}, None)
            except ValueError as error:
                if "split" not in str(error):
                    raise
            else:
                return {"split": "dev"}, DEV
        return {}, NO_DEV

    def _dev_task(self, job: RunConfig) -> Any:
        """Return the task with its dev items."""
        words = None if self.start is None else self.start.spec
        return task_with_words(job.env, {**job.options, "num_envs": 250, "seed": 0, **self.dev}, words)

    def _defaults(self) -> dict[str, Any]:
        """Return the defaults of what is searched, each at the nearest value of its space."""
        found = defaults_of(AGENTS[self.config.agent], list(self.spaces))
        limits = {name: (space.low, space.high) for name, space in self.spaces.items()}
        return {name: min(max(value, limits[name][0]), limits[name][1]) for name, value in found.items()}

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────

    def concluded(self) -> Tuned:
        """Train the best settings and the defaults with further seeds, and write the results."""
        path = self.folder / RESULTS
        with _waiting_for(self.folder / "conclusion.lock"):  # one worker does it, and the others wait
            trials = self.study.get_trials(deepcopy=False)
            if path.exists() and (results := read_sealed(path))["study"]["trials"] == len(trials):
                return Tuned(self.folder, results)
            results = self._results(trials)
            write_whole(self.folder / SETTINGS, self._settings(results).encode())
            write_tune_page(results, self.folder / "report.html")
            write_sealed(path, results)
        return Tuned(self.folder, results)

    def _results(self, trials: Sequence[Any]) -> Json:
        """Return everything that was found, as JSON holds it."""
        states = self.optuna.trial.TrialState
        complete = [trial for trial in trials if trial.state == states.COMPLETE]
        if not complete:
            raise RuntimeError(
                f"no trial in {self.folder} was trained to its end; look at their errors, and at the "
                "limits of the search"
            )
        best = max(complete, key=lambda trial: trial.value)
        candidates = {"best of the search": dict(best.params), "defaults": {}}
        again = {name: self._again(name, hyper) for name, hyper in candidates.items()}
        kept = max(again, key=lambda name: again[name]["mean"])
        return {
            "config": json.loads(json.dumps({**vars(self.config), "out": ""})),
            "machine": machine(),
            "dev": self.tested_on,
            "study": {
                "trials": len(trials),
                **{state.name.lower(): sum(t.state == state for t in trials) for state in states},
            },
            "best": {"trial": best.number, "reward": best.value, "hyper": dict(best.params)},
            "again": again,
            "kept": kept,
            "hyper": {**self.config.hyper, **candidates[kept]},
            "importances": self._importances(complete),
            "history": [
                {"trial": t.number, "reward": t.value, "state": t.state.name.lower(), **t.params}
                for t in self._last_of_folders(trials)
            ],
        }

    def _again(self, name: str, hyper: Mapping[str, Any]) -> Json:
        """Train some hyper-parameters with further seeds; return the rewards on dev items."""
        folder, rewards = self.folder / "again" / name.replace(" ", "-"), []
        for seed in range(self.config.seed + 1, self.config.seed + 1 + self.config.seeds):
            make_folder(folder / f"{_digest(hyper)}-{seed}")
            rewards.append(self.reward(folder / f"{_digest(hyper)}-{seed}", hyper, seed))
            self.say(f"{name}, seed {seed}: reward {rewards[-1]:.4f}")
        spread = stdev(rewards) if len(rewards) > 1 else None
        return {"hyper": dict(hyper), "rewards": rewards, "mean": fmean(rewards), "spread": spread}

    def _importances(self, complete: Sequence[Any]) -> dict[str, float]:
        """Return how much each hyper-parameter has decided; nothing where too few trials tell."""
        if len(complete) < 10 or len(self.spaces) < 2:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            evaluator = self.optuna.importance.PedAnovaImportanceEvaluator()
            found = self.optuna.importance.get_param_importances(self.study, evaluator=evaluator)
        return {name: float(value) for name, value in found.items()}

    def _settings(self, results: Json) -> str:
        """Return the settings as a file that train, fit and compare take, and how they were found."""
        import yaml

        config, kept = self.config, results["again"][results["kept"]]
        rewards = ", ".join(f"{reward:.4f}" for reward in kept["rewards"])
        content = {
            "policy": config.policy,
            "sizes": dict(config.sizes),
            "options": dict(config.options),
            "agents" if config.start is None else "after_likelihood": {config.agent: results["hyper"]},
        }
        plain = json.loads(json.dumps(content))
        return (
            f"# {config.env}: {results['study']['complete']} trials of {config.budget_tokens:,} tokens; "
            f"kept: {results['kept']}.\n"
            f"# Reward on {results['dev']}, seeds {config.seed + 1} to {config.seed + config.seeds}: "
            f"{rewards}.\n" + str(yaml.safe_dump(plain, sort_keys=False))
        )


def _is_free(folder: Path) -> bool:
    """Return whether no worker is busy in the folder of a trial."""
    make_folder(folder)
    try:
        locked(folder / "worker.lock").close()
    except ValueError:
        return False
    return True


def _digest(hyper: Mapping[str, Any]) -> str:
    """Return a short name of some hyper-parameters."""
    return sha256(json.dumps(hyper, sort_keys=True).encode()).hexdigest()[:8]


def _shown(hyper: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value:.4g}" for name, value in hyper.items())
