"""The commands of `rlseq` that need torch: train, evaluate, generate, compare, report and the lists."""

from __future__ import annotations

import inspect
import json
import shlex
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from rlseq.agents import AGENTS
from rlseq.cli.options import (
    SeveralWords,
    TypedTokens,
    check_setting_names,
    fields_of,
    flag,
    flags,
    form,
    named_settings,
    names_and_flags,
    parsed,
    read_config,
    settings,
)
from rlseq.compare.plan import OF_MACHINE, SB3_AGENTS, ComparisonConfig
from rlseq.compare.process_pool import processes_for
from rlseq.compare.results import Comparison
from rlseq.compare.run import run_comparison
from rlseq.compare.run_report import RunReport
from rlseq.compare.workers import slurm_script, work
from rlseq.engine.evaluation import DECODERS, evaluate_texts, selection
from rlseq.engine.memorisation import memorisation as compared_with_training
from rlseq.envs.wrappers.shaping import read_shaping
from rlseq.mdp.registry import ids, option_names, options_passed_on, task_class
from rlseq.metrics.registry import METRICS
from rlseq.policies import POLICIES
from rlseq.recipe.config import FitConfig
from rlseq.recipe.fit import run_fit
from rlseq.recipe.tune import run_tune
from rlseq.recipe.tune_config import TuneConfig
from rlseq.training import checkpoint
from rlseq.training.config import TrainConfig
from rlseq.training.experiment import inherited, run
from rlseq.training.experiment_envs import ALWAYS, held_out_options, metric, number_tested, tested_on
from rlseq.training.fingerprint import configuration, describe_task
from rlseq.training.model import Model, load
from rlseq.training.run_config import RunConfig
from rlseq.training.run_folder import read_results
from rlseq.training.tuned_settings import TunedSettings, settings_for, tuned_settings
from rlseq.utils.arguments import checked, keyword_names, rule_of
from rlseq.utils.errors import hint, pick
from rlseq.utils.imports import import_modules
from rlseq.utils.ranks import launched_as
from rlseq.utils.settings import descriptions

ABOUT_CONFIG = "--config FILE reads settings from a YAML or JSON file; flags replace those of the file."
ABOUT_SETTINGS = "A file of settings, as `rlseq tune` writes; what is typed beside it takes its place."
FLAGS_OF_RUN = {"options": "option", "folder": "out"}
NO_FLAGS_OF_RUN = ("agent", "algorithm", "hyper", "sizes", "sweep", "training_options", "unrecorded")
FLAGS_OF_TRAINING = {"wandb_project": "wandb", "trackio_project": "trackio"}
NO_FLAGS_OF_TRAINING = ("budget_tokens", "eval_every", "eval_texts", "out")  # which a run sets
FLAGS_OF_FIT = {"options": "option"}
FLAGS_OF_TUNE = {"options": "option"}
FLAGS_OF_COMPARISON = {"envs": "env", "mle_options": "mle_option"}


def fit(words: Sequence[str], text: str) -> None:
    """Fit a model to pairs; every setting is a flag, and `--config` reads them, and the path, from a file."""
    words, file, found = _config(list(words))
    paths, words = names_and_flags(words)
    own = flags(FitConfig, FLAGS_OF_FIT, ("sizes",))
    form_of_fit = form("Fit", [flag("policy", SeveralWords, descriptions(FitConfig)["policy"])], own)
    path = found.pop("path", None)
    check_setting_names(file, found, [field.name for field in fields(form_of_fit)])
    given = parsed(form_of_fit, words, "rlseq fit PATH", text, found)
    if paths:
        path = paths[0] if len(paths) == 1 else paths
    if path is None:
        raise ValueError("name the data: rlseq fit pairs.tsv")
    policy, *sizes = given.policy or (None,)
    config = FitConfig(
        **fields_of(FitConfig, given, FLAGS_OF_FIT)
        | {
            "policy": policy,
            "sizes": settings(sizes, "policy"),
            "hyper": settings(given.hyper, "hyper"),
            "options": settings(given.option, "option"),
        }
    )
    fitted = run_fit(path, config)
    limits = "".join(f"{remark}\n" for remark in fitted.results["remarks"])
    sys.stdout.write(f"{fitted.verdict}\n{limits}Page: {fitted.page}\n")
    source, folder = fitted.results["samples"][0]["source"], fitted.folder
    sys.stdout.write(
        f"Generate with: rlseq generate {folder} {shlex.quote(source)}\n"
        f"Continue from likelihood with another agent: rlseq train scst --start {folder}/stages/likelihood\n"
    )


