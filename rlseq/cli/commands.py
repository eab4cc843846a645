"""What the commands of `rlseq` do."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch

from rlseq.agents import AGENTS
from rlseq.cli.options import Hyper, flags, hyper, read_config, settings
from rlseq.compare.plan import STOCK
from rlseq.compare.results import Comparison
from rlseq.compare.run import compare as compare_agents
from rlseq.engine.beam import Beam
from rlseq.engine.decode import Greedy, Sample
from rlseq.engine.evaluation import evaluate_texts, selection
from rlseq.engine.generation import generate as generate_texts
from rlseq.mdp.registry import ids, option_names, task_class
from rlseq.metrics.registry import BY_NAME, OF_SETS
from rlseq.policies import POLICIES, size_names
from rlseq.training.experiment import RunConfig, build
from rlseq.training.experiment_envs import metric, number_tested, tested_on
from rlseq.training.fingerprint import configuration, describe, differences
from rlseq.training.loop import train as train_agent
from rlseq.training.run_folder import RunFolder, read_results, read_state
from rlseq.utils.arguments import PositiveInt, Range, Seed, checked, rule_of
from rlseq.utils.errors import hint, pick

Tokens = Annotated[float, Range(1, 1e18)]


SHOWN = 5  # differences that a message names


RUN: list[Hyper] = [
    Hyper("env", str, "", "id of the task (rlseq envs)"),
    Hyper("option", tuple[str, ...], (), "options of the task, length=6"),
    Hyper(
        "reward",
        str | None,
        None,
        "a metric to train on, or constant or shuffled; the task's own when not given",
    ),
    Hyper("policy", tuple[str, ...], ("lstm",), "a name and its sizes, lstm hidden=64 (rlseq policies)"),
    Hyper("start", str | None, None, "folder of a run whose policy this one starts from"),
    Hyper("budget_tokens", Tokens, 1e6, "tokens written, or imitated"),
    Hyper("evaluations", PositiveInt, 10, "tests at equal distances, on the items that the task holds out"),
    Hyper("metrics", tuple[str, ...], (), "what is tested beside the reward; the task's own when not given"),
    Hyper(
        "texts",
        PositiveInt | None,
        None,
        "the most items of a test, drawn at random by a fixed seed; all when not given",
    ),
    Hyper("seed", Seed, 0, "of data, samples and initial weights"),
    Hyper("out", str, "runs/train", "the folder of the run"),
    Hyper("resume", bool, True, "go on with a run that is in the folder"),
    Hyper("wandb", str | None, None, "project of Weights & Biases that is told, too"),
]


def train(name: str, arguments: Sequence[str]) -> None:
    """`rlseq train NAME …`: every hyper-parameter is a flag; `--config` reads them from a file."""
    import tyro

    cls = pick(AGENTS, name, "agent")
    own = [h for h in hyper(cls) if h.name != "policy"]
    form = flags("Train", RUN, own)
    arguments, defaults = _config(list(arguments), {h.name: h for h in (*RUN, *own)})
    given: Any = tyro.cli(
        form, prog=f"rlseq train {name}", description=(cls.__doc__ or "").split("\n")[0], args=arguments,
        default=form(**defaults),
    )  # fmt: skip
    if not given.env:
        raise ValueError(f"name a task: rlseq train {name} --env rlseq/Copy-v0")
    for setting in RUN:
        setting.checked(getattr(given, setting.name))
    policy, *sizes = _named(given.policy)
    budget = int(given.budget_tokens)
    job = RunConfig(
        folder=given.out, env=given.env, options=settings(given.option, "option"), agent=name, algorithm=name,
        hyper={h.name: getattr(given, h.name) for h in own if getattr(given, h.name) != h.default},
        reward=given.reward, policy=policy, sizes=settings(sizes, "policy"), seed=given.seed,
        budget_tokens=budget, evaluations=given.evaluations, metrics=tuple(given.metrics) or None,
        texts=given.texts, start=given.start,
    )  # fmt: skip
    torch.manual_seed(job.seed)  # of what an agent makes for itself, a discriminator, say
    agent, env, fresh = build(job)
    folder = Path(given.out)
    if given.start:
        load_weights(Path(given.start), agent, env, best=False)
    train_agent(
        agent,
        env,
        eval_env=fresh,
        eval_every=max(1, budget // job.evaluations),
        budget_tokens=budget,
        out=RunFolder(folder, job.plain(), _yaml(asdict(given))),
        resume=given.resume,
        eval_texts=job.texts,
        wandb_project=given.wandb,
    )
    final = read_results(folder)["final"]
    lines = "".join(f"{key:16s} {value:10.4f}\n" for key, value in final.items())
    _say_tested(given.env, fresh, job.texts)
    sys.stdout.write(f"{lines}{folder}\n")


def _say_tested(id: str, env: Any, texts: int | None) -> None:
    """Say on which items a policy was tested, beside the scores, which other programs may read."""
    sys.stderr.write(f"rlseq: tested on {number_tested(selection(env.size, texts))}{tested_on(id)}\n")


def evaluate(
    run: Path,
    decode: str,
    metrics: Sequence[str] | None,
    pooled: Sequence[str],
    texts: int | None,
    best: bool,
) -> None:
    """Scores of a run's policy."""
    policy, env, id = load_run(run, best)
    chosen = None if metrics is None else {name: metric(env, name) for name in metrics}
    found = evaluate_texts(policy, env, decode, chosen, texts)
    scores = found.means()
    if pooled:
        scores |= {f"pooled_{name}": value for name, value in found.pooled(env, pooled).items()}
    lines = "".join(f"{key:16s} {value:10.4f}\n" for key, value in scores.items())
    _say_tested(id, env, texts)
    sys.stdout.write(lines)


