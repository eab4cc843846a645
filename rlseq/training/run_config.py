"""The configuration of a run as plain values, which are stored with its results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
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
from rlseq.utils.arguments import Checked, NonNegativeFloat, PositiveInt, Seed, Tokens, keyword_names
from rlseq.utils.errors import pick
from rlseq.utils.files import Damaged

OF_WORDS = ("words", "vocab", "tokenizer")  # options of a task for vocabularies, which `words.json` holds
STORED_IF_GIVEN = (
    "curiosity",
    "curriculum",
    "imports",
    "shaping",
    "unrecorded",
)  # stored where they are given
LAST_FILE = "memorisation.json"  # of a run; empty where samples have no training texts beside them
TO_WORDS: dict[str, Any] = {  # options of a task by which vocabularies are made, and their defaults
    **dict.fromkeys(("level", "vocab_size", "tokenizer", "prompt", "languages")),
    "min_count": 1,
}


@dataclass(frozen=True)
class RunConfig(Checked):
    """The configuration of one run as plain values, kept in `run.json`."""

    env: str
    """Id of the task (`rlseq envs`); with a start, by default the task of the start."""
    agent: str
    """Name of the agent in its comparison."""
    algorithm: str
    """Name of the algorithm: one of `rlseq.agents`, or one of stable-baselines3."""
    folder: str = "runs/train"
    """Folder of the run."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the task, such as `length=6` (`rlseq envs TASK` lists them)."""
    training_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the task in training only."""
    hyper: Mapping[str, Any] = field(default_factory=dict)
    """Hyper-parameters of the agent."""
    reward: str | None = None
    """A metric to train on, `path=FOLDER` for the reward model in a folder (`rlseq reward-model`), or
    "constant" or "shuffled" as a control; by default the reward of the task.

    Tests report it under its own name; `reward` there is always the reward of the task."""
    curriculum: Mapping[str, Any] = field(default_factory=dict)
    """A curriculum of the training items and its settings: `by_schedule until=0.5` or `by_success wanted=0.8`
    for short items first, `reverse` for texts that begin with words of references, `regimes clean=FILE` for
    noisy and clean text (docs/tasks/index.md)."""
    curiosity: NonNegativeFloat = 0.0
    """Weight of a reward for what is new to a model of the task, in training only; 0 for none."""
    shaping: Mapping[str, Any] = field(default_factory=dict)
    """Potentials and costs that are added to the reward in training: on the command line a YAML file,
    `potentials: {length: 0.1}` and `costs: {living: 0.01}` (docs/tasks/index.md)."""
    policy: str = "lstm"
    """Name of the policy; on the command line with its sizes, `lstm hidden=64` (`rlseq policies`)."""
    sizes: Mapping[str, Any] = field(default_factory=dict)
    """Sizes of the policy."""
    start: str | None = None
    """A run or a saved model to start from: its policy, vocabulary, task and options are taken over."""
    budget_tokens: Tokens = 1_000_000
    """Length of the training: tokens that are generated or imitated."""
    evaluations: PositiveInt = 10
    """Number of evaluations on held-out items, at equal intervals."""
    metrics: tuple[str, ...] | None = None
    """Metrics to report beside the reward in tests; by default those of the task."""
    texts: PositiveInt | None = None
    """The largest number of items in a test, drawn at random by a fixed seed; by default all items."""
    seed: Seed = 0
    """Seed of data, samples and initial weights."""
    sweep: bool = False
    """Also test samples at several temperatures."""
    unrecorded: tuple[str, ...] = ()
    """Options of the task that are not plain values, such as a reward function, and are not stored."""
    imports: tuple[str, ...] = ()
    """Modules of your own to import first; the tasks, agents, policies and metrics that they register can be
    named here."""

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
        """Whether the algorithm is one of stable-baselines3."""
        return self.algorithm.startswith("sb3-")

    @property
    def policy_sizes(self) -> dict[str, Any]:
        """The sizes of the policy, with a value head unless they exclude it."""
        value = {"value": True} if "value" in keyword_names(pick(POLICIES, self.policy, "policy")) else {}
        return {**value, **self.sizes}

    def with_options(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of the task with some of them changed; the vocabularies of the run are kept."""
        known = option_names(task_class(self.env))
        kept = changes.keys() & known if known & {*OF_WORDS} else set()
        for name, default in TO_WORDS.items():
            if name in kept and changes[name] != self.options.get(name, default):
                raise ValueError(
                    f"{name}={changes[name]!r} contradicts the vocabularies of the run, which are kept; "
                    f"leave {name} out"
                )
        return {**self.options, **changes}

    @property
    def done(self) -> bool:
        """Whether the run is finished and all of its files exist."""
        folder = Path(self.folder)
        needed = ["results.json", "start.json", *(["temperatures.json"] if self.sweep else []), LAST_FILE]
        there = all((folder / name).exists() for name in needed)
        return there and read_results(folder)["status"] == "finished"

    def plain(self) -> dict[str, Any]:
        """Return the settings as JSON values, without folders, and without optional ones that are empty."""
        optional = [name for name in STORED_IF_GIVEN if not getattr(self, name)]
        found: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {name: value for name, value in found.items() if name not in ("folder", "start", *optional)}

    @classmethod
    def of(cls, plain: Mapping[str, Any], path: Path) -> RunConfig:
        """Return the settings in a file, or refuse those of another version."""
        try:
            return cls(folder=str(path.parent), **plain)
        except (TypeError, ValueError) as error:
            raise Damaged(f"{path} has other fields than a run ({error})") from error


def run_of(agent: Any, env: Any) -> dict[str, Any]:
    """Return the settings of a run made in Python, as far as they are plain values.

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
    """Return the vocabularies and sizes of a task, or the observations and actions of one without words."""
    if isinstance(env, SteppedEnv):
        return {"control": asdict(ControlSpec.of(env))}
    return TaskSpec.of(env).to_json()


def _plain(value: Any) -> Any:
    """Return a value with paths as strings and NumPy numbers as Python numbers."""
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
    """Return whether a value can be stored as JSON."""
    if isinstance(value, Mapping):
        return all(isinstance(name, str) and is_plain(part) for name, part in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))