def tune(words: Sequence[str], text: str) -> None:
    """Search hyper-parameters; every setting is a flag."""
    own = flags(TuneConfig, FLAGS_OF_TUNE, ("sizes",))
    form_of_tune = form("Tune", [flag("policy", SeveralWords, descriptions(TuneConfig)["policy"])], own)
    given = parsed(form_of_tune, words, "rlseq tune", text, {})
    if not given.env or not given.agent:
        raise ValueError("name a task and an agent: rlseq tune --env rlseq/G2P-v0 --agent rloo")
    policy, *sizes = given.policy or (TuneConfig.policy,)
    config = TuneConfig(
        **fields_of(TuneConfig, given, FLAGS_OF_TUNE)
        | {
            "policy": policy,
            "sizes": settings(sizes, "policy"),
            "hyper": settings(given.hyper, "hyper"),
            "options": settings(given.option, "option"),
        }
    )
    found = run_tune(config)
    again = found.results["again"]
    lines = [f"{name:20s} {row['mean']:10.4f}\n" for name, row in again.items()]
    sys.stdout.write("".join(lines) + f"{found.settings}\n{found.page}\n")


def train(name: str, words: Sequence[str]) -> None:
    """Train one agent; every setting and hyper-parameter is a flag, and `--config` reads them from a file."""
    words, path, found = _config(list(words))
    import_modules(found.get("imports", ()))
    cls = pick(AGENTS, name, "agent")
    own = list(flags(cls, {}, without=("policy",)))
    flags_of_train = form(
        "Train",
        [
            flag("policy", SeveralWords, descriptions(RunConfig)["policy"]),  # a name, and sizes
            flag("settings", str | None, ABOUT_SETTINGS),
        ],
        flags(RunConfig, FLAGS_OF_RUN, NO_FLAGS_OF_RUN),
        flags(TrainConfig, FLAGS_OF_TRAINING, NO_FLAGS_OF_TRAINING),
        own,
    )
    check_setting_names(path, found, [field.name for field in fields(flags_of_train)])
    text = (cls.__doc__ or "").split("\n")[0] + f"\n\n{ABOUT_CONFIG}"
    start, tuned = _start_and_tuned(name, words, found)
    suited = tuned.hyper(name, after_likelihood=start is not None)
    given = parsed(flags_of_train, words, f"rlseq train {name}", text, {**suited, **found})
    if not given.env and start is None:
        raise ValueError(f"name a task: rlseq train {name} --env rlseq/Copy-v0")
    unlikely = start is None and name in tuned.after_likelihood and name not in tuned.agents
    if unlikely and not launched_as().number:
        _say_likelihood_first(given.env, name)
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
    job, folder = job if start is None else inherited(job, start), Path(job.folder)
    training = fields_of(TrainConfig, given, FLAGS_OF_TRAINING)
    training = {name: value for name, value in training.items() if name not in NO_FLAGS_OF_TRAINING}
    first, fresh = run(job, start, first_test=start is not None, command=_yaml(asdict(given)), **training)
    if launched_as().number:  # rank 0 has the folder, and says what is in it
        return
    final = read_results(folder)["final"]
    lines = "".join(f"{key:16s} {value:10.4f}\n" for key, value in final.items())
    _say_tested(job.env, fresh, job.texts)
    if first is not None:
        sys.stderr.write(f"rlseq: reward {first['reward']:.4f} before, {final['reward']:.4f} after\n")
    sys.stdout.write(f"{lines}{folder}\n")


