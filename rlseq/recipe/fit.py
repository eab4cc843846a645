"""`rlseq.fit`: one call from a file of pairs to a tested model."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rlseq.agents import AGENTS, make_agent
from rlseq.data.cache import key_of
from rlseq.data.formats import DataError
from rlseq.data.locate import Where, find
from rlseq.engine.computing import stated
from rlseq.engine.evaluation import EvaluatedTexts, evaluate_texts, selection
from rlseq.mdp.registry import make
from rlseq.metrics.fitting import compares_texts, terms_of
from rlseq.metrics.registry import METRICS, row_of
from rlseq.policies import make_policy
from rlseq.recipe import page, verdict
from rlseq.recipe.choices import REPORTED, Looks, looks_of, reward_for, rows_for, sizes_for
from rlseq.recipe.clock import Clock
from rlseq.recipe.config import FitConfig
from rlseq.recipe.difference import difference
from rlseq.recipe.plan import Plan, TextLimits
from rlseq.recipe.risk import least_risk
from rlseq.recipe.source_use import source_use
from rlseq.recipe.stages import likelihood, scores_of, seconds, train_on_reward
from rlseq.training.experiment_envs import metric
from rlseq.training.fingerprint import differences, machine
from rlseq.training.model import Model, load
from rlseq.training.run_config import RunConfig, run_of, words_of
from rlseq.utils.errors import pick
from rlseq.utils.files import Json, locked, make_folder, read_sealed, sign, write_sealed
from rlseq.utils.imports import import_modules
from rlseq.utils.places import command_line
from rlseq.utils.ranks import check_alone
from rlseq.utils.settings import configured, takes_fields_of

SCHEMA = "rlseq.fit/1"
PARALLEL = "rlseq/Parallel-v0"
LEAST_ITEMS = 2  # of dev and of test
LEAST_UPDATES = 10  # on the reward; fewer are not worth a test
RISK = 500, 32  # items, and samples of each
SHOWN = 50  # test items on the page


@dataclass(frozen=True)
class Rates:
    """Step sizes, tuned on pairs of words and sentences (docs/guides/fit.md)."""

    likelihood: float
    reward: float


OWN, PRETRAINED = Rates(2e-3, 3e-4), Rates(3e-4, 3e-5)


@dataclass(frozen=True)
class Fit:
    """A finished fit: `verdict` in words, `results` in numbers, the `folder`, its `page` and its `model`."""

    folder: Path
    results: Json

    @property
    def verdict(self) -> str:
        """The result in words."""
        return str(self.results["verdict"])

    @property
    def page(self) -> Path:
        """The page."""
        return self.folder / page.NAME

    @property
    def model(self) -> Model:
        """The trained model, which stands on its own."""
        return load(self.folder)


@takes_fields_of(FitConfig)
def fit(path: Where | Mapping[str, Where], *, config: FitConfig | None = None, **settings: Any) -> Fit:
    """Train a model on pairs of texts: by likelihood, then on a reward; test it, and write a page.

    The same call continues after an interruption, and returns the result when all is done.

    Args:
        path: a file or folder of pairs, or a mapping of parts, as of `rlseq/Parallel-v0`
            (docs/guides/data.md).
        config: the settings below, together.
        **settings: the settings below, one by one; they replace those of `config`.
    """
    return run_fit(path, configured(FitConfig, config, settings, "fit"))


def run_fit(
    path: Where | Mapping[str, Where], config: FitConfig, say: Callable[[str], None] | None = None
) -> Fit:
    """Fit as `rlseq.fit` does; `say` gets the lines about it, which go to standard error by default."""
    check_alone("a fit")
    say = say or ((lambda line: None) if config.quiet else _on_stderr)
    import_modules(config.imports)
    pick(AGENTS, config.agent, "agent")
    if config.reward is not None:
        check_reward(config.reward)
    data = _Data(path, config)
    folder = Path(config.out) if config.out is not None else Path("runs") / data.name
    make_folder(folder)
    with locked(folder / "lock") as lock:
        identity = data.identity()
        if (done := _resumed(folder, identity)) is not None:
            say(f"{folder} is finished; this is what it found")
            if config.minutes != done.results.get("minutes"):
                say("for a longer fit, write to another folder (--out): other minutes do not change this one")
            return done
        sign(lock)
        write_sealed(folder / "fit.json", identity)
        return _Fitting(data, config, folder, say).run()


def check_reward(reward: str) -> None:
    """Refuse a reward that is no metric, nor a sum of metrics, or that compares nothing with references."""
    known = {name: row for name, row in METRICS.items() if row.make}
    names = [pick(known, name, "reward").name for name in terms_of(reward)]
    if not compares_texts(reward):
        raise ValueError(
            f"{reward} compares nothing with references, so that a fit on pairs cannot judge by it; add a "
            f"metric that does, as in 'chrf + 0.5*{names[0]}', or take rlseq train, with --reward"
        )


def _resumed(folder: Path, identity: Json) -> Fit | None:
    """Return the fit of a folder where it is finished; refuse a folder that holds something else."""
    if not (folder / "fit.json").exists():
        for name, what in (("model.json", "a saved model"), ("config.json", "a run")):
            if (folder / name).exists():
                raise ValueError(f"{folder} holds {what}, and no fit; write to another folder")
        return None
    there = read_sealed(folder / "fit.json")
    differ = "".join(f"\n  {line}" for line in differences(there, identity, "fit"))
    if differ:
        raise ValueError(
            f"{folder} holds a fit of other data or settings:{differ}\nchange them back, or write to another "
            "folder"
        )
    finished = folder / "results.json"
    return Fit(folder, read_sealed(finished)) if finished.exists() else None


def _on_stderr(line: str) -> None:
    sys.stderr.write(f"rlseq: {line}\n")
    sys.stderr.flush()


# ── data ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Data:
    """The data of a path as tasks."""

    path: Any
    config: FitConfig

    @property
    def name(self) -> str:
        """A name for the folder: that of the file."""
        one = next(iter(self.path.values())) if isinstance(self.path, Mapping) else self.path
        one = one if isinstance(one, str) or not isinstance(one, (list, tuple)) else one[0]
        return Path(one).stem

    def task(self, split: str, rows: int, **options: Any) -> Any:
        """The task of a part."""
        config = self.config
        given = {"level": config.level, "max_len": config.max_len, "tokenizer": config.model}
        chosen = {name: value for name, value in given.items() if value is not None}
        options = {"path": self.path, "skip_bad": config.skip_bad, **chosen, **config.options, **options}
        return make(PARALLEL, rows, config.device, config.seed, split=split, **options)

    def parts(self) -> dict[str, int]:
        """Return the number of sources of each part; refuse data without dev or without test."""
        sizes = {"train": self.task("train", 1).size}
        for part in ("dev", "test"):
            try:
                sizes[part] = self.task(part, 1).size
            except DataError as error:
                if "too few sources" not in str(error):
                    raise
                sizes[part] = 0
        small = [part for part in ("dev", "test") if sizes[part] < LEAST_ITEMS]
        if small:
            got = " and ".join(f"{part} has {sizes[part]}" for part in small)
            raise DataError(
                f"{self.path}: {sum(sizes.values()):,} different sources are too few to train and to test: "
                f"{got}, wanted {LEAST_ITEMS} or more; "
                "give 40 sources, of which 5 % become dev and 10 % test, or a folder of train, dev and test"
            )
        return sizes

    def identity(self) -> Json:
        """Return the content of the files and the settings: a fit continues only where both are the same."""
        files = [file for origin in find(self.path).values() for file in origin.files]
        of_call = ("out", "minutes", "quiet")  # which change nothing in the model but its time
        settings = {name: value for name, value in asdict(self.config).items() if name not in of_call}
        settings |= {"imports": list(self.config.imports)}
        return {"schema": SCHEMA, "data": key_of(files, {}), "settings": settings}


# ── the work ─────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Fitting:
    """One fit, step by step; every step is done once, and found again by a later call."""

    data: _Data
    config: FitConfig
    folder: Path
    say: Callable[[str], None]

    def run(self) -> Fit:
        """Do everything that is not done."""
        config = self.config
        clock = Clock(self.folder / "clock.json", None if config.minutes is None else 60 * config.minutes)
        parts = self.data.parts()
        looks = looks_of(self.data.task("train", 1))
        reward, reason = (config.reward, "it was asked for") if config.reward else reward_for(looks)
        plan = Plan(config, clock, partial(self._task, reward=reward), config.rows or rows_for(looks))
        train = plan.task("train", plan.rows)
        policy = self._policy(train, looks)
        self._agents["reward"](policy).check(train)  # before any time is spent
        self._introduce(parts, looks, reward, reason)
        found = self._likelihood(plan, policy, reward)
        make_folder(self.folder / "stages" / "likelihood")
        self._model(policy, train).write(self.folder / "stages" / "likelihood")
        texts = plan.texts(policy)
        stages = self._after_likelihood(plan, policy, found, texts, reward)
        earned = {name: stage["earned"] for name, stage in stages.items()}
        kept = max(earned, key=lambda name: earned[name])
        written = {}
        for name, stage in stages.items():
            policy.load_state_dict(stage.pop("weights") if name != kept else stage["weights"])
            written[name] = evaluate_texts(policy, plan.task("test", 250), limit=texts.test)
        weights = stages[kept].pop("weights")
        results = {
            **self._results(plan.task("test", 250), written, reward, texts.test),
            **found,
            "stages": {name: stage for name, stage in stages.items() if name != "likelihood"},
            "earned on dev": earned,
            "kept": kept,
            "data": {"parts": parts, **looks.plain(), "why": train.corpus.notes["why"]},
            "reward": {"name": reward, "reason": reason},
            "agent": config.agent,
            "policy": policy.made_from,
            "rows": plan.rows,
            "minutes": config.minutes,
            "seconds": {"all": round(clock.spent, 1), **seconds(self.folder / "stages")},
            "machine": machine(),
            "command": command_line(sys.argv),
        }
        results |= {"verdict": verdict.in_words(results), "remarks": verdict.limits(results)}
        return self._written(results, policy, weights, train)

    def _likelihood(self, plan: Plan, policy: Any, reward: str) -> Json:
        """Train by likelihood; return the scores of dev, and what a reward could add where that has ended."""
        every = plan.every(policy)
        stages = plan.stages(self._rates.likelihood, every)
        scores = likelihood(
            policy,
            partial(plan.task, "train", plan.rows),
            plan.task("dev", plan.rows),
            self.folder / "stages",
            stages,
            every=every,
            stop=plan.late,
            say=self.say,
            hyper=stated(self.config.compile, self.config.autocast),
        )
        converged = all(stage.converged(scores_of(scores, n)) for n, stage in enumerate(stages, 1))
        risk = least_risk(policy, partial(plan.task, "dev"), *RISK, reward) if converged else None
        read = source_use(policy, plan.task("dev", plan.rows))
        return {"dev nll": scores, "source use": read, "converged": converged, "risk": risk, "stopped": ""}

    def _after_likelihood(
        self, plan: Plan, policy: Any, found: Json, texts: TextLimits, reward: str
    ) -> dict[str, Json]:
        """Train on the reward, and as long by likelihood; return what every stage earns, and its weights.

        Where nothing is to gain, or there is no time, likelihood is alone, and `found` says why.
        """
        weights = deepcopy(policy.state_dict())
        scores = evaluate_texts(policy, plan.task("dev", 250), limit=texts.dev).means()
        earned = scores["reward"]
        self.say(f"likelihood earns {earned:.4f} on dev")
        stages: dict[str, Json] = {"likelihood": {"weights": weights, "earned": earned}}
        if found["risk"] and verdict.nothing_to_gain(found["risk"], reward):
            found["stopped"] = verdict.NOTHING
            return stages
        if verdict.hardly_any_errors(reward, scores[reward]):
            found["stopped"] = verdict.NO_ERRORS
            return stages
        updates = plan.reward_updates(policy, self._agents)
        if updates < LEAST_UPDATES:
            found["stopped"] = verdict.NO_TIME
            return stages
        for name, make_one in self._agents.items():
            self.say(f"{_NAMES[name]}: {updates:,} updates")
            policy.load_state_dict(weights)
            env, dev = plan.task("train", plan.rows), plan.task("dev", 250)
            folder = self.folder / "stages" / name
            run = train_on_reward(
                make_one(policy), env, dev, folder, updates, texts.dev, quiet=self.config.quiet
            )
            stages[name] = {
                "weights": deepcopy(policy.state_dict()),
                "earned": run["best"]["reward"],
                "updates": updates,
                "curve": [{"update": row["update"], "reward": row["eval_reward"]} for row in run["curve"]],
            }
            self.say(f"{_NAMES[name]} earns {run['best']['reward']:.4f} on dev, likelihood {earned:.4f}")
        return stages

    def _introduce(self, parts: Mapping[str, int], looks: Looks, reward: str, reason: str) -> None:
        """Say what the data are, and what is chosen by them."""
        sizes = ", ".join(f"{size:,} {part}" for part, size in parts.items())
        total = sum(parts.values())
        self.say(f"{self.data.path}: {total:,} sources ({sizes}), {looks.references:g} references of each")
        why = self.data.task("train", 1).corpus.notes["why"]
        self.say(why or f"texts are read by {' and '.join(dict.fromkeys(looks.level))}")
        self.say(f"the reward is {reward}, because {reason}")
        if parts["test"] < verdict.FEW_TESTED:
            warnings.warn(
                f"the test has {parts['test']} sources only: no difference but a large one can be shown by "
                f"fewer than {verdict.FEW_TESTED}; give more pairs, or a test part of your own",
                stacklevel=2,
            )

    def _task(self, split: str, rows: int, *, reward: str) -> Any:
        """The task of a part, with the reward, which is reported as a metric, too."""
        env = self.data.task(split, rows, reward=reward)
        env.metrics = {**env.metrics, reward: metric(env, reward)}
        return env

    def _policy(self, env: Any, looks: Looks) -> Any:
        config = self.config
        if config.model is not None:
            return make_policy(config.policy or "hf", env, **{"model": config.model, **config.sizes})
        sizes = sizes_for(looks) if config.policy in (None, "seq2seq") else {}
        return make_policy(config.policy or "seq2seq", env, **{**sizes, **config.sizes})

    @property
    def _rates(self) -> Rates:
        return PRETRAINED if self.config.model else OWN

    @property
    def _agents(self) -> dict[str, Callable[[Any], Any]]:
        """The agents after likelihood, made of a policy: both rise to the same step size and fall to zero."""
        computing = stated(self.config.compile, self.config.autocast)
        shared: Json = {"lr": self._rates.reward, "schedule": "warmup_linear", **computing}
        return {
            "reward": lambda policy: make_agent(self.config.agent, policy, **{**shared, **self.config.hyper}),
            "longer": lambda policy: make_agent("mle", policy, **shared),
        }

    def _results(self, test: Any, texts: Mapping[str, EvaluatedTexts], reward: str, most: int) -> Json:
        """Return scores on test, and what the reward changed."""
        scores = {name: side.scores[reward].double().numpy() for name, side in texts.items()}
        pooled = REPORTED.get(reward, ("exact", "chrf"))
        tested = {
            name: {**side.means(), **{f"pooled {m}": v for m, v in side.pooled(test, pooled).items()}}
            for name, side in texts.items()
        }
        changed = {
            other: difference(scores["reward"], scores[other])
            for other in ("longer", "likelihood")
            if "reward" in scores
        }
        lines = {name: side.lines(test)[:SHOWN] for name, side in texts.items()}
        samples = [
            {key: line[key] for key in ("source", "references")}
            | {name: lines[name][i]["text"] for name in texts}
            for i, line in enumerate(lines["likelihood"])
        ]
        return {
            "test": tested,
            "selection": selection(test.size, most),
            "changed": changed,
            "better": row_of(reward).sign,
            "samples": samples,
        }

    def _written(self, results: Json, policy: Any, weights: Any, env: Any) -> Fit:
        """Write the model that is kept, the page and the results, these last."""
        policy.load_state_dict(weights)
        kept = "reward" if results["kept"] == "reward" else "longer"
        self._model(policy.eval(), env, kept).write(self.folder)
        results = {"schema": SCHEMA, **results, "folder": str(self.folder)}
        page.write_page(results, self.folder)
        write_sealed(self.folder / "results.json", results)
        return Fit(self.folder, read_sealed(self.folder / "results.json"))

    def _model(self, policy: Any, env: Any, stage: str = "longer") -> Model:
        """Return a policy as a model that stands on its own, as if trained by the agent of a stage."""
        run = RunConfig(folder=str(self.folder), **run_of(self._agents[stage](policy), env))
        return Model(policy, env, run, words_of(env))


_NAMES = {"reward": "training on the reward", "longer": "continued likelihood training"}
