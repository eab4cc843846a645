from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

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


def test_columns_become_a_safetensors_file(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(cache.Column, "BLOCK", 4)
    small, wide, empty = (
        cache.Column(tmp_path / name, kind) for name, kind in (("s", "I32"), ("w", "I64"), ("e", "I32"))
    )
    for n in range(10):
        small.extend([n, -n])
        wide.extend([n << 40])
    wide.put(torch.arange(3).numpy())
    columns = {"small": small, "wide": wide, "empty": empty}
    assert [len(column.close()) for column in columns.values()] == [20, 13, 0]
    cache.save(tmp_path / "all.safetensors", columns)
    read = load_file(tmp_path / "all.safetensors")
    assert read["small"].tolist() == [x for n in range(10) for x in (n, -n)]
    assert read["wide"].tolist() == [*(n << 40 for n in range(10)), 0, 1, 2]
    assert (read["empty"].shape, read["empty"].dtype) == ((0,), torch.int32)
    assert [path.name for path in tmp_path.iterdir()] == ["all.safetensors"]
