"""The training loop, and the folder from which a run can be resumed."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import torch

from rlseq.engine.checks import check_words
from rlseq.engine.evaluation import evaluate, evaluate_texts, selection
from rlseq.mdp.sequence_env import unwrap_task
from rlseq.policies.spec import warn_of_other_words
from rlseq.policy_gradient.agent import Agent
from rlseq.policy_gradient.algorithm import PolicyGradient
from rlseq.policy_gradient.factors import without_others
from rlseq.training import checkpoint
from rlseq.training.alarms import AlarmMonitor
from rlseq.training.config import TrainConfig
from rlseq.training.fingerprint import describe
from rlseq.training.parallel import check_for_ranks, check_same_settings, check_same_state, device_of, divided
from rlseq.training.preflight import reward_warnings
from rlseq.training.probe import PolicyProbe
from rlseq.training.progress_lines import Pace, evaluation_line, opening_line, preparation_line
from rlseq.training.reward_hacking import diversity_metrics
from rlseq.training.run_config import run_of, words_of
from rlseq.training.run_folder import Row, RunFolder, Sink
from rlseq.training.sinks import EXTRAS, service, tensorboard, tracked
from rlseq.types import Metrics, SteppedEnv
from rlseq.utils.arguments import PositiveInt, checked_arguments
from rlseq.utils.files import Json
from rlseq.utils.places import without_places
from rlseq.utils.progress import Advance, progress
from rlseq.utils.ranks import Rank, from_first, largest_of_ranks, own_noise, this_rank, together
from rlseq.utils.settings import configured, takes_fields_of
from rlseq.utils.stopping import Stop, stopping

History = list[dict[str, float]]
UPDATES_HELD = 50  # updates whose metrics stay on the device before they are fetched and written together
NOTICE = "stopping after this update, with a checkpoint; again to stop at once"
SHARED_SETTINGS = ("budget_tokens", "eval_every", "eval_texts", "probe")  # decide when ranks meet
FIGURES = ("reward", "nll", "loss")  # the metric in a progress bar: the first of these that exists


@takes_fields_of(TrainConfig)
@checked_arguments
def train(
    agent: Agent,
    env: Any,
    updates: PositiveInt = 1000,
    eval_env: Any = None,
    *,
    config: TrainConfig | None = None,
    **settings: Any,
) -> History:
    """Train an agent: collect a batch and update, repeatedly.

    With `out`, all of it is written to a folder (docs/guides/runs.md). A run that was stopped, by Ctrl-C or
    by a kill, resumes from its last checkpoint and reaches the same numbers as an uninterrupted one. An error
    ends the run with status "failed"; the metrics of all updates before it are written.

    In processes that torchrun has started (docs/guides/devices.md), the rows of the task are divided among
    them, and rank 0 writes the folder.

    Args:
        agent: the agent to train.
        env: the training task.
        updates: the number of gradient updates.
        eval_env: the test task, scored with greedy decoding every `eval_every` updates and after the last;
            its scores are the metrics `eval_…`.
        config: the settings below as one object.
        **settings: the settings below as keywords, which replace those of `config`.

    Returns:
        The metrics of every update.
    """
    config = configured(TrainConfig, config, settings, "train")
    unit, limit = ("updates", updates) if config.budget_tokens is None else ("tokens", config.budget_tokens)
    with ExitStack() as stack:
        me = stack.enter_context(together(device_of(agent.policy)))
        test = None if eval_env is None else unwrap_task(eval_env)
        run = _run_of(me, agent, unwrap_task(env), test, config, updates)
        if config.out is not None or me.of > 1:
            _begin(run, stack)
        stop = stack.enter_context(nullcontext(Stop(NOTICE)) if config.out is None else stopping(NOTICE))
        show = False if config.quiet or me.number else None
        advance = stack.enter_context(progress(type(agent).__name__, limit, unit, show))
        _to_the_end(run, unit, limit, stop, advance)
        if stop.asked:
            raise stop.ending()
    return run.history


@dataclass(eq=False)
class _Run:
    """The state of a run: its progress, and the metrics that are not written yet."""

    agent: Agent
    env: Any
    eval_env: Any
    config: TrainConfig
    folder: RunFolder | None = None
    history: History = field(default_factory=list)
    updates: int = 0
    seconds: float = 0.0  # of training; evaluation apart
    best: tuple[float, int] | None = None  # reward, update
    saved: int | None = None  # update of the last checkpoint
    waiting: list[tuple[int, float, Metrics]] = field(default_factory=list)
    probe: PolicyProbe | None = None
    probed: Json | None = None  # state of the probe, kept where this call does not use one
    noted: list[str] | None = None  # alarms that are written
    curve: History = field(default_factory=list)  # rows of the history with an evaluation
    samples: Json | None = None  # mark of the texts of the last evaluation

    def __post_init__(self) -> None:
        if not isinstance(self.env, SteppedEnv):  # before anything is written
            check_words(self.agent.policy, self.env)
            warn_of_other_words(self.agent.policy, self.env)
        self.agent.check_computing(self.env)
        self.agent.check(self.env)
        silent = this_rank().number > 0 and self.config.alarms == "warn"  # rank 0 warns, of the same metrics
        self.watch = AlarmMonitor("ignore" if silent else self.config.alarms)
        told = self.config.on_update
        self.sinks: list[Sink] = [self.watch] if told is None else [self.watch, told]
        self.held = UPDATES_HELD if told is None else 1
        probed = isinstance(self.agent, PolicyGradient) and not isinstance(self.env, SteppedEnv)
        if self.config.probe and probed:
            self.probe = PolicyProbe(self.agent, self.env)

    def done(self, unit: str) -> int:
        """Return the number of updates or of tokens so far."""
        if unit == "updates":
            return self.updates
        tokens: int = self.env.counts.as_dict()["tokens"]
        return tokens if this_rank().of == 1 else int(largest_of_ranks(torch.tensor(tokens)))

    def tell(self, line: str) -> None:
        """Write a line to standard error, where a progress bar stays below it."""
        if not self.config.quiet and this_rank().number == 0:
            sys.stderr.write(f"{line}\n")

    def learn(self) -> None:
        """Make one update; its metrics stay tensors on the device."""
        started = time.perf_counter()
        with self.agent.computing():
            batch = self.agent.collect(self.env)
            with own_noise(self.env.seed, self.updates):
                metrics = self.agent.update(batch)
        self.env.learn(batch)
        if self.agent.trial is not None and not self.config.quiet and (chosen := self.agent.trial.news()):
            self.tell(chosen)
        self.updates += 1
        self.seconds += time.perf_counter() - started
        self.waiting.append((self.updates, self.seconds, metrics))

    def flush(self, scores: Row | None = None) -> None:
        """Fetch and write all waiting metrics and send them to the sinks; `scores` are of the last update."""
        for row in self.record(len(self.waiting), scores):
            for sink in self.sinks:
                sink(dict(row))  # a callback may change its row, but not the history

    def record(self, count: int, scores: Row | None = None) -> History:
        """Fetch and write the first `count` of the waiting metrics."""
        if not count:
            return []
        updates, seconds, metrics = zip(*self.waiting[:count], strict=True)
        rows = [{"update": float(u), **row} for u, row in zip(updates, _fetched(metrics), strict=True)]
        rows[-1] |= scores or {}
        if self.folder is not None:
            self.folder.append([{**row, "seconds": s} for row, s in zip(rows, seconds, strict=True)])
        del self.waiting[:count]
        self.history += rows
        self.curve += [row for row in rows if _evaluated(row)]
        return rows

    def evaluate(self) -> None:
        """Evaluate, write the metrics and the scores, and save."""
        if self.probe is not None:
            self.waiting[-1][2].update(self.probe())
        if self.eval_env is None:
            self.flush()
        else:
            scores, lines = self.scored()
            spent = {name: float(value) for name, value in self.env.counts.as_dict().items()}
            self.flush({**spent, **{f"eval_{name}": value for name, value in scores.items()}})
            if self.best is None or scores["reward"] > self.best[0]:
                self.best = scores["reward"], self.updates
            if self.folder is not None and lines:
                self.samples = self.folder.samples(self.updates, lines)
        self.save("running")

    def scored(self) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Return the scores of an evaluation, and its texts if the task has texts."""
        if isinstance(self.eval_env, SteppedEnv):
            return evaluate(self.agent.policy, self.eval_env, limit=self.config.eval_texts), []
        found = evaluate_texts(self.agent.policy, self.eval_env, limit=self.config.eval_texts)
        return {**found.means(), **diversity_metrics(found)}, found.lines(self.eval_env)

    def selection(self) -> dict[str, Any] | None:
        """Return the record of the tested items; None if the task has no items."""
        if self.eval_env is None or isinstance(self.eval_env, SteppedEnv):
            return None
        return selection(self.eval_env.size, self.config.eval_texts)

    def save(self, status: str) -> None:
        """Write a checkpoint, alarms and results."""
        self.flush()
        check_same_state(self.agent, self.env)
        if self.folder is None:
            return
        if self.saved != self.updates:
            state = {**self.state(), "metrics": self.folder.metrics.mark()}
            checkpoint.save(self.folder.checkpoints, self.updates, state, [self.best[1]] if self.best else [])
            self.saved = self.updates
        self.note(status)

    def state(self) -> dict[str, Any]:
        """Return everything that later updates depend on, and the progress of the run."""
        return {
            "seconds": self.seconds,
            "best": self.best,
            "counts": self.env.counts.as_dict(),
            "samples": self.samples,
            "alarms": self.watch.state_dict(),
            "probe": self.probed if self.probe is None else self.probe.state_dict(),
            **checkpoint.state_of(self.agent, self.env),
        }

    def note(self, status: str, error: str | None = None) -> None:
        """Write alarms and results; the curve only at the end, because it grows with every evaluation."""
        assert self.folder is not None
        if self.noted != self.watch.said:
            self.folder.alarms(self.watch.said)
            self.noted = list(self.watch.said)
        final = self.curve[-1] if self.curve else {}
        self.folder.results(
            {
                "status": status,
                "error": error,
                "updates": self.updates,
                **self.env.counts.as_dict(),
                "seconds": round(self.seconds, 3),
                "selection": self.selection(),
                "best": None if self.best is None else {"reward": self.best[0], "update": self.best[1]},
                "checkpoint": self.saved,
                "metrics": self.folder.metrics.mark(),
                "samples": self.samples,
                "final": {name[5:]: value for name, value in final.items() if name[:5] == "eval_"},
                "curve": None if status == "running" else self.curve,
            }
        )

    def break_off(self, error: BaseException) -> None:
        """Write the metrics and the results of a run that ends with an error, without hiding that error."""
        if self.folder is None:
            return
        try:
            with suppress(RuntimeError, ValueError, TypeError):  # of a metric that cannot be fetched
                while self.waiting:
                    self.record(1)
            ended = without_places(f"{type(error).__name__}: {error}")
            self.note("failed" if isinstance(error, Exception) else "interrupted", ended)
        except Exception as second:
            sys.stderr.write(
                f"rlseq: {self.folder.path}: the results of the run could not be written ({second})\n"
            )

    def restore(self) -> None:
        """Restore the run from its last intact checkpoint, if there is one."""
        assert self.folder is not None
        found = checkpoint.load(self.folder.checkpoints)
        rows = self.folder.rows(None if found is None else found[1]["metrics"])
        if found is not None:
            self.updates, state = found
            self.saved = self.updates
            self.take(state, rows)

    def take(self, state: Any, rows: History) -> None:
        """Continue from a state, and from the metrics of all updates before it."""
        checkpoint.restore(self.agent, self.env, state)
        self.seconds, self.best = state["seconds"], state["best"]
        self.samples, self.probed = state["samples"], state["probe"]
        counts = {name: value for name, value in state["counts"].items() if name != "tokens"}
        vars(self.env.counts).update(counts)
        self.watch.load_state_dict(state["alarms"])
        if self.probe is not None and self.probed is not None:
            self.probe.load_state_dict(self.probed)
        self.history = [{name: v for name, v in row.items() if name != "seconds"} for row in rows]
        self.curve = [row for row in self.history if _evaluated(row)]