def _shaping(words: Sequence[str]) -> Mapping[str, Any]:
    """Return the table of the file that was typed, if one was."""
    if len(words) > 1:
        raise ValueError(f"shaping must be one file, got {' '.join(words)}")
    return read_shaping(words[0]) if words else {}


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
    if launched_as().number:
        return
    final = read_results(run_folder)["final"]
    _say_tested(job.env, fresh, job.texts)
    sys.stdout.write(
        "".join(f"{key:16s} {value:10.4f}\n" for key, value in final.items()) + f"{run_folder}\n"
    )


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


def _say_tested(id: str, env: Any, texts: int | None, other: str = "") -> None:
    """Write to standard error which items a policy was tested on; scores go to standard output."""
    items = f"items of {other}" if other else tested_on(id)
    sys.stderr.write(f"rlseq: tested on {number_tested(selection(env.size, texts))}{items}\n")


def _say_likelihood_first(id: str, agent: str) -> None:
    """Write to standard error how an agent learns a task that is hardly learned from random weights."""
    sys.stderr.write(
        f"rlseq: a policy with random weights earns next to nothing on {id}; train likelihood first:\n"
        f"  rlseq train mle --env {id} --out runs/likelihood\n"
        f"  rlseq train {agent} --start runs/likelihood\n"
    )


def evaluate(
    run: Path,
    option: Sequence[str],
    decode: str,
    sizes: Mapping[str, Any],
    metrics: Sequence[str] | None,
    pooled: Sequence[str],
    texts: int | None,
    best: bool,
    memorisation: bool,
) -> None:
    """Print the scores of the policy of a run, on held-out data of its task or on other data."""
    other = settings(option, "option")
    model = load(run, best=best, device=other.get("device", "cpu"))
    held_out = held_out_options(model.run.env) if model.run.env else {}
    env = model.task(**{**held_out, **other})
    metrics = model.run.metrics if metrics is None else metrics
    chosen = None if metrics is None else {name: metric(env, name) for name in metrics if name not in ALWAYS}
    found = evaluate_texts(model.policy, env, _decoder(model, decode, sizes), chosen, texts)
    scores = found.means()
    if pooled:
        scores |= {f"pooled_{name}": value for name, value in found.pooled(env, pooled).items()}
    if memorisation:
        scores |= compared_with_training(model.policy, model.task(**model.run.training_options), env).means()
    lines = "".join(f"{key:16s} {value:10.4f}\n" for key, value in scores.items())
    _say_tested(model.run.env, env, texts, " ".join(option))
    if not other:
        _say_changed(run, model)
    sys.stdout.write(lines)


def _decoder(model: Model, name: str, settings: Mapping[str, Any]) -> Any:
    """Return a decoder by name with those of the settings that it has."""
    decoder: Any = pick(DECODERS, name, "decoder")
    reward = model.run.options.get("reward")
    typed = {**settings, "utility": settings["utility"] or (reward if isinstance(reward, str) else "")}
    return replace(decoder, **{f.name: typed[f.name] for f in fields(decoder) if f.name in typed})


def _say_changed(run: Path, model: Model) -> None:
    """Write a line to standard error if the data of a run have changed since its training."""
    if not (run / "config.json").exists():
        return
    env = model.task(**model.run.training_options)
    if configuration(run)["env"].get("data") != describe_task(env).get("data"):
        sys.stderr.write(
            f"rlseq: the data are not those on which {run} was trained: other files, or changed ones\n"
        )


def generate(
    run: Path,
    sources: Sequence[str],
    n: int,
    decode: str,
    settings: Mapping[str, Any],
    best: bool,
    too_long: str,
) -> None:
    """Print texts of the policy of a run, one a line; several for a source with their rank and score."""
    model = load(run, best=best)
    decoder = _decoder(model, decode, settings)
    if model.reads and model.spec.source_vocab is not None:
        for name in filter(_is_file, sources):
            warnings.warn(
                f"{name!r} is taken as a source; to read sources from that file: < {name}", stacklevel=2
            )
    given: Sequence[str] | None = sources or None
    if model.reads and not sources:
        given = _lines()
    for found in model.generate(given, decoder, n, too_long=too_long):
        for place, (text, score) in enumerate(found, 1):
            sys.stdout.write(text + "\n" if n == 1 else f"{place}\t{score:.3f}\t{text}\n")


