"""The commands `rlseq train` and `rlseq resume`."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from rlseq.agents import AGENTS
from rlseq.cli.options import (
    SeveralWords,
    check_setting_names,
    fields_of,
    flag,
    flags,
    form,
    named_settings,
    parsed,
    settings,
    words_and_config,
)
from rlseq.cli.testing import say_tested, scores_in_lines
from rlseq.envs.wrappers.shaping import read_shaping
from rlseq.training import checkpoint
from rlseq.training.config import TrainConfig
from rlseq.training.experiment import inherited, run
from rlseq.training.model import Model, load
from rlseq.training.run_config import RunConfig
from rlseq.training.run_folder import read_results
from rlseq.training.tuned_settings import TunedSettings, settings_for, tuned_settings
from rlseq.utils.errors import ours, pick
from rlseq.utils.imports import import_modules
from rlseq.utils.ranks import launched_as
from rlseq.utils.settings import descriptions

ABOUT_CONFIG = "--config FILE reads settings from a YAML or JSON file; flags replace those of the file."
ABOUT_SETTINGS = "A file of settings, as `rlseq tune` writes; what is typed beside it takes its place."
FLAGS_OF_RUN = {"options": "option", "folder": "out"}
NO_FLAGS_OF_RUN = ("agent", "algorithm", "hyper", "sizes", "sweep", "training_options", "unrecorded")
FLAGS_OF_TRAINING = {"wandb_project": "wandb", "trackio_project": "trackio"}
NO_FLAGS_OF_TRAINING = ("budget_tokens", "eval_every", "eval_texts", "out")  # which a run sets


def train(name: str, words: Sequence[str]) -> None:
    """Train one agent; every setting and hyper-parameter is a flag, and `--config` reads them from a file."""
    words, path, found = words_and_config(words)
    import_modules(found.get("imports", ()))
    cls = pick(AGENTS, name, "agent")
    form_of_train = _form(cls)
    known = [field.name for field in fields(form_of_train)]
    _check_agent_has(name, known, [*found, *_flag_names(words)])
    check_setting_names(path, found, known)
    text = (cls.__doc__ or "").split("\n")[0] + f"\n\n{ABOUT_CONFIG}"
    start, tuned = _start_and_tuned(name, words, found)
    suited = tuned.hyper(name, after_likelihood=start is not None)
    given = parsed(form_of_train, words, f"rlseq train {name}", text, {**suited, **found})
    if not given.env and start is None:
        raise ValueError(f"name a task: rlseq train {name} --env rlseq/Copy-v0")
    unlikely = start is None and name in tuned.after_likelihood and name not in tuned.agents
    if unlikely and not launched_as().number:
        _say_likelihood_first(given.env, name)
    job = _job(name, given, start, tuned)
    training = fields_of(TrainConfig, given, FLAGS_OF_TRAINING)
    training = {name: value for name, value in training.items() if name not in NO_FLAGS_OF_TRAINING}
    first, fresh = run(job, start, first_test=start is not None, command=_yaml(asdict(given)), **training)
    _show(job, fresh, first)


def resume(run_folder: Path, budget_tokens: float | None, quiet: bool, imports: Sequence[str]) -> None:
    """Continue a run with the settings of its folder, and print its scores."""
    if not checkpoint.steps(run_folder / "checkpoints"):
        raise FileNotFoundError(2, "there is no checkpoint of a run; name the folder of one", str(run_folder))
    import_modules(imports)
    job = load(run_folder).run
    if not job.env:
        raise ValueError(
            f"the task of {run_folder} was not made by rlseq.make, so that its id is not known; continue it "
            "in Python: the same call of rlseq.train with a larger budget"
        )
    budget = job.budget_tokens if budget_tokens is None else int(budget_tokens)
    if budget < job.budget_tokens:
        raise ValueError(
            f"{run_folder} has a budget of {job.budget_tokens:,} tokens, and a training cannot become "
            f"shorter; give more than these, got {budget:,}"
        )
    job = replace(job, folder=str(run_folder), budget_tokens=budget, imports=(*job.imports, *imports))
    start = None if job.start is None or job.stock else _started(job.start, run_folder)
    _, fresh = run(job, start, first_test=False, quiet=quiet)
    _show(job, fresh)


def _form(cls: type) -> Any:
    """Return the flags of a training: those of a run, of the loop, and of an agent of a class."""
    policy = flag("policy", SeveralWords, descriptions(RunConfig)["policy"])  # a name, and sizes
    return form(
        "Train",
        [policy, flag("settings", str | None, ABOUT_SETTINGS)],
        flags(RunConfig, FLAGS_OF_RUN, NO_FLAGS_OF_RUN),
        flags(TrainConfig, FLAGS_OF_TRAINING, NO_FLAGS_OF_TRAINING),
        flags(cls, {}, without=("policy",)),
    )


def _flag_names(words: Sequence[str]) -> list[str]:
    """Return the names of the settings whose flags were typed."""
    flags = [word.partition("=")[0] for word in words if word.startswith("--")]
    return [flag.removeprefix("--").removeprefix("no-").replace("-", "_") for flag in flags]


def _check_agent_has(name: str, known: Collection[str], given: Iterable[str]) -> None:
    """Refuse a setting that other agents have, and this one does not."""
    for setting in given:
        if ours(setting, known) is not None:  # the name of another library for a flag of ours, which is said
            continue
        having = [other for other, cls in AGENTS.items() if setting in {field.name for field in fields(cls)}]
        if having and setting not in known:
            raise ValueError(
                f"{name} has no setting {setting}; leave it out, or take an agent that has it: "
                f"{', '.join(having)}"
            )


def _job(name: str, given: Any, start: Model | None, tuned: TunedSettings) -> RunConfig:
    """Return the run that was typed, on the task and the policy of its start; tuned settings fill gaps."""
    own = flags(AGENTS[name], {}, without=("policy",))
    policy, *sizes = given.policy or ("" if start else tuned.policy or RunConfig.policy,)
    job = RunConfig(
        **fields_of(RunConfig, given, FLAGS_OF_RUN)
        | {
            "agent": name,
            "algorithm": name,
            "options": {**({} if start else tuned.options), **settings(given.option, "option")},
            "hyper": {n: getattr(given, n) for n, _, f in own if getattr(given, n) != f.default_factory()},
            "curriculum": named_settings(given.curriculum, "curriculum"),
            "shaping": _shaping(given.shaping),
            "policy": policy,
            "sizes": dict(tuned.sizes) if not (given.policy or start) else settings(sizes, "policy"),
        }
    )
    return job if start is None else inherited(job, start)


def _show(job: RunConfig, fresh: Any, first: Mapping[str, float] | None = None) -> None:
    """Print the last scores of a run and its folder, and say which items they are of, and how it began."""
    if launched_as().number:  # rank 0 has the folder
        return
    folder = Path(job.folder)
    final = read_results(folder)["final"]
    say_tested(job.env, fresh, job.texts)
    if first is not None:
        sys.stderr.write(f"rlseq: reward {first['reward']:.4f} before, {final['reward']:.4f} after\n")
    sys.stdout.write(f"{scores_in_lines(final)}{folder}\n")


def _shaping(words: Sequence[str]) -> Mapping[str, Any]:
    """Return the table of the file that was typed, if one was."""
    if len(words) > 1:
        raise ValueError(f"shaping must be one file, got {' '.join(words)}")
    return read_shaping(words[0]) if words else {}


def _start_and_tuned(
    agent: str, words: Sequence[str], found: Mapping[str, Any]
) -> tuple[Model | None, TunedSettings]:
    """Return the model that a training starts from, and the tuned settings of its task or of a file."""
    origin, folder = _typed("start", words, found), _typed("out", words, found)
    start = None if origin is None else _started(origin, Path(folder or RunConfig.folder))
    id = _typed("env", words, found) or (start.run.env if start else None)
    typed: Any = _typed("policy", words, found)
    name = start.run.policy if start else typed if isinstance(typed, str) or not typed else typed[0]
    if (file := _typed("settings", words, found)) is not None:
        return start, settings_for(file, [agent], after_likelihood=start is not None)
    return start, tuned_settings(id, name) if id else TunedSettings()


def _typed(name: str, words: Sequence[str], found: Mapping[str, Any]) -> Any:
    """Return a setting as it was typed, or as a file has it; None where neither has it."""
    following = [after for word, after in pairwise(words) if word == f"--{name}"]
    joined = [word.partition("=")[2] for word in words if word.startswith(f"--{name}=")]
    return next(iter([*following, *joined]), found.get(name))


def _started(start: str, folder: Path) -> Model:
    """Return the model of a start; if it no longer exists, that of the run, which has a checkpoint."""
    gone = not Path(start).exists() and checkpoint.steps(folder / "checkpoints")
    return load(folder if gone else start)


def _say_likelihood_first(id: str, agent: str) -> None:
    """Write to standard error how an agent learns a task that is hardly learned from random weights."""
    sys.stderr.write(
        f"rlseq: a policy with random weights earns next to nothing on {id}; train likelihood first:\n"
        f"  rlseq train mle --env {id} --out runs/likelihood\n"
        f"  rlseq train {agent} --start runs/likelihood\n"
    )


def _yaml(content: Mapping[str, Any]) -> bytes:
    import yaml

    plain = json.loads(json.dumps(content))
    return str(yaml.safe_dump(plain, sort_keys=False)).encode()