def _run_of(me: Rank, agent: Agent, env: Any, eval_env: Any, config: TrainConfig, updates: int) -> _Run:
    """Return the run of this process; one of several has its rows of a batch, and its items of a test."""
    if me.of > 1:
        check_for_ranks(agent, env)
        shared = {name: getattr(config, name) for name in SHARED_SETTINGS}
        check_same_settings(agent, env, eval_env, updates=updates, **shared)
        env = divided(agent, env, me)
        if not (eval_env is None or isinstance(eval_env, SteppedEnv)):  # which every rank plays as a whole
            eval_env = eval_env.replace(rank=me)
    return _Run(agent, env, eval_env, config)


def _begin(run: _Run, stack: ExitStack) -> None:
    """Open the folder of a run, which only rank 0 does, and let all ranks continue from its state."""

    def opened() -> bytes:
        if run.config.out is not None:
            _open(run, run.config.out, stack)
        return (
            b""
            if this_rank().of == 1
            else checkpoint.packed([run.updates, run.env.seed, run.state(), run.history])
        )

    data = from_first(opened)
    if this_rank().number:
        run.updates, run.env.seed, state, rows = checkpoint.unpacked(data)
        run.take(state, rows)


def _to_the_end(run: _Run, unit: str, limit: int, stop: Stop, advance: Advance) -> None:
    """Train to the limit or until a signal asks to stop, and save; note an error that ends the run."""
    try:
        if run.config.alarms != "ignore":
            _preflight(run)
        _loop(run, unit, limit, stop, advance)
        if not stop.asked and (remark := run.agent.remark()):
            run.watch.say(remark)
        run.save("interrupted" if stop.asked else "finished")
    except BaseException as error:
        run.break_off(error)
        raise