def _is_file(source: str) -> bool:
    """Return whether a source is the name of a file, which was probably meant to be read."""
    try:
        return bool(Path(source).suffix) and Path(source).is_file()
    except (OSError, ValueError):  # too long for a name, or with characters that no name may have
        return False


def _lines() -> list[str]:
    """Return the lines of standard input; an empty line between others is kept, and refused later."""
    try:
        text = sys.stdin.read()
    except UnicodeDecodeError as error:
        raise ValueError(f"standard input is not UTF-8: {error.reason} at byte {error.start}") from None
    if not text.strip():
        raise ValueError("no sources: give them after the run, or one a line on standard input")
    return text.rstrip().split("\n")


def compare(words: Sequence[str], text: str) -> None:
    """Compare agents, and print the table and the path of the page."""
    from rich.console import Console

    flags_of_compare = form(
        "Compare",
        flags(ComparisonConfig, FLAGS_OF_COMPARISON),
        [
            flag("option", SeveralWords, "Options of all tasks, such as `length=6`."),
            flag("hyper", SeveralWords, "Hyper-parameters of the agents, such as `scst.lr=1e-4`."),
            flag(
                "config",
                str | None,
                "A YAML or JSON file with all settings, such as the `config.json` of another comparison.",
            ),
            flag("worker", str | None, "Train missing runs of the comparison in a folder, and nothing else."),
            flag(
                "dry_run", bool, "Print the batch script for Slurm; nothing is submitted or written.", False
            ),
        ],
    )
    given = parsed(flags_of_compare, words, "rlseq compare", text, {})
    if given.worker is not None:
        work_in(given)
        return
    config = _comparison(given) if given.config is None else _comparison_in_file(given)
    if given.dry_run:
        if config.executor != "slurm":
            raise ValueError("--dry-run prints the script for Slurm; add --executor slurm, or leave it out")
        runs, folder = config.runs(), Path(config.out)
        sys.stdout.write(slurm_script(folder, processes_for(len(runs), config.jobs), config.slurm))
        return
    comparison = run_comparison(config)
    page = comparison.save()
    Console().print(comparison.table())
    sys.stdout.write(f"\n{page}\n")  # a path may look like markup
    if comparison.results["failed"]:
        sys.exit(1)


def work_in(given: Any) -> None:
    """Work on the comparison in a folder until no run is missing."""
    beside = [n for n, v in vars(given).items() if n != "worker" and v != getattr(type(given)(), n)]
    if beside:
        raise ValueError(f"--worker takes the settings in its folder; leave out {', '.join(beside)}")
    sys.stderr.write(f"rlseq: this worker has finished {work(given.worker)} runs; none is missing\n")


def report(folder: Path) -> None:
    """Write the page of a run or of a comparison, and print its path; of a run also its scores."""
    found: Any = RunReport if (folder / "words.json").exists() else Comparison
    shown = found.load(folder)
    page = shown.save()
    if isinstance(shown, RunReport):
        from rich.console import Console

        Console().print(shown)
    sys.stdout.write(f"{page}\n")  # a path may look like markup


def _comparison_in_file(given: Any) -> ComparisonConfig:
    """Return the comparison of a file, with the modules, folder and number of processes that were typed."""
    found = read_config(given.config)
    names = [field.name for field in fields(ComparisonConfig) if field.name not in OF_MACHINE]
    check_setting_names(given.config, found, names)
    if given.imports:
        found["imports"] = given.imports
    allowed = {"config", "imports", "dry_run", *OF_MACHINE}
    beside = [n for n, v in vars(given).items() if n not in allowed and v != getattr(type(given)(), n)]
    if beside:
        raise ValueError(
            f"{given.config} has all settings; leave out {', '.join(beside)}, or write them there"
        )
    return ComparisonConfig(**found, **{name: getattr(given, name) for name in OF_MACHINE})


