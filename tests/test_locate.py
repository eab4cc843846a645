"""Which files a path stands for, and what is refused."""

from __future__ import annotations

import gzip
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rlseq
from rlseq.data.formats import DataError, Pair
from rlseq.data.locate import TEXTS, by_seed, find, origin


def write(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content, "utf-8")
    return folder


def named(folder: Path, names: str) -> Path:
    """Files of these names, each with its name for a line."""
    for name in names.split():
        (folder / name).write_text(f"{name}\n")
    return folder


def pairs(path: object) -> dict[str, list[tuple[str | None, str]]]:
    found = find(path)  # type: ignore[arg-type]
    return {
        part: [(row.source, row.target) for row in origin.read() if isinstance(row, Pair)]
        for part, origin in found.items()
    }


def test_one_file_is_divided_by_seed(tmp_path: Path) -> None:
    line = '{"source": "a", "target": "b"}\n'
    write(tmp_path, a__tsv="a\tb\n", b__jsonl=line, c__ndjson=line)
    for name in ("a.tsv", "b.jsonl", "c.ndjson"):
        assert pairs(tmp_path / name) == pairs(str(tmp_path / name)) == {"all": [("a", "b")]}, name


@pytest.mark.parametrize("dev", ["dev", "valid", "val", "validation"])
def test_a_folder_is_divided_by_its_files(dev: str, tmp_path: Path) -> None:
    write(tmp_path, train__tsv="a\tb\n", test__tsv="e\tf\n")
    (tmp_path / f"{dev}.tsv").write_text("c\td\n")
    wanted = {"train": [("a", "b")], "dev": [("c", "d")], "test": [("e", "f")]}
    assert pairs(tmp_path) == wanted
    assert pairs({name: tmp_path / f"{dev if name == 'dev' else name}.tsv" for name in wanted}) == wanted
    with pytest.raises(
        DataError, match=rf'expected the folder .* as {dev}.tsv, test.tsv .*path="{tmp_path}"'
    ):
        find(tmp_path / "train.tsv")
    assert pairs({"train": tmp_path / "train.tsv"}) == {"train": [("a", "b")]}


def test_parts_may_have_different_formats(tmp_path: Path) -> None:
    write(tmp_path, train__tsv="a\tb\n", valid__jsonl='{"source": "c", "target": "d"}\n')
    write(tmp_path, test__src="e\n", test__ref0="f\n", test__ref1="g\n")
    wanted = {"train": [("a", "b")], "dev": [("c", "d")], "test": [("e", "f"), ("e", "g")]}
    assert pairs(tmp_path) == wanted


def test_what_is_no_data_is_no_part(tmp_path: Path) -> None:
    write(tmp_path, train__tsv="a\tb\n", train="#!/bin/sh\n", train__txt="notes\n", val__log="", dev__md="")
    assert pairs(tmp_path) == {"train": [("a", "b")]}


@pytest.mark.parametrize(
    "references",
    [
        "tgt",
        "ref",
        "ref0 ref1",
        "ref.0 ref.1",
        "ref1 ref2 ref3",
        "tgt.0 tgt.1",
        *[" ".join(f"ref.{n}" for n in range(12))],
    ],
)
def test_roles_that_are_spelled_out(references: str, tmp_path: Path) -> None:
    names = ["src", *references.split()]
    named(tmp_path, " ".join(f"{part}.{name}" for part in ("x", "train", "dev") for name in names))
    named(tmp_path, "x.de x.out x.refs x.src.0 y.ref x.ref0.bak")
    for part in ("x", "train", "dev"):
        (tmp_path / f"{part}.refx").write_text("no role\n")
    wanted = [("x.src", f"x.{name}") for name in names[1:]]
    assert pairs(tmp_path / "x.src") == {"all": wanted}
    assert pairs([tmp_path / f"x.{name}" for name in names]) == {"all": wanted}
    assert pairs(tmp_path) == {
        part: [(f"{part}.src", f"{part}.{name}") for name in names[1:]] for part in ("train", "dev")
    }


