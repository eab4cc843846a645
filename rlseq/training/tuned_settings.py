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


@dataclass(frozen=True)
class TunedSettings:
    """The settings of a task.

    Args:
        policy: name of the policy.
        sizes: of the policy.
        options: of the task in training.
        agents: hyper-parameters of each agent that was tuned.
    """

    policy: str | None = None
    sizes: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    agents: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@cache
def tuned_settings(id: str) -> TunedSettings:
    """Return the settings of a task; none at all where it was not tuned."""
    import yaml

    file = files("rlseq.training") / "tuned" / f"{id.removeprefix('rlseq/')}.yaml"
    if not id.startswith("rlseq/") or not file.is_file():
        return TunedSettings()
    return TunedSettings(**yaml.safe_load(file.read_text("utf-8")))


def after_likelihood(algorithm: str) -> dict[str, Any]:
    """Return the hyper-parameters of an agent that goes on from weights which likelihood has trained."""
    return {} if algorithm.startswith("sb3-") else dict(AFTER_LIKELIHOOD)