def generate(
    run: Path, texts: Sequence[str], n: int, decode: str, width: int, temperature: float, best: bool
) -> None:
    """Texts of a run's policy, one a line; of several also their place and score."""
    policy, env, _ = load_run(run, best)
    ways: dict[str, Any] = {"beam": Beam(max(width, n)), "greedy": Greedy(), "sample": Sample(temperature)}
    sources: Sequence[str] | None = texts or None
    if env.source_vocab is not None and not texts:
        sources = _lines()
    for found in generate_texts(policy, env, sources, ways[decode], n):
        for place, (text, score) in enumerate(found, 1):
            sys.stdout.write(text + "\n" if n == 1 else f"{place}\t{score:.3f}\t{text}\n")


def _lines() -> list[str]:
    """The lines of standard input; an empty one within is refused later, and not lost."""
    try:
        text = sys.stdin.read()
    except UnicodeDecodeError as error:
        raise ValueError(f"standard input is not UTF-8: {error.reason} at byte {error.start}") from None
    if not text.strip():
        raise ValueError("no sources: name them after the run, or write them to standard input, one a line")
    return text.rstrip().split("\n")


def compare(given: Mapping[str, Any]) -> None:
    """A comparison, its table, and where its page is."""
    from rich.console import Console

    chosen = dict(given)
    run = {name: chosen.pop(name) for name in ("jobs", "out")}
    path = chosen.pop("config")
    if path is not None:
        known = inspect.signature(compare_agents).parameters
        arguments = read_config(path, [name for name in known if name not in run])
    else:
        arguments = _arguments(chosen)
    comparison = compare_agents(**arguments, **run)
    page = comparison.save()
    Console().print(comparison.table())
    sys.stdout.write(f"\n{page}\n")  # a path may look like markup
    if comparison.results["failed"]:
        sys.exit(1)


def report(folder: Path) -> None:
    """The page of a comparison, again."""
    sys.stdout.write(f"{Comparison.load(folder).save()}\n")


def described(what: str, name: str | None) -> str:
    """A list of names with a line each, or all about one of them."""
    tables: dict[str, Mapping[str, Any]] = {
        "envs": {id: task_class(id) for id in ids()},
        "agents": AGENTS,
        "policies": POLICIES,
        "metrics": {**BY_NAME, **OF_SETS},
    }
    table = tables[what]
    if name is None:
        lines = {key: inspect.getdoc(getattr(value, "func", value)) or "" for key, value in table.items()}
        extra = (
            dict.fromkeys(STOCK, "Stock stable-baselines3, as a control of comparisons.")
            if what == "agents"
            else {}
        )
        lines = {**lines, **extra}
        width = max(map(len, lines))
        return "".join(f"{key:{width}s}  {text.splitlines()[0]}\n" for key, text in lines.items())
    found = pick(table, name, what.rstrip("s"))
    text = inspect.getdoc(getattr(found, "func", found)) or ""
    if what == "agents":
        text += "\n\n" + "".join(f"  {h.name:14s} {h.default!s:16.16s} {h.help}\n" for h in hyper(found))
    elif what == "policies":
        text += f"\n\n  sizes: {', '.join(sorted(size_names(found)))}"
    elif what == "envs":
        text += f"\n\n  options: {', '.join(sorted(option_names(found)))}"
    return text.rstrip() + "\n"


