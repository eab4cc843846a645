"""Comparisons on Ray: by a stand-in everywhere, by Ray itself where it is installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import rlseq
from rlseq.compare import workers
from tests.compare.test_workers import without_seconds

SETTINGS: dict[str, Any] = {
    "envs": {"rlseq/Copy-v0": {"num_envs": 8, "length": 3, "vocab_size": 5}},
    "agents": ["mle", "rloo"],
    "policy": {"name": "gru", "hidden": 8, "embedding": 4},
    "budget_tokens": 600,
    "start": None,
    "evaluations": 2,
    "texts": 8,
    "seeds": 1,
    "quiet": True,
}


class RayOfOneProcess(SimpleNamespace):
    """Does at once what Ray would do elsewhere, and keeps errors until they are asked for."""

    def __init__(self) -> None:
        super().__init__(__version__="2.50.0", init=lambda **settings: None)

    def remote(self, **resources: Any) -> Any:
        def wrapped(work: Any) -> Any:
            def begun(*arguments: Any) -> Any:
                try:
                    return work(*arguments)
                except ValueError as error:
                    return error

            return SimpleNamespace(remote=begun)

        return wrapped

    def wait(self, tasks: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        return tasks, []

    def get(self, tasks: list[Any]) -> None:
        for task in tasks:
            if isinstance(task, Exception):
                raise task


def test_a_version_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(__version__="2.9.3"))
    with pytest.raises(ValueError, match=r"ray 2\.9\.3 is too old, wanted 2\.50 or newer"):
        rlseq.compare(**SETTINGS, executor="ray", out=tmp_path / "ray")
    assert not (tmp_path / "ray").exists()


def test_an_address_that_does_not_answer_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", RayOfOneProcess())
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ValueError, match=r"no Ray cluster answers at RAY_ADDRESS=127\.0\.0\.1:1 "):
        rlseq.compare(**SETTINGS, executor="ray", out=tmp_path / "ray")
    assert not (tmp_path / "ray").exists()


def test_a_comparison_whose_workers_have_all_ended_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ray", RayOfOneProcess())
    look = workers.by_ray(tmp_path, 2, 0.0)  # there is no comparison in this folder
    with pytest.raises(
        RuntimeError, match=r"all 2 workers on Ray have ended, the last with: .*no comparison"
    ):
        look()


def test_ray_makes_the_results_of_this_process(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    rlseq.compare(**SETTINGS, executor="ray", jobs=2, out=tmp_path / "ray")
    ray.shutdown()
    rlseq.compare(**SETTINGS, jobs=1, out=tmp_path / "local")
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("ray", "local")]
    assert results[0]["failed"] == []
    assert without_seconds(results[0]) == without_seconds(results[1])
