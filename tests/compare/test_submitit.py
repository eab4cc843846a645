"""Comparisons by workers that submitit starts, in its local mode, where it is installed."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import rlseq
from rlseq.compare import workers
from tests.compare.test_ray import SETTINGS
from tests.compare.test_workers import without_seconds


def test_workers_of_submitit_make_the_results_of_this_process(tmp_path: Path) -> None:
    submitit = pytest.importorskip("submitit")
    settings: dict[str, Any] = {**SETTINGS, "executor": "workers", "out": tmp_path / "shared"}
    waiting = threading.Thread(target=rlseq.compare, kwargs=settings)
    waiting.start()
    while not (tmp_path / "shared" / "config.json").exists():
        time.sleep(0.05)
    executor = submitit.LocalExecutor(folder=tmp_path / "logs")
    executor.update_parameters(timeout_min=5)
    jobs = [executor.submit(workers.work, str(tmp_path / "shared")) for _ in range(2)]
    assert sum(job.result() for job in jobs) == 2
    waiting.join()
    rlseq.compare(**SETTINGS, jobs=1, out=tmp_path / "local")
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("shared", "local")]
    assert without_seconds(results[0]) == without_seconds(results[1])
