"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


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