def list_or_show(what: str, name: str | None) -> str:
    """Return the names of a table with a line each, or the description of one of them."""
    tables: dict[str, Mapping[str, Any]] = {
        "envs": {id: task_class(id) for id in ids()},
        "agents": AGENTS,
        "policies": POLICIES,
        "metrics": {name: row.make for name, row in METRICS.items() if row.make},
    }
    table = tables[what]
    if name is None:
        lines = {key: inspect.getdoc(getattr(value, "func", value)) or " " for key, value in table.items()}
        if what == "agents":
            lines |= dict.fromkeys(
                SB3_AGENTS, "An agent of stable-baselines3 with its own network, as a control in comparisons."
            )
        width = max(map(len, lines))
        return "".join(f"{key:{width}s}  {text.splitlines()[0]}\n" for key, text in lines.items())
    found = pick(table, name, what.rstrip("s"))
    text = inspect.getdoc(getattr(found, "func", found)) or ""
    if what == "agents":
        texts = descriptions(found)
        rows = [(name, default.default_factory()) for name, _, default in flags(found, {}, ("policy",))]
        text += "\n\n" + "".join(f"  {name:14s} {default!s:16.16s} {texts[name]}\n" for name, default in rows)
    elif what == "metrics":
        text += f"\n\n  {METRICS[name]}"
    elif what == "policies":
        text += f"\n\n  sizes: {', '.join(sorted(keyword_names(found)))}"
    elif what == "envs":
        texts = {name: text for cls in options_passed_on(found) for name, text in descriptions(cls).items()}
        text += f"\n\n  options: {', '.join(sorted(option_names(found)))}\n\n"
        text += "".join(f"  {name:14s} {texts[name]}\n" for name in texts)
    return text.rstrip() + "\n"


def _comparison(given: Any) -> ComparisonConfig:
    """Return the comparison that was typed."""
    if not given.env or not given.agents:
        raise ValueError("name tasks and agents: rlseq compare --env rlseq/Copy-v0 --agents mle scst rloo")
    agents: dict[str, dict[str, Any]] = {name: {} for name in given.agents}
    if len(agents) < len(given.agents):
        raise ValueError(f"an agent is named twice: {' '.join(given.agents)}")
    for key, value in settings(given.hyper, "hyper").items():
        name, dot, parameter = key.partition(".")
        owner = next((agent for agent in agents if _alike(agent) == _alike(name)), None)
        if not dot or owner is None:
            raise ValueError(f"hyper must be agent.name=value, got {key!r}{hint(name, agents)}")
        agents[owner][parameter] = value
    policy, *sizes = given.policy or (None,)
    return ComparisonConfig(
        **fields_of(ComparisonConfig, given, FLAGS_OF_COMPARISON)
        | {
            "envs": dict.fromkeys(given.env, settings(given.option, "option")),
            "agents": agents,
            "policy": None if policy is None else {"name": policy, **settings(sizes, "policy")},
            "start": None if given.start == "none" else given.start,
            "start_hyper": settings(given.start_hyper, "start_hyper"),
            "mle_options": settings(given.mle_option, "mle_option"),
        }
    )


def _alike(name: str) -> str:
    """Return a name with _ for -, as in the names of settings."""
    return name.replace("-", "_")


def tokens(name: str, number: float) -> int:
    """Return a number of tokens that was typed as a float, such as 1e6."""
    return int(checked(name, number, rule_of(TypedTokens)))


def _config(words: list[str]) -> tuple[list[str], str, dict[str, Any]]:
    """Return the words without `--config FILE`, the file, and the settings that it holds."""
    if "--config" not in words:
        return words, "", {}
    at = words.index("--config")
    if at + 1 == len(words):
        raise ValueError("--config needs a file")
    return words[:at] + words[at + 2 :], words[at + 1], read_config(words[at + 1])


def _yaml(content: Mapping[str, Any]) -> bytes:
    import yaml

    plain = json.loads(json.dumps(content))
    return str(yaml.safe_dump(plain, sort_keys=False)).encode()