@pytest.mark.parametrize(
    "references",
    ["tgt ref", "tgt ref0", "ref ref0", "ref ref.0", "ref0 ref.0", "ref0 ref2", "ref.0 ref1 ref.3"],
)
def test_references_that_may_be_others_are_refused(references: str, tmp_path: Path) -> None:
    names = [f"train.{name}" for name in references.split()]
    named(tmp_path, " ".join(["train.src", *names]))
    for path in (tmp_path, tmp_path / "train.src"):
        with pytest.raises(DataError, match=r"train.src: expected one .tgt or .ref, .*; name the references"):
            find(path)
    files = [tmp_path / name for name in ("train.src", *names)]
    wanted = [("train.src", name) for name in names]
    assert pairs(files) == {"all": wanted}
    assert pairs({"train": tuple(files)}) == {"train": wanted}


@pytest.mark.parametrize(
    ("files", "path", "message"),
    [
        (
            {"x__txt": "a\tb"},
            "x.txt",
            r"x.txt:1: expected a file .tsv, .*path=\[.*got .txt; .* rename it to x.tsv",
        ),
        ({"x__csv": "a,b"}, "x.csv", r"x.csv:1: expected a file .tsv, .jsonl"),
        ({"x": "a\tb"}, "x", r"x:1: expected a file .tsv, .* got no suffix; .* rename it to x.tsv"),
        ({"x__en": "a", "x__de": "b"}, "x.en", r'x.en:1: expected .* path=\["x.en", "x.de"\]; .* got .en'),
        ({"x__src": "a", "x__ref": "b"}, "x.ref", r"x.ref:1: expected a file .tsv, .* got .ref"),
        ({"x__TSV": "a\tb"}, "x.TSV", r"got .TSV; .* rename it to x.tsv"),
        ({"x__json": "{}"}, "x.json", r"x.json:1: .* got .json; write one object a line, to x.jsonl"),
        ({"train__tsv": "a\tb", "train__jsonl": "{}"}, "", r"which is train, train.tsv or train.jsonl\?"),
        (
            {"train__tsv": "a\tb", "train__src": "a", "train__ref": "b"},
            "",
            r"which is train, train.tsv or train.src\? name the parts: path=",
        ),
        (
            {"train__tsv": "a\tb", "dev__tsv": "c\td", "valid__tsv": "e\tf"},
            "",
            r"which is dev, dev.tsv or valid.tsv\? name the parts: path={.train.: …, .dev.: …}",
        ),
        ({"train__tsv__gz": "a"}, "", r"got train.tsv.gz; unpack what ends in .gz: gunzip"),
        ({"dev__tsv": "a\tb"}, "", r"expected a file train.tsv or .* or train.src, got dev.tsv"),
        ({"train__en": "a", "train__de": "b"}, "", r"or train.src, got train.de, train.en"),
        ({"train__src": "a", "train__tgt": "b", "test__src": "c"}, "train.src", "as test.src lies beside it"),
    ],
)
def test_what_would_be_a_guess_is_refused(
    files: dict[str, str], path: str, message: str, tmp_path: Path
) -> None:
    write(tmp_path, **files)
    with pytest.raises(DataError, match=message):
        find(tmp_path / path)


@pytest.mark.parametrize(
    ("files", "path", "message"),
    [
        ("x.src", "x.src", r"no such file: x.tgt, x.ref, or x.ref0, x.ref1, …, the references of .*x\.src"),
        ("train.src", "", r"no such file: train.tgt, .*, the references of .*/train\.src"),
        ("x.src x.ref.0", "x", r"no such file: .*/x; did you mean 'x.ref.0' or 'x.src'\?"),
        ("x.tsv", "x", r"no such file: .*/x; did you mean 'x.tsv'\?"),
        ("pairs.tsv", "pears.tsv", r"no such file: .*/pears.tsv; did you mean 'pairs.tsv'\?"),
        ("", "x" * 5000, r"no such file: .*x… \(5,\d+ characters\)$"),
    ],
)
def test_files_that_are_not_there(files: str, path: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=message):
        find(named(tmp_path, files) / path)


def test_lists_and_parts_with_files_that_are_not_there(tmp_path: Path) -> None:
    named(tmp_path, "x.src x.ref.0")
    with pytest.raises(FileNotFoundError, match=r"x\.ref; did you mean 'x.ref.0'"):
        find([tmp_path / "x.src", tmp_path / "x.ref"])
    with pytest.raises(FileNotFoundError, match="no such file"):
        find("/nowhere/at/all")
    with pytest.raises(ValueError, match=r"parts train, dev, test, and train at least, got \['dev'\]"):
        find({"dev": tmp_path / "pairs.tsv"})


