"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import rlseq


@pytest.fixture(autouse=True, scope="session")
def _cached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What tests read is kept for the session, and nowhere else."""
    before, place = os.environ.get("RLSEQ_CACHE"), tmp_path_factory.mktemp("cache")
    os.environ["RLSEQ_CACHE"] = str(place)
    yield place
    if before is None:
        del os.environ["RLSEQ_CACHE"]
    else:
        os.environ["RLSEQ_CACHE"] = before


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # tiny tensors: a second thread only waits


class Tiny:
    """Makes tasks small enough to enumerate, with references, and a policy away from uniform."""

    def __call__(self, *, rows: int = 64, sharp: float = 3.0, **options: Any) -> tuple[Any, Any]:
        """A task of two contexts, where no other number is given, and a policy with a value head."""
        env = rlseq.make("rlseq/Enumerable-v0", num_envs=rows, **{"sources": 2, **options})
        texts = torch.tensor([[[1, 2, 1]], [[2, 1, 0]]])[: env.size, :, : env.max_len]
        env.items["references"] = texts.clamp(max=len(env.vocab) - 1)
        env.items["reference_lengths"] = torch.full((env.size, 1), env.max_len)
        return env, self.policy(env, sharp)

    def policy(self, env: Any, sharp: float = 3.0, seed: int = 0) -> Any:
        """An LSTM whose weights are large, so that mistakes cannot hide in uniform probabilities."""
        policy = rlseq.make_policy("lstm", env, hidden=4, embedding=3, value=True, seed=seed)
        with torch.no_grad():
            for p in policy.parameters():
                p.mul_(sharp)
        return policy


@pytest.fixture
def tiny() -> Tiny:
    return Tiny()
