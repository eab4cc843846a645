"""Settings with which agents learn a task, for those who give none: a YAML file of each task.

A file holds the policy with its sizes, options of the task, and hyper-parameters of agents. They are
defaults: whatever a user sets takes their place. `benchmarks/tuned.py` measures what they reach.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

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