def _evaluated(row: Row) -> bool:
    return any(name.startswith("eval_") for name in row)


def _loop(run: _Run, unit: str, limit: int, stop: Stop, advance: Advance) -> None:
    """Update and evaluate until the limit is reached or a signal asks to stop."""
    every = run.config.eval_every or (100 if unit == "updates" else max(1, limit // 10))
    done = run.done(unit)
    pace = Pace(done, run.done("tokens"), run.seconds)
    name, learned = type(run.agent).__name__, run.agent.preparation()
    if learned and done < limit:
        run.tell(preparation_line(name, learned))
    opening = opening_line(name, limit, every, unit, done)
    while done < limit and not _asked(stop):
        run.agent.set_progress(done / limit)
        run.env.set_progress(done / limit)
        run.learn()
        if opening:  # after the first update, so that an error in it is the only message
            run.tell(opening)
            opening = ""
        before, done = done, run.done(unit)
        if done // every > before // every or done >= limit:
            run.evaluate()
            run.tell(_line(run, done / limit, pace.left(done, limit), pace))
        elif len(run.waiting) >= run.held:
            run.flush()
        last = run.history[-1] if run.history else {}
        advance(done, next((f"{name} {last[name]:.3f}" for name in FIGURES if name in last), ""))


def _asked(stop: Stop) -> bool:
    """Return whether a signal has asked this process, or another rank, to stop."""
    if this_rank().of > 1:
        stop.asked = int(largest_of_ranks(torch.tensor(stop.asked)))
    return bool(stop.asked)


def _line(run: _Run, share: float, left: float, pace: Pace) -> str:
    """Return the line about the evaluation that a run has just made."""
    unit = "steps" if isinstance(run.env, SteppedEnv) else "tokens"
    speed = f"{pace.speed(run.done('tokens'), run.seconds):,.0f} {unit}/s"
    metrics = getattr(run.eval_env, "metrics", ())
    return evaluation_line(run.history[-1], min(share, 1.0), metrics, speed, left)


def _open(run: _Run, out: str | PathLike[str] | RunFolder, stack: ExitStack) -> None:
    """Lock a folder and restore the run in it; a refused run changes no file."""
    folder = out if isinstance(out, RunFolder) else RunFolder(out)
    resume = run.config.resume
    projects = {"wandb": run.config.wandb_project, "trackio": run.config.trackio_project}
    services = {name: service(name, EXTRAS[name]) for name, project in projects.items() if project}
    checkpoint.check_saved(run.agent, run.env)
    config = folder.configured(describe(run.agent, run.env))
    folder.check(config, resume)
    stack.callback(folder.close)
    folder.hold()
    folder.check(config, resume)  # another process may have begun a run meanwhile
    run.folder = folder
    run.restore()
    folder.begin(config, run_of(run.agent, run.env), words_of(run.env))
    trackers = [tracked(found, config, str(projects[name])) for name, found in services.items()]
    for told in (tensorboard(folder.path, run.updates), *trackers):
        if told is not None:
            sink, close = told
            run.sinks = [*run.sinks, sink]
            stack.callback(close)


def _preflight(run: _Run) -> None:
    """Warn before training of signs that the reward of the task is wrong."""
    agent = run.agent
    if run.updates or isinstance(run.env, SteppedEnv):
        return
    if not isinstance(agent, PolicyGradient):
        return
    for complaint in without_others(agent, run.env):
        run.watch.say(f"preflight: {complaint}")
    if agent.uses_task_reward:
        for complaint in reward_warnings(run.env, agent.policy):
            run.watch.say(f"preflight: {complaint}; rlseq.preflight(env, policy) shows more")


def _fetched(metrics: tuple[Metrics, ...]) -> list[Row]:
    """Return the scalars of many updates as numbers, with a single synchronisation with the device."""
    tensors = [torch.as_tensor(value).reshape(()) for row in metrics for value in row.values()]
    device = tensors[0].device if tensors else None
    numbers = iter(torch.stack([t.to(device, torch.float64) for t in tensors]).tolist() if tensors else [])
    return [{name: next(numbers) for name in row} for row in metrics]
