"""rlseq: policy gradients for environments that write sequences.

`import rlseq` registers every task with Gymnasium and imports nothing heavier than that; torch comes with
the first name that needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rlseq import envs as envs  # registers the tasks; each is imported when it is made
from rlseq.mdp.registry import register as register
from rlseq.utils.version import __version__ as __version__

if TYPE_CHECKING:
    from rlseq.agents import make_agent as make_agent
    from rlseq.auditing.audit import audit as audit
    from rlseq.compare.run import compare as compare
    from rlseq.discriminators import make_discriminator as make_discriminator
    from rlseq.engine.beam import Beam as Beam
    from rlseq.engine.beam import beam_search as beam_search
    from rlseq.engine.completions import complete as complete
    from rlseq.engine.decode import Greedy as Greedy
    from rlseq.engine.decode import Sample as Sample
    from rlseq.engine.evaluation import evaluate as evaluate
    from rlseq.engine.exposure_bias import exposure_bias as exposure_bias
    from rlseq.engine.generation import generate as generate
    from rlseq.engine.mbr import MBR as MBR
    from rlseq.engine.rollout import rollout as rollout
    from rlseq.mdp.sequence_env import SequenceEnv as SequenceEnv
    from rlseq.policies import make_policy as make_policy
    from rlseq.recipe.config import FitConfig as FitConfig
    from rlseq.recipe.fit import Fit as Fit
    from rlseq.recipe.fit import fit as fit
    from rlseq.recipe.tune import tune as tune
    from rlseq.recipe.tune_config import TuneConfig as TuneConfig
    from rlseq.training.config import TrainConfig as TrainConfig
    from rlseq.training.loop import train as train
    from rlseq.training.model import Model as Model
    from rlseq.training.model import load as load
    from rlseq.training.preflight import Preflight as Preflight
    from rlseq.training.preflight import preflight as preflight
    from rlseq.types import Rollout as Rollout
    from rlseq.vocab import Vocab as Vocab

_HOMES = {
    "Beam": "rlseq.engine.beam",
    "Fit": "rlseq.recipe.fit",
    "FitConfig": "rlseq.recipe.config",
    "Greedy": "rlseq.engine.decode",
    "MBR": "rlseq.engine.mbr",
    "Model": "rlseq.training.model",
    "Preflight": "rlseq.training.preflight",
    "Rollout": "rlseq.types",
    "Sample": "rlseq.engine.decode",
    "SequenceEnv": "rlseq.mdp.sequence_env",
    "TrainConfig": "rlseq.training.config",
    "TuneConfig": "rlseq.recipe.tune_config",
    "Vocab": "rlseq.vocab",
    "audit": "rlseq.auditing.audit",
    "beam_search": "rlseq.engine.beam",
    "complete": "rlseq.engine.completions",
    "evaluate": "rlseq.engine.evaluation",
    "exposure_bias": "rlseq.engine.exposure_bias",
    "fit": "rlseq.recipe.fit",
    "generate": "rlseq.engine.generation",
    "load": "rlseq.training.model",
    "make_agent": "rlseq.agents",
    "make_discriminator": "rlseq.discriminators",
    "make_policy": "rlseq.policies",
    "preflight": "rlseq.training.preflight",
    "rollout": "rlseq.engine.rollout",
    "train": "rlseq.training.loop",
    "tune": "rlseq.recipe.tune",
}
_MODULES = {
    "adapters": "rlseq.adapters",
    "agents": "rlseq.agents",
    "baselines": "rlseq.policy_gradient.baselines",
    "checkpoint": "rlseq.training.checkpoint",
    "compare": "rlseq.compare",
    "data": "rlseq.data",
    "discriminators": "rlseq.discriminators",
    "exact": "rlseq.policy_gradient.exact",
    "feedback": "rlseq.feedback",
    "inspection": "rlseq.data.inspection",
    "losses": "rlseq.policy_gradient.losses",
    "metrics": "rlseq.metrics",
    "policies": "rlseq.policies",
    "returns": "rlseq.policy_gradient.returns",
    "rewards": "rlseq.metrics.positional",
    "sb3": "rlseq.adapters.sb3",
    "testing": "rlseq.policies.testing",
    "types": "rlseq.types",
}

__all__ = ["__version__", "envs", "make", "register", *_HOMES, *_MODULES]


def make(
    id: str, num_envs: int = 1, device: Any = "cpu", seed: int | None = 0, **options: Any
) -> SequenceEnv:
    """See `rlseq.mdp.registry.make`."""
    from rlseq.mdp.registry import make

    return make(id, num_envs, device, seed, **options)  # type: ignore[no-any-return]


def __getattr__(name: str) -> Any:
    """Public names and modules, imported when they are first used."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _MODULES:
        return import_module(_MODULES[name])
    raise AttributeError(f"module 'rlseq' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the names that a shell offers after `rlseq.`."""
    return sorted(__all__)
