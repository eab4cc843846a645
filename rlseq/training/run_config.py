"""A run as plain values, as they are written beside its results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from inspect import signature
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from rlseq.agents import AGENTS
from rlseq.mdp.registry import option_names, task_class
from rlseq.mdp.task_spec import TaskSpec
from rlseq.policies import COMPONENTS, POLICIES
from rlseq.policies.mlp import ControlSpec
from rlseq.training.run_folder import read_results
from rlseq.types import SteppedEnv
from rlseq.utils.arguments import Checked, PositiveInt, Seed, Tokens, keyword_names
from rlseq.utils.errors import pick
from rlseq.utils.files import Damaged

OF_WORDS = ("words", "vocab", "tokenizer")  # options of a task for vocabularies, which `words.json` holds
TO_WORDS = (  # options of a task by which vocabularies are made
    *("level", "min_count", "vocab_size"),
    *("tokenizer", "prompt", "languages"),
)


@dataclass(frozen=True)
class RunConfig(Checked):
    """What one run trains on what, for how long, and into which folder: plain values, kept in `run.json`."""

    env: str
    """Id of the task (`rlseq envs`); that of the start when not given."""
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
    """A run, or a saved model, from which this one starts: its policy, its words, its task and options."""
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
    unrecorded: tuple[str, ...] = ()
    """Options of the task that are no plain values, such as a reward function, and are not kept."""
    imports: tuple[str, ...] = ()
    """Modules of your own that are imported first, so that what they register has a name here."""

    def __post_init__(self) -> None:
        """Give a task on texts the tokenizer of a pretrained policy, where its options name none."""
        super().__post_init__()
        model = self.sizes.get("model") if self.policy == "hf" else None
        if not model or not self.env or not {*OF_WORDS}.isdisjoint(self.options):
            return
        if "tokenizer" in option_names(task_class(self.env)):
            object.__setattr__(self, "options", {**self.options, "tokenizer": model})

    @property
    def stock(self) -> bool:
        """Is it one of stable-baselines3?"""
        return self.algorithm.startswith("sb3-")

    @property
    def policy_sizes(self) -> dict[str, Any]:
        """The sizes of the policy, which has a value head where they do not say otherwise."""
        value = {"value": True} if "value" in keyword_names(pick(POLICIES, self.policy, "policy")) else {}
        return {**value, **self.sizes}

    def with_options(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of the task with some changed; the vocabularies stay those of the run."""
        task = task_class(self.env)
        known, defaults = option_names(task), signature(task).parameters
        kept = changes.keys() & known if known & {*OF_WORDS} else set()
        for name in TO_WORDS:
            default = defaults[name].default if name in defaults else None
            if name in kept and changes[name] != self.options.get(name, default):
                raise ValueError(
                    f"{name}={changes[name]!r} contradicts the vocabularies of the run, which are kept; "
                    f"leave {name} out"
                )
        return {**self.options, **changes}

    @property
    def done(self) -> bool:
        """Whether it is finished, and all that is made of it afterwards is there."""
        folder = Path(self.folder)
        needed = ["results.json", "start.json", *(["temperatures.json"] if self.sweep else [])]
        there = all((folder / name).exists() for name in needed)
        return there and read_results(folder)["status"] == "finished"

    def plain(self) -> dict[str, Any]:
        """Return the settings as JSON holds them, without folders; `imports` only where there are any."""
        optional = [name for name in ("imports", "unrecorded") if not getattr(self, name)]
        found: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {name: value for name, value in found.items() if name not in ("folder", "start", *optional)}

    @classmethod
    def of(cls, plain: Mapping[str, Any], path: Path) -> RunConfig:
        """Return the settings that a file holds, which must be those of this version."""
        try:
            return cls(folder=str(path.parent), **plain)
        except (TypeError, ValueError) as error:
            raise Damaged(f"{path} has other fields than a run ({error})") from error


def run_of(agent: Any, env: Any) -> dict[str, Any]:
    """Return the settings of a run that is made in Python, as far as plain values can say them.

    Args:
        agent: of `rlseq.make_agent`, or of a class of the user's.
        env: of `rlseq.make`; of a task that is made in another way no id and no options are known.
    """
    id, options = getattr(env, "made_from", None) or ("", {})
    options = {name: _plain(value) for name, value in options.items()}
    policy, sizes = getattr(agent.policy, "made_from", None) or ("", {})
    sizes = {name: _plain(size) for name, size in sizes.items()}
    if policy and "value" in keyword_names(POLICIES[policy]):
        sizes = {"value": False, **sizes}
    names = {part: name for name, part in COMPONENTS.items()}
    parts = {name: names[size] if size in COMPONENTS.values() else size for name, size in sizes.items()}
    own = {
        f.name: (getattr(agent, f.name), f.default) for f in fields(agent) if f.init and f.name != "policy"
    }
    algorithm = next((name for name, cls in AGENTS.items() if cls is type(agent)), type(agent).__name__)
    recorded = all(map(is_plain, parts.values()))
    return {
        "env": id,
        "options": {name: value for name, value in options.items() if is_plain(value)},
        "unrecorded": [n for n, value in options.items() if not is_plain(value) and n not in OF_WORDS],
        "agent": algorithm,
        "algorithm": algorithm,
        "hyper": {
            name: value for name, (value, default) in own.items() if is_plain(value) and value != default
        },
        "policy": policy if recorded else "",
        "sizes": parts if recorded else {},
        "seed": env.seed,
    }


def words_of(env: Any) -> dict[str, Any]:
    """The vocabularies and sizes of a task in full, or the observations and actions of one without words."""
    if isinstance(env, SteppedEnv):
        return {"control": asdict(ControlSpec.of(env))}
    return TaskSpec.of(env).to_json()


def _plain(value: Any) -> Any:
    """Return a value with texts for paths, and numbers of Python for those of NumPy."""
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [*map(_plain, value)]
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "peft_type"):  # the configuration of adapters
        usual = type(value)().to_dict()
        changed = {n: part for n, part in value.to_dict().items() if part != usual[n]}
        return {"peft_type": str(value.peft_type.value), **_plain(changed)}
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return str(value) if isinstance(value, PathLike) else value


def is_plain(value: Any) -> bool:
    """Whether JSON can hold a value."""
    if isinstance(value, Mapping):
        return all(isinstance(name, str) and is_plain(part) for name, part in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))
