"""Settings with which agents learn a task, for those who give none: a YAML file of each task.

A file holds the policy with its sizes, options of the task, and hyper-parameters of agents. They are
defaults: whatever a user sets takes their place. `benchmarks/tuned.py` measures what they reach. `rlseq tune`
writes such files, and `--settings` takes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import Any

from rlseq.utils.errors import in_one_line

# The step size rises after likelihood: at its full size the first steps undo what was learned, those of
# likelihood that goes on as well (benchmarks/warmup.py).
AFTER_LIKELIHOOD: Mapping[str, Any] = {"schedule": "warmup"}

PRETRAINED = ("hf",)  # names of policies whose weights come with them


@dataclass(frozen=True)
class TunedSettings:
    """The settings of a task.

    Args:
        policy: name of the policy.
        sizes: of the policy.
        options: of the task in training.
        agents: hyper-parameters of each agent that was tuned from random weights.
        after_likelihood: those of each agent that was tuned from weights which likelihood has trained.
    """

    policy: str | None = None
    sizes: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    agents: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    after_likelihood: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def hyper(self, algorithm: str, *, after_likelihood: bool) -> dict[str, Any]:
        """Return the hyper-parameters of an agent, by where it starts; they are empty if it was not tuned."""
        if not after_likelihood:
            return dict(self.agents.get(algorithm, {}))
        if algorithm.startswith("sb3-"):  # these train networks of their own
            return {}
        return {**AFTER_LIKELIHOOD, **self.after_likelihood.get(algorithm, {})}

    def used(self, algorithm: str, hyper: Mapping[str, Any], *, after_likelihood: bool) -> bool:
        """Return whether an agent was tuned, and has these hyper-parameters."""
        own = (self.after_likelihood if after_likelihood else self.agents).get(algorithm, {})
        return bool(own) and own.items() <= hyper.items()


@cache
def tuned_settings(id: str, policy: str | None = None) -> TunedSettings:
    """Return the settings of a task; none at all where it was not tuned, or not for the kind of policy.

    Args:
        id: of the task.
        policy: name of the policy, if one was chosen. Step sizes for policies with random weights are too
            large for pretrained ones.
    """
    import yaml

    if policy in PRETRAINED:
        return TunedSettings()

    file = files("rlseq.training") / "tuned" / f"{id.removeprefix('rlseq/')}.yaml"
    if not id.startswith("rlseq/") or not file.is_file():
        return TunedSettings()
    return TunedSettings(**yaml.safe_load(file.read_text("utf-8")))


def read_settings(path: str | PathLike[str]) -> TunedSettings:
    """Return the settings in a file of the same form, such as one that `rlseq tune` has written."""
    import yaml

    try:
        found = yaml.safe_load(Path(path).read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as YAML: {in_one_line(error)}") from None
    names = {each.name for each in fields(TunedSettings)}
    kinds = {"policy": str, **dict.fromkeys(names - {"policy"}, Mapping)}
    wrong = not isinstance(found, Mapping) or any(
        name not in names or not isinstance(value, kinds[name]) for name, value in found.items()
    )
    agents = [] if wrong else [*found.get("agents", {}).values(), *found.get("after_likelihood", {}).values()]
    if wrong or not all(isinstance(hyper, Mapping) for hyper in agents):
        raise ValueError(
            f"{path} is no file of settings, as `rlseq tune` writes: it must hold a policy, and names and "
            "values of its sizes, of options of the task and of hyper-parameters of agents"
        )
    return TunedSettings(**found)


def settings_for(
    path: str | PathLike[str], agents: Iterable[str], *, after_likelihood: bool
) -> TunedSettings:
    """Return the settings in a file; refuse one that has none for any of some agents, by where they start."""
    found, wanted = read_settings(path), list(agents)
    there, elsewhere = found.agents, found.after_likelihood
    if after_likelihood:
        there, elsewhere = elsewhere, there
    if there.keys() & {*wanted}:
        return found
    kinds = "random weights", "weights that likelihood has trained"
    here = kinds[after_likelihood]
    of_both = (
        f"; of {', '.join(elsewhere)} it has some from {kinds[not after_likelihood]}" if elsewhere else ""
    )
    raise ValueError(f"{path} has no settings of {', '.join(wanted)} that start from {here}{of_both}")
