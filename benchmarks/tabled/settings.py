"""The settings of the library, from the dataclasses that document them."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

from rlseq.compare.plan import ComparisonConfig
from rlseq.feedback import LabelConfig, RewardModelConfig
from rlseq.recipe.config import FitConfig
from rlseq.recipe.tune_config import TuneConfig
from rlseq.training.config import TrainConfig
from rlseq.utils.settings import descriptions
from tabled import markdown


def training() -> str:
    """The fields of `TrainConfig`."""
    return settings(TrainConfig)


def fit() -> str:
    """The fields of `FitConfig`."""
    return settings(FitConfig)


def tune() -> str:
    """The fields of `TuneConfig`."""
    return settings(TuneConfig)


def comparison() -> str:
    """The fields of `ComparisonConfig`."""
    return settings(ComparisonConfig)


def labelling() -> str:
    """The settings of `rlseq label`."""
    return settings(LabelConfig)


def reward_model() -> str:
    """The settings of `rlseq reward-model`."""
    return settings(RewardModelConfig)


def settings(cls: Any) -> str:
    """Every field of a dataclass, its default and its description."""
    texts = descriptions(cls)
    rows = [
        [f"`{field.name}`", "" if field.default is MISSING else f"`{field.default!r}`", texts[field.name]]
        for field in fields(cls)
    ]
    return markdown(["setting", "default", "meaning"], rows).replace("---:", "---")
