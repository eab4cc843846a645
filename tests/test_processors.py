"""The processors that a process may use, and the threads of numerical libraries."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

import pytest

from rlseq.utils import processors


def group(root: Path, name: str, **files: str) -> None:
    (root / name).mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        (root / name / file.replace("__", ".")).write_text(content, "utf-8")


def listed(root: Path, text: str) -> Path:
    (root / "own").write_text(text, "utf-8")
    return root / "own"


@pytest.mark.parametrize(
    ("limit", "found"), [("200000 100000\n", 2.0), ("150000 100000\n", 1.5), ("max 100000\n", math.inf)]
)
def test_version_2_has_one_file(tmp_path: Path, limit: str, found: float) -> None:
    group(tmp_path, "job/mine", cpu__max=limit)
    assert processors.quota(tmp_path, listed(tmp_path, "0::/job/mine\n")) == found


def test_the_least_of_all_groups_above_counts(tmp_path: Path) -> None:
    group(tmp_path, "job", cpu__max="100000 100000")
    group(tmp_path, "job/mine", cpu__max="800000 100000")
    assert processors.quota(tmp_path, listed(tmp_path, "0::/job/mine\n")) == 1


@pytest.mark.parametrize(("limit", "found"), [("300000", 3.0), ("-1", math.inf)])
def test_version_1_has_two_files_which_a_container_sees_at_the_root(
    tmp_path: Path, limit: str, found: float
) -> None:
    group(tmp_path, "cpu", cpu__cfs_quota_us=limit, cpu__cfs_period_us="100000")
    own = listed(tmp_path, "4:memory:/docker/ab\n3:cpu,cpuacct:/docker/ab\n0::/\n")
    assert processors.quota(tmp_path, own) == found


def test_without_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert processors.quota(tmp_path, tmp_path / "missing") == math.inf
    assert processors.quota(tmp_path, listed(tmp_path, "0::/\n")) == math.inf


@pytest.mark.parametrize(
    ("limit", "given", "set"), [(1.5, None, "2"), (1.5, "3", "3"), (math.inf, None, None)]
)
def test_threads_follow_the_limit_unless_the_user_has_set_them(
    monkeypatch: pytest.MonkeyPatch, limit: float, given: str | None, set: str | None
) -> None:
    monkeypatch.setattr(processors, "quota", lambda groups, own: limit)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(8), raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv(processors.THREADS, given or "")
    if given is None:
        monkeypatch.delenv(processors.THREADS)
    processors.limit_threads()
    assert os.environ.get(processors.THREADS) == set
