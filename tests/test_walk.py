"""One update, traced: a reader who follows it enters few packages, and seldom goes back and forth."""

from __future__ import annotations

import importlib.util
from pathlib import Path

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "walk.py"


def test_an_update_stays_within_its_bars() -> None:
    spec = importlib.util.spec_from_file_location("walk", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    walk = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(walk)
    seen = walk.walk_of_update()
    assert len(set(seen)) <= walk.PACKAGES, seen
    assert len(seen) - 1 <= walk.SWITCHES, seen
