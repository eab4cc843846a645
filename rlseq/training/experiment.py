"""One run from its configuration: build agent, task and test, train, and write a folder of results."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from inspect import signature
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from rlseq.agents import AGENTS, make_agent
from rlseq.engine.decode import Sample
from rlseq.engine.evaluation import evaluate_texts
from rlseq.engine.memorisation import memorisation
from rlseq.engine.references import has_references
from rlseq.envs.wrappers import with_shaping
from rlseq.envs.wrappers.curiosity import Curiosity
from rlseq.envs.wrappers.curriculum import WITHOUT_RETURNS, with_curriculum
from rlseq.policies import make_policy
from rlseq.policy_gradient.algorithm import PolicyGradient
from rlseq.training.experiment_envs import held_out, testing_env, training_env
from rlseq.training.loop import train
from rlseq.training.model import VALUE_HEAD, Model, give_weights, load
from rlseq.training.reward_hacking import diversity_metrics
from rlseq.training.run_config import LAST_FILE, RunConfig
from rlseq.training.run_folder import RunFolder
from rlseq.types import SteppedEnv
from rlseq.utils.errors import pick
from rlseq.utils.files import Json, read_sealed, write_sealed
from rlseq.utils.imports import import_modules
from rlseq.utils.ranks import launched_as

SAMPLES, TRAINING_TEXTS = 100, 5000  # that are compared with each other after training
NEAREST_SHOWN = 5  # samples that are kept with the training text that is nearest to each
TEMPERATURES = (0.25, 0.5, 0.75, 1.0, 1.25)  # of the sweep of likelihood (Caccia et al. 2020)


def build(config: RunConfig, start: Model | None = None) -> tuple[Any, Any, Any]:
    """Return the agent, the training task and the test task of a run; nothing is written.

    Args:
        config: the configuration of the run.
        start: the model whose weights and vocabularies the agent takes over.
    """
    import_modules(config.imports)
    words = None if start is None else start.spec
    env = training_env(
        config.env, {**config.options, **config.training_options}, config.reward, config.seed, words
    )
    env = with_wrappers(config, env)
    fresh = testing_env(config.env, config.options, config.metrics, words, config.reward)
    if config.stock:
        from rlseq.adapters.sb3_agent import stock_agent

        return stock_agent(config.algorithm, env, **config.hyper), env, fresh
    policy = make_policy(config.policy, env, **config.policy_sizes)
    agent = make_agent(config.algorithm, policy, **with_teachers(config.hyper, env))
    agent.check_computing(env)
    agent.check(env)
    if start is not None:
        give_weights(str(config.start), start.policy.state_dict(), policy, VALUE_HEAD)
    return agent, env, fresh


def with_wrappers(config: RunConfig, env: Any) -> Any:
    """Return the training task with the shaping, the curiosity and the curriculum of a run."""
    cls = None if config.stock else pick(AGENTS, config.algorithm, "agent")
    if config.shaping:
        env = with_shaping(env, config.shaping, gamma=_discount(config, cls))
    if config.curiosity:
        if cls is None or not issubclass(cls, PolicyGradient) or not cls.uses_task_reward:
            raise ValueError(
                f"curiosity is a reward, and {config.algorithm} is not trained on the reward of the task; "
                "take a policy gradient, such as reinforce or rloo"
            )
        env = Curiosity(env, weight=config.curiosity)
    if config.curriculum:
        settings = dict(config.curriculum)
        name = str(settings.pop("name", ""))
        any_agent = name.replace("-", "_") in WITHOUT_RETURNS
        if cls is None or not (any_agent or issubclass(cls, PolicyGradient)):
            raise ValueError(
                f"the curriculum {name!r} follows the returns of a policy's texts, and {config.algorithm} "
                "has none that it could follow; take a policy gradient, such as reinforce or rloo"
                + (", or the curriculum by_schedule" if cls else "")
            )
        env = with_curriculum(env, name, **settings)
    return env


def _discount(config: RunConfig, cls: Any) -> float:
    """Return the discount with which the agent of a run sums rewards; refuse an agent that sums none."""
    if cls is None:
        from rlseq.adapters.sb3_agent import ALGORITHMS

        default = signature(pick(ALGORITHMS, config.algorithm, "stock agent")).parameters["gamma"].default
        return float(config.hyper.get("gamma", default))
    if not hasattr(cls, "gamma") or not getattr(cls, "uses_task_reward", True):
        raise ValueError(
            f"shaping changes the rewards of steps, and {config.algorithm} is not trained on those of the "
            "task; take a policy gradient, such as reinforce or rloo"
        )
    return float(config.hyper.get("gamma", cls.gamma))


def with_teachers(hyper: Mapping[str, Any], env: Any) -> dict[str, Any]:
    """Return hyper-parameters with the policies of runs in place of the folders of teachers."""
    if "teacher" not in hyper:
        return dict(hyper)
    folders = [hyper["teacher"]] if isinstance(hyper["teacher"], str) else hyper["teacher"]
    models = [load(folder) for folder in folders]
    for folder, model in zip(folders, models, strict=True):
        if model.spec.vocab.words != env.vocab.words:
            raise ValueError(
                f"the teacher {folder} writes other words than the task: {len(model.spec.vocab)} against "
                f"{len(env.vocab)}; train both on one task, the second with --start or with the first's words"
            )
    return {**hyper, "teacher": [model.policy.requires_grad_(False) for model in models]}


def inherited(config: RunConfig, start: Model) -> RunConfig:
    """Return a configuration in which a task or a policy that was not given is that of the start."""
    theirs = start.run
    if theirs.stock:
        raise ValueError(
            f"the policy of {config.start} was trained by stable-baselines3, and no agent of rlseq can train "
            "it; start from another run"
        )
    if Path(str(config.start)).resolve() == Path(config.folder).resolve():
        raise ValueError(f"{config.start} would start from itself; write to another folder")
    if config.policy:
        sizes = {name: size for name, size in config.sizes.items() if name != "value"}
        if config.policy != theirs.policy or not sizes.items() <= theirs.policy_sizes.items():
            raise ValueError(
                f"the policy {_shown(config)} contradicts that of {config.start}, {_shown(theirs)}; leave it "
                "out, so that the policy of the start is taken"
            )
    env = config.env or theirs.env
    if not env:
        raise ValueError(
            f"the task of {config.start} was not made by rlseq.make, so that its id is not known; name a task"
        )
    return replace(
        config,
        env=env,
        options=theirs.with_options(config.options) if env == theirs.env else config.options,
        policy=theirs.policy,
        sizes={**theirs.sizes, **config.sizes},
        imports=tuple(dict.fromkeys((*theirs.imports, *config.imports))),
    )


def _shown(config: RunConfig) -> str:
    """Return a policy and its sizes as they are typed on the command line."""
    return repr(" ".join([config.policy, *(f"{name}={size}" for name, size in config.sizes.items())]))


def run(
    config: RunConfig,
    start: Model | None = None,
    *,
    first_test: bool = True,
    command: bytes | None = None,
    **training: Any,
) -> tuple[dict[str, float] | None, Any]:
    """Train a run, or resume it; return the scores before training, and the test task.

    Args:
        config: the configuration of the run.
        start: the model whose weights and vocabularies the agent takes over.
        first_test: test the policy before training.
        command: the settings as they were given, which are stored in the folder of the run.
        **training: further settings of `rlseq.train`.
    """
    torch.manual_seed(config.seed)  # for networks that an agent makes itself, such as a discriminator
    agent, env, fresh = build(config, start)
    me = launched_as()
    if me.number == 0 and "path" in config.options and (why := env.corpus.notes.get("why")):
        sys.stderr.write(f"rlseq: {why}\n")
    folder, first = Path(config.folder), None
    if first_test and (folder / "start.json").exists():
        first = read_sealed(folder / "start.json")
    elif first_test:
        found = evaluate_texts(agent.policy, fresh, limit=config.texts)
        first = {**found.means(), **diversity_metrics(found)}
    train(
        agent,
        env,
        eval_env=fresh,
        eval_every=max(1, config.budget_tokens // config.evaluations),
        eval_texts=config.texts,
        budget_tokens=config.budget_tokens,
        out=RunFolder(folder, config.plain(), command, first),
        **training,
    )
    if config.sweep and me.number == 0:
        sweep = [_at(agent.policy, fresh, t, config.texts) for t in TEMPERATURES]
        write_sealed(folder / "temperatures.json", {"temperatures": sweep})
    if me.number == 0:
        compared = not isinstance(env, SteppedEnv) and has_references(env)
        unseen = fresh if held_out(config.env) else None
        beside = beside_training_texts(agent.policy, env, unseen) if compared else {}
        write_sealed(folder / LAST_FILE, beside)
    return first, fresh


def run_of_comparison(config: RunConfig) -> None:
    """Train a run of a comparison in a process of its own; its alarms go to the log."""
    start = None if config.start is None or config.stock else load(config.start)
    run(config, start, alarms=_logged, probe=False)


def beside_training_texts(policy: Any, env: Any, fresh: Any) -> Json:
    """Return how near samples of a policy are to training texts, and to each other, as JSON holds it."""
    found = memorisation(policy, env, fresh, limit=SAMPLES, known=TRAINING_TEXTS)
    means = {name: value if isfinite(value) else None for name, value in found.means().items()}
    return {
        **means,
        "samples": len(found.neighbours),
        "known": found.known,
        "items": env.size,
        "nearest": [each._asdict() for each in found.neighbours[:NEAREST_SHOWN]],
    }


def _logged(alarm: str) -> None:
    """Write an alarm to the log of the run; `alarms.json` records it too."""
    sys.stderr.write(f"{alarm}\n")


def _at(policy: Any, env: Any, temperature: float, texts: int | None) -> dict[str, float]:
    """Return quality and diversity of samples at a temperature."""
    found = evaluate_texts(policy, env, Sample(temperature), limit=texts)
    return {"temperature": temperature, **found.means(), **diversity_metrics(found)}