def test_what_is_there_and_is_no_file(tmp_path: Path) -> None:
    write(tmp_path, x__src="a\n")
    os.mkfifo(tmp_path / "ff")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()
    for name, got in (("ff", "a pipe or a device"), ("link", "a link to what is not there: nowhere")):
        for path in (tmp_path / name, [tmp_path / "x.src", tmp_path / name]):
            with pytest.raises(FileNotFoundError, match=f"{name}: expected a file, got {got}"):
                find(path)
    for where in ([tmp_path / "x.src", tmp_path / "folder"], {"train": tmp_path / "folder"}):
        with pytest.raises(FileNotFoundError, match="folder: expected a file, got a folder"):
            pairs(where)
    with pytest.raises(FileNotFoundError, match="/: expected a file, got a folder"):
        pairs({"train": "/"})


def test_a_packed_file_is_to_be_unpacked(tmp_path: Path) -> None:
    for name in ("a.tsv.gz", "a2.tsv.gz"):
        (tmp_path / name).write_bytes(gzip.compress(b"a\tb\n", mtime=0))
    for path in ("a.tsv", "a"):
        what = f"no such file: {tmp_path}/{path}; a.tsv.gz is packed, unpack it: gunzip {tmp_path}/a.tsv.gz"
        with pytest.raises(FileNotFoundError, match=re.escape(what)):
            find(tmp_path / path)
    with pytest.raises(DataError, match=r"got .gz; unpack it: gunzip .*/a\.tsv\.gz"):
        find(tmp_path / "a.tsv.gz")
    (tmp_path / "a.tsv.gz").rename(tmp_path / "a.tsv")
    (problem,) = find(tmp_path / "a.tsv")["all"].read()
    assert "a.tsv:1: expected UTF-8, got gzip; unpack it: gunzip <" in str(problem)


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, train__tsv="a\tb\n", x__src="a\n", x__ref="b\n", words__dict="a B\n" * 20)
    wanted = [("a", "b")]
    for path in ("~/train.tsv", Path("~/train.tsv"), ["~/x.src", Path("~/x.ref")], "~/x.src"):
        assert pairs(path) == {"all": wanted}
    assert pairs("~") == pairs({"train": Path("~/train.tsv")}) == {"train": wanted}
    assert rlseq.make("rlseq/G2P-v0", path="~/words.dict").size == 1


@pytest.mark.parametrize(
    ("path", "error", "got"),
    [
        (5, TypeError, "path must be a file, a folder, a list .*; got int: 5"),
        (b"x", TypeError, "path must be .*; got bytes: b'x'"),
        ({"a", "b"}, TypeError, "path must be .*; got set"),
        (["a.tsv", None], TypeError, "path must be .*; got NoneType"),
        ({"train": "a.tsv", "dev": None}, TypeError, "path must be .*; got NoneType"),
        ([], ValueError, r"expected path=\[source, references, …\], got \[\]"),
        (["a.tsv"], ValueError, r"expected path=\[source, references, …\], got \['a.tsv'\]"),
        ({"train": ()}, ValueError, r"expected path=\[source, references, …\], got \(\)"),
    ],
)
def test_what_is_no_path(
    path: object, error: type[Exception], got: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(write(tmp_path, a__tsv="b\tc\n"))
    with pytest.raises(error, match=got):
        pairs(path)


def test_texts_need_no_tab(tmp_path: Path) -> None:
    write(tmp_path, a__txt="one\ntwo\n", b__md="three\n", c="four\n")
    for name, texts in (("a.txt", ["one", "two"]), ("b.md", ["three"]), ("c", ["four"])):
        read = origin(tmp_path / name, TEXTS).read()
        assert [row.target for row in read if isinstance(row, Pair)] == texts
    write(tmp_path, train__tsv="a\tb\n", train="five\n")
    with pytest.raises(
        DataError, match=r"expected a file train\.txt, got a\.txt, b\.md, c, train, train\.tsv"
    ):
        find(tmp_path, TEXTS)
    write(tmp_path, train__txt="six\n", dev__txt="seven\n")
    assert set(find(tmp_path, TEXTS)) == {"train", "dev"}


def test_a_seed_gives_exact_shares() -> None:
    keys = np.random.default_rng(0).integers(0, 2**63, 200).astype(np.uint64)
    part = by_seed(keys)
    assert np.bincount(part).tolist() == [170, 10, 20]
    changed = (by_seed(np.append(keys, np.uint64(7)))[:200] != part).sum()
    assert changed <= 2, "a new line moves few others"