def _arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """The flags of `rlseq compare` as the arguments of `rlseq.compare`."""
    if not given["env"] or not given["agents"]:
        raise ValueError("name tasks and agents: rlseq compare --env rlseq/Copy-v0 --agents mle scst rloo")
    options = settings(given["option"], "option")
    agents: dict[str, dict[str, Any]] = {name: {} for name in given["agents"]}
    if len(agents) < len(given["agents"]):
        raise ValueError(f"an agent is named twice: {' '.join(given['agents'])}")
    for key, value in settings(given["hyper"], "hyper").items():
        name, dot, parameter = key.partition(".")
        if not dot or name.replace("_", "-") not in {a.replace("_", "-") for a in agents}:
            raise ValueError(f"hyper must be agent.name=value, got {key!r}{hint(name, agents)}")
        agents[next(a for a in agents if a.replace("_", "-") == name.replace("_", "-"))][parameter] = value
    policy, *sizes = _named(given["policy"])
    numbers = {
        name: None if given[name] is None else tokens(name, given[name])
        for name in ("budget_tokens", "start_tokens")
    }
    same = ("seeds", "rewards", "control", "temperatures", "evaluations", "texts")
    return {
        "envs": dict.fromkeys(given["env"], options),
        "agents": agents,
        "policy": {"name": policy, **settings(sizes, "policy")},
        "metrics": given["metrics"] or None,
        "start": None if given["start"] == "none" else given["start"],
        "start_hyper": settings(given["start_hyper"], "start_hyper"),
        "mle_options": settings(given["mle_option"], "mle_option"),
        **numbers,
        **{name: given[name] for name in same},
    }


def _named(policy: Sequence[str]) -> Sequence[str]:
    """The name of a policy and its sizes, as they were typed."""
    if not policy:
        raise ValueError("policy must be a name and its sizes, `lstm hidden=64`, got nothing")
    return policy


def tokens(name: str, number: float) -> int:
    """A number of tokens as it was typed, 1e6, say."""
    return int(checked(name, number, rule_of(Tokens)))


def load_run(run: Path, best: bool) -> tuple[Any, Any, str]:
    """The policy of a run, its task as it is tested, and the id of the task."""
    if not (run / "job.json").exists():
        raise ValueError(f"{run} is no run of rlseq train or rlseq compare: it has no job.json")
    job = RunConfig.read(run)
    agent, env, fresh = build(job)
    there, here = load_weights(run, agent, env, best)
    if there != here:
        sys.stderr.write(
            f"rlseq: the data are not those on which {run} was trained: other files, or changed\n"
        )
    return agent.policy, fresh, job.env


def load_weights(run: Path, agent: Any, env: Any, best: bool) -> tuple[Any, Any]:
    """Give an agent the weights of a run; refuses those that are of another policy, or for other words.

    Returns:
        What the data of the run were, and what those of `env` are.
    """
    state = read_state(run, best)["policy"]
    there, here = configuration(run), describe(agent, env)
    differ = [f"\n  {line}" for line in differences(_meaning(there), _meaning(here), "run")]
    if differ:
        raise ValueError(
            f"the weights of {run} are of another policy, or for other words:{''.join(differ[:SHOWN])}\n"
            "use its policy with its sizes and the data that it was trained on, or another run"
        )
    agent.policy.load_state_dict(state)
    return there["env"].get("data"), here["env"].get("data")


def _meaning(config: Mapping[str, Any]) -> dict[str, Any]:
    """What gives weights a meaning: their shapes, and which words have which ids."""
    words = {name: config["env"].get(name) for name in ("vocab", "source_vocab")}
    return {"policy": config["policy"], **words}


def _config(arguments: list[str], known: Mapping[str, Hyper]) -> tuple[list[str], dict[str, Any]]:
    """Flags without `--config FILE`, and the defaults that it holds."""
    if "--config" not in arguments:
        return arguments, {}
    at = arguments.index("--config")
    if at + 1 == len(arguments):
        raise ValueError("--config needs a file")
    found = read_config(arguments[at + 1], list(known))
    return arguments[:at] + arguments[at + 2 :], {n: known[n].read(value) for n, value in found.items()}


def _yaml(content: Mapping[str, Any]) -> bytes:
    import yaml

    plain = json.loads(json.dumps(content))
    return str(yaml.safe_dump(plain, sort_keys=False)).encode()
