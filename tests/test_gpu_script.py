"""Times and gaps of `benchmarks/gpu.py`, which needs a GPU for all else (see `test_pretended_device.py`)."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu

    return gpu


def test_gaps_lie_between_kernels_of_any_stream(gpu: Any) -> None:
    kernels = [(0.0, 10.0, "a"), (5.0, 8.0, "b"), (20.0, 30.0, "c"), (30.0, 40.0, "a")]
    found = gpu.busy(kernels, updates=2)
    assert found["kernels"] == 2
    assert found["busy_seconds"] == pytest.approx(15e-6)
    assert found["share_of_gaps"] == pytest.approx(0.25)
    assert found["longest_gaps"] == [{"microseconds": 10.0, "after": "a", "before": "c"}]
    assert list(found["longest_kernels"]) == ["a", "c", "b"]
    assert gpu.busy([], 1)["share_of_gaps"] is None


def test_what_does_not_fit_or_fails_is_named(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def part(sizes: Any) -> Iterator[Any]:
        yield "fast", lambda: 1
        yield "wrong", lambda: 1 // 0
        yield "slow", lambda: time.sleep(20)

    monkeypatch.setattr(gpu, "PARTS", {"profile": part})
    saved: list[Any] = []
    found = gpu.measured(["profile"], 0.005, gpu.Sizes(), saved.append)
    assert found["profile"] == {"fast": 1}
    assert found["left_out"] == ["profile: slow"]
    assert list(found["failed"]) == ["profile: wrong"]
    assert len(saved) == 3


def test_the_shares_of_the_minutes_are_of_all_parts(gpu: Any) -> None:
    assert gpu.SHARES.keys() == gpu.PARTS.keys()
    assert sum(gpu.SHARES.values()) == pytest.approx(1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_machine_without_a_gpu_is_told_so(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit, match="this machine has no CUDA device"):
        gpu.main()
