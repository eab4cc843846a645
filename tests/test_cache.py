from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from rlseq.data import cache


def test_the_key_is_that_of_content_and_settings(tmp_path: Path) -> None:
    a, b, c = (tmp_path / name for name in "abc")
    a.write_text("same")
    b.write_text("same")
    c.write_text("else")
    assert cache.key_of([a], {"x": 1}) == cache.key_of([b], {"x": 1})
    assert len({cache.key_of([f], {"x": n}) for f in (a, c) for n in (1, 2)}) == 4
    assert cache.key_of([a, c], {}) != cache.key_of([c, a], {})


def test_something_is_built_once(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("RLSEQ_CACHE", str(tmp_path / "deep" / "cache"))
    builds = []

    def build(folder: Path) -> None:
        builds.append(folder)
        (folder / "made").write_text("x")

    for _ in range(2):
        with cache.kept("key", build) as (folder, stays):
            assert (folder / "made").read_text() == "x"
            assert stays
    assert len(builds) == 1
    assert [path.name for path in (tmp_path / "deep" / "cache").iterdir()] == ["key"]


def test_nothing_half_made_stays(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("RLSEQ_CACHE", str(tmp_path))

    def build(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"), cache.kept("key", build):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", [None, "key"])
def test_without_a_cache_it_is_made_each_time(key: str | None, monkeypatch: Any) -> None:
    monkeypatch.setenv("RLSEQ_CACHE", "")
    with cache.kept(key, lambda folder: None) as (folder, stays):
        assert folder.is_dir()
        assert not stays
    assert not folder.exists()


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RLSEQ_CACHE", str(tmp_path / "file"))
    with (
        pytest.warns(UserWarning, match="set RLSEQ_CACHE to a folder that can be written"),
        cache.kept("key", lambda folder: None) as (_, stays),
    ):
        assert not stays


def test_the_home_is_where_others_keep_theirs(monkeypatch: Any) -> None:
    monkeypatch.delenv("RLSEQ_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache.home() == Path("/somewhere/rlseq")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.home() == Path.home() / ".cache" / "rlseq"


def test_columns_are_files_that_are_mapped(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(cache.ArrayWriter, "BLOCK", 4)
    small, wide, empty = (
        cache.ArrayWriter(tmp_path / name, kind)
        for name, kind in (("s", torch.int32), ("w", torch.int64), ("e", torch.int32))
    )
    for n in range(10):
        small.extend([n, -n])
        wide.extend([n << 40])
    assert small.close().tolist() == [x for n in range(10) for x in (n, -n)]
    assert wide.close().tolist() == [n << 40 for n in range(10)]
    assert (empty.close().shape, empty.close().dtype) == ((0,), torch.int32)
    before = (tmp_path / "s").read_bytes()
    cache.mapped(tmp_path / "s", torch.int32).zero_()
    assert (tmp_path / "s").read_bytes() == before


BUILDER = """
import sys, time
from pathlib import Path
from rlseq.data import cache
def build(folder):
    (folder / "half").write_text("x")
    print("built", flush=True)
    sys.stdin.readline()
with cache.kept(sys.argv[1], build): pass
"""


@contextmanager
def builder(key: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is about to complete what it builds."""
    command = [sys.executable, "-c", BUILDER, key]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"built\n"
        yield process


def test_what_a_kill_leaves_is_removed_by_the_next_builder(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("RLSEQ_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "FRESH", -1.0)  # every draft is old enough to be looked at
    with builder("killed") as process:
        process.kill()
    (left,) = tmp_path.iterdir()
    (tmp_path / "tmp123").mkdir()
    (tmp_path / f"{cache.DRAFT}link").symlink_to(tmp_path / "tmp123")
    with builder("other") as process:
        with cache.kept("key", lambda folder: None):
            assert not left.exists()
        drafts = [path for path in tmp_path.glob(f"{cache.DRAFT}*") if not path.is_symlink()]
        assert len(drafts) == 1, "the other process goes on with its draft"
        process.communicate(b"\n")
        assert process.returncode == 0
    assert (tmp_path / "other" / "half").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"key", "other", "tmp123", f"{cache.DRAFT}link"}


def test_a_draft_that_is_not_locked_yet_is_left(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("RLSEQ_CACHE", str(tmp_path))
    (tmp_path / f"{cache.DRAFT}new").mkdir()
    with cache.kept("key", lambda folder: None):
        assert (tmp_path / f"{cache.DRAFT}new").exists()


@pytest.mark.parametrize(("key", "setting"), [("key", "RLSEQ_CACHE"), (None, "TMPDIR")])
def test_a_full_disk_is_named(key: str | None, setting: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("RLSEQ_CACHE", str(tmp_path))

    def build(folder: Path) -> None:
        (folder / "full").symlink_to("/dev/full")
        column = cache.ArrayWriter(folder / "full", torch.int64)
        column.extend([1])
        column.close()

    message = (
        rf"no space is left in /.* for the data.*; make room, or set {setting} to a folder on another disk"
    )
    with pytest.raises(OSError, match=message) as told, cache.kept(key, build):
        pass
    assert told.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())
