"""rlseq: policy gradients for environments that write sequences.

`import rlseq` registers every task with Gymnasium and imports nothing heavier than that; torch comes with
the first name that needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rlseq import envs as envs  # registers the tasks; each is imported when it is made
from rlseq.registry import register as register

if TYPE_CHECKING:
    from rlseq.agents import make_agent as make_agent
    from rlseq.compare.runner import compare as compare
    from rlseq.decode import Greedy as Greedy
    from rlseq.decode import Sample as Sample
    from rlseq.discriminators import make_discriminator as make_discriminator
    from rlseq.engine import rollout as rollout
    from rlseq.env import SequenceEnv as SequenceEnv
    from rlseq.evaluation import evaluate as evaluate
    from rlseq.generation import generate as generate
    from rlseq.policies import make_policy as make_policy
    from rlseq.sanity import Preflight as Preflight
    from rlseq.sanity import preflight as preflight
    from rlseq.search import Beam as Beam
    from rlseq.search import beam_search as beam_search
    from rlseq.search import complete as complete
    from rlseq.training import train as train
    from rlseq.types import Rollout as Rollout
    from rlseq.vocab import Vocab as Vocab

__version__ = "0.1.0"

_HOMES = {
    "Beam": "rlseq.search",
    "Greedy": "rlseq.decode",
    "Preflight": "rlseq.sanity",
    "Rollout": "rlseq.types",
    "Sample": "rlseq.decode",
    "SequenceEnv": "rlseq.env",
    "Vocab": "rlseq.vocab",
    "beam_search": "rlseq.search",
    "complete": "rlseq.search",
    "evaluate": "rlseq.evaluation",
    "generate": "rlseq.generation",
    "make_agent": "rlseq.agents",
    "make_discriminator": "rlseq.discriminators",
    "make_policy": "rlseq.policies",
    "preflight": "rlseq.sanity",
    "rollout": "rlseq.engine",
    "train": "rlseq.training",
}
_MODULES = {
    "adapters",
    "agents",
    "baselines",
    "checkpoint",
    "compare",
    "data",
    "discriminators",
    "exact",
    "inspection",
    "losses",
    "metrics",
    "policies",
    "returns",
    "rewards",
    "sb3",
    "testing",
    "types",
}

__all__ = ["__version__", "envs", "make", "register", *_HOMES, *_MODULES]


def make(
    id: str, num_envs: int = 1, device: Any = "cpu", seed: int | None = 0, **options: Any
) -> SequenceEnv:
    """See `rlseq.registry.make`."""
    from rlseq.registry import make

    return make(id, num_envs, device, seed, **options)  # type: ignore[no-any-return]


def __getattr__(name: str) -> Any:
    """Public names and modules, imported when they are first used."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _MODULES:
        return import_module(f"rlseq.{name}")
    raise AttributeError(f"module 'rlseq' has no attribute {name!r}")


def __dir__() -> list[str]:
    """What a shell offers after `rlseq.`."""
    return sorted(__all__)
