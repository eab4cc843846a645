"""One small comparison that the tests of this folder look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import rlseq

SMALL: dict[str, Any] = {
    "envs": {"rlseq/Copy-v0": {"items": 40, "length": 3, "num_envs": 16}},
    "agents": {
        "mle": {},
        "reinforce": {"lr": 1e-2},
        "sb3-a2c": {},
        "broken": {"agent": "scst", "reward": "boom"},
    },
    "seeds": 2,
    "budget_tokens": 1500,
    "policy": {"name": "gru", "hidden": 16, "embedding": 8},
    "start_tokens": 1500,
    "start_hyper": {"lr": 1e-2},
    "metrics": ["exact", "bleu"],
    "rewards": ["exact"],
    "control": "constant",
    "temperatures": True,
    "evaluations": 3,
    "texts": 20,
    "jobs": 2,
}


def small(out: Path, **changes: Any) -> Any:
    settings = {**SMALL, "agents": {k: v for k, v in SMALL["agents"].items() if k != "broken"}}
    return rlseq.compare(**{**settings, **changes, "out": out})


@pytest.fixture(scope="session")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return small(tmp_path_factory.mktemp("comparison"))
