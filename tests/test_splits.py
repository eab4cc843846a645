"""What a path leads to."""

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


def pairs(path: object) -> dict[str, list[tuple[str | None, str]]]:
    found = find(path)  # type: ignore[arg-type]
    return {
        part: [(row.source, row.target) for row in origin.read() if isinstance(row, Pair)]
        for part, origin in found.items()
    }


def test_one_file_is_divided_by_seed(tmp_path: Path) -> None:
    write(tmp_path, a__tsv="a\tb\n", b__jsonl='{"source": "a", "target": "b"}\n', c__txt="a\tb\n")
    for name in ("a.tsv", "b.jsonl", "c.txt", "a", "b"):
        assert pairs(tmp_path / name) == {"all": [("a", "b")]}, name


@pytest.mark.parametrize("dev", ["dev", "valid", "val", "validation"])
def test_a_folder_is_divided_by_its_files(dev: str, tmp_path: Path) -> None:
    write(tmp_path, train__tsv="a\tb\n", test__tsv="e\tf\n")
    (tmp_path / f"{dev}.tsv").write_text("c\td\n")
    wanted = {"train": [("a", "b")], "dev": [("c", "d")], "test": [("e", "f")]}
    assert pairs(tmp_path) == pairs(str(tmp_path / "train.tsv")) == wanted
    assert pairs({name: tmp_path / f"{dev if name == 'dev' else name}.tsv" for name in wanted}) == wanted


ALIGNED = {
    "one": ["src", "ref"],
    "two": ["src", "tgt"],
    "three": ["en", "de.0", "de.1"],
    "four": ["src", "ref.1", "ref.2"],
}


@pytest.mark.parametrize("names", ALIGNED.values(), ids=ALIGNED)
def test_aligned_files_by_their_beginning(names: list[str], tmp_path: Path) -> None:
    for i, name in enumerate(names):
        (tmp_path / f"x.{name}").write_text(f"a{i}\nb{i}\n")
    wanted = [(f"{letter}0", f"{letter}{i}") for letter in "ab" for i in range(1, len(names))]
    assert pairs(tmp_path / "x") == {"all": wanted}
    assert pairs(tmp_path / f"x.{names[0]}") == {"all": wanted}
    assert pairs([tmp_path / f"x.{name}" for name in names]) == {"all": wanted}
    stem = names[1].split(".")[0]
    assert pairs([tmp_path / f"x.{names[0]}", tmp_path / f"x.{stem}"]) == {"all": wanted}


def test_a_folder_of_aligned_files(tmp_path: Path) -> None:
    for part in ("train", "dev"):
        for name in ("src", "ref.0", "ref.1"):
            (tmp_path / f"{part}.{name}").write_text(f"{part} {name}\n")
    wanted = {part: [(f"{part} src", f"{part} ref.{i}") for i in (0, 1)] for part in ("train", "dev")}
    assert pairs(tmp_path) == pairs(tmp_path / "train") == pairs(tmp_path / "train.src") == wanted


@pytest.mark.parametrize(
    ("files", "path", "message"),
    [
        ({"x__en": "a", "x__de": "b"}, "x", r"which of x.de, x.en is source, which reference\? .*path=\["),
        (
            {"x__src": "a", "x__ref__0": "b", "x__ref__2": "c"},
            "x",
            r"numbered one after the other, got .\[0, 2\]",
        ),
        (
            {"x__txt": "no tab"},
            "x.txt",
            r"x.txt:1: expected source TAB reference, got no tab in its first line; .*path=\[",
        ),
        ({"x__csv": "a,b"}, "x.csv", r"x.csv:1: expected source TAB reference"),
        ({"x__src": "a", "x__ref": "b", "x__ref__0": "c"}, "x", r"x.ref: which .*, x.ref or x.ref.0\?"),
        ({"x__src": "a", "x__ref": "b", "x__ref__0": "c"}, "x.src", r"x.ref: which .*, x.ref or x.ref.0\?"),
        ({"x__src__0": "a", "x__src__1": "b", "x__ref": "c"}, "x", "one source file, got x.src.0, x.src.1"),
        ({"x__src": "a", "x__ref__0": "b"}, "x.ref.0", r'x.ref.0: this is a reference file; .*path=".*/x"'),
        ({"x__en": "a", "x__de__0": "b"}, "x.de.0", r'x.de.0: this is a reference file; .*path=".*/x"'),
        ({"x__src": "a", "x__ref": "b"}, "x.ref", r'x.ref: this is a reference file; .*path=".*/x"'),
        (
            {"x__tsv": "a\tb", "x__jsonl": "{}"},
            "x",
            r"x: which is meant, x.tsv or x.jsonl\? .*path=\".*/x.tsv",
        ),
        ({"x__tsv": "a\tb", "x__txt": "a\tb"}, "x", "which is meant, x.tsv or x.txt"),
        ({"x__tsv": "a\tb", "x__src": "a", "x__ref": "b"}, "x", r"meant, x.tsv or x.ref \+ x.src"),
        ({"train__tsv": "a\tb", "train__jsonl": "{}"}, "", "train: which is meant, train.tsv or train.jsonl"),
        (
            {"train__tsv": "a\tb", "train__src": "a", "train__ref": "b"},
            "",
            r"train.tsv or train.ref \+ train.src",
        ),
        (
            {"train__tsv": "a\tb", "dev__tsv": "c\td", "dev__jsonl": "{}"},
            "",
            "dev: which .*dev.tsv or dev.js",
        ),
        (
            {"train__tsv": "a\tb", "dev__tsv": "c\td", "valid__tsv": "e\tf"},
            "",
            r"which is dev, dev.tsv or valid.tsv\? name the parts: path={.train.: …, .dev.: …}",
        ),
        (
            {"train__tsv": "a\tb", "valid__tsv": "c\td", "val__tsv": "e\tf"},
            "train.tsv",
            "which is dev, valid.tsv or val.tsv",
        ),
        (
            {f"{name}__{side}": "a" for name in ("train", "dev", "val") for side in ("src", "ref")},
            "train",
            r"which is dev, dev.ref \+ dev.src or val.ref \+ val.src",
        ),
        ({"train__tsv__gz": "a"}, "", r"got train.tsv.gz; unpack what ends in .gz: gunzip"),
        (
            {"x__json": '{"source": "a"}\n'},
            "x.json",
            r"x.json:1: .* got a JSON object; .* rename it to x.jsonl",
        ),
        ({"x__txt": '{"source": "a"}\n'}, "x", r"x.txt:1: .* got a JSON object; .* rename it to x.jsonl"),
        (
            {"x__json": "[\n"},
            "x.json",
            r"x.json:1: .* got JSON of many lines; write one object a line, to x.jsonl",
        ),
        ({"x__en": "caf\xe9"}, "x.en", "x.en:1: expected UTF-8, got byte 0xe9"),
        ({"train__en": "a", "train__de": "b", "dev__fr": "c"}, "", r"which of .*path=\".*/train.en\""),
        (
            {"dev__tsv": "a\tb"},
            "",
            r"expected a file train.tsv or train.jsonl or .* or train.src with train.ref, got dev.tsv",
        ),
    ],
)
def test_paths_that_lead_nowhere(files: dict[str, str], path: str, message: str, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name.replace("__", ".")).write_text(content, "latin-1")
    with pytest.raises(DataError, match=message):
        find(tmp_path / path)


@pytest.mark.parametrize("name", ["sp.txt", "sp.en", "sp"])
def test_only_sides_of_texts_are_taken_for_references(name: str, tmp_path: Path) -> None:
    write(tmp_path, **{name.replace(".", "__"): "no tab\n"})
    for beside in ("tsv", "log", "md", "csv", "json", "gz", "h5", "yaml", "py", "bak", "formal", "0"):
        write(tmp_path, **{f"sp__{beside}": "no tab\n"})
    with pytest.raises(DataError, match=rf"{name}:1: expected source TAB reference, got no tab"):
        find(tmp_path / name)


@pytest.mark.parametrize("name", ["de", "zh", "pt-br", "deu", "zh_Hans", "tgt"])
def test_languages_are_sides(name: str, tmp_path: Path) -> None:
    write(tmp_path, **{"x__en": "a\n", f"x__{name}": "b\n", "x__log": "c\n", "x__tsv": "d\n"})
    assert pairs(tmp_path / "x.en") == {"all": [("a", "b")]}


def test_a_file_that_is_named_is_read(tmp_path: Path) -> None:
    write(tmp_path, x="a\tb\n", x__tsv="c\td\n", x__jsonl="{}\n", x__src="e\n", x__ref="f\n")
    assert pairs(tmp_path / "x") == {"all": [("a", "b")]}
    assert pairs(tmp_path / "x.tsv") == {"all": [("c", "d")]}
    assert pairs(tmp_path / "x.src") == {"all": [("e", "f")]}


def test_what_is_no_data_is_no_other_way(tmp_path: Path) -> None:
    write(tmp_path, train__tsv="a\tb\n", train__txt="notes\n", train__log="", val__log="", dev__md="")
    assert pairs(tmp_path) == {"train": [("a", "b")]}
    write(tmp_path, dev__tsv="c\td\n")
    assert pairs(tmp_path) == pairs(tmp_path / "train") == {"train": [("a", "b")], "dev": [("c", "d")]}


def test_parts_have_the_same_sides(tmp_path: Path) -> None:
    write(
        tmp_path,
        train__en="a\n",
        train__de="b\n",
        dev__en="c\n",
        dev__fr="d\n",
        test__en="e\n",
        test__de="f\n",
    )
    with pytest.raises(
        DataError, match=r"the same sides .* train.en with train.de, dev.en with dev.fr; name"
    ):
        find(tmp_path / "train.en")
    (tmp_path / "dev.fr").rename(tmp_path / "dev.de")
    assert pairs(tmp_path / "train.en")["dev"] == [("c", "d")]


def test_roles_have_several_names(tmp_path: Path) -> None:
    write(tmp_path, train__src="a\n", train__ref__0="b\n", test__input="c\n", test__output="d\n")
    assert pairs(tmp_path) == {"train": [("a", "b")], "test": [("c", "d")]}


def test_a_folder_of_texts_with_tabs(tmp_path: Path) -> None:
    write(tmp_path, train__txt="a\tb\n", dev__txt="c\td\n")
    assert pairs(tmp_path) == pairs(tmp_path / "train.txt") == {"train": [("a", "b")], "dev": [("c", "d")]}


def test_parts_without_training(tmp_path: Path) -> None:
    write(tmp_path, dev__tsv="a\tb\n", test__tsv="c\td\n")
    with pytest.raises(FileNotFoundError, match=r"no such file: .*train\.tsv"):
        find(tmp_path / "train.tsv")


def test_references_by_number_are_in_their_order(tmp_path: Path) -> None:
    write(tmp_path, x__src="a\n", **{f"x__ref__{n}": f"{n}\n" for n in range(12)})
    assert pairs(tmp_path / "x") == {"all": [("a", str(n)) for n in range(12)]}


def test_files_that_are_named_are_not_asked_about(tmp_path: Path) -> None:
    write(tmp_path, x__src="a\n", x__ref="b\n", x__ref__0="c\n")
    assert pairs([tmp_path / "x.src", tmp_path / "x.ref"]) == {"all": [("a", "b")]}


@pytest.mark.parametrize(
    ("there", "path", "message"),
    [
        ("src", "x.src", r"no such file: .*x\.ref, or .*x\.ref\.0, .*the references of .*x\.src"),
        ("src", "x", r"no such file: .*x\.ref, or .*x\.ref\.0, .*the references of .*x\.src"),
        ("formal", "x", r"no such file: .*/x; expected x\.tsv or .* x\.ref, got x\.formal; .*path=\["),
        ("ref.0", "x.ref", "x.ref: this is a reference file"),
        ("ref", "x", r"no such file: .*x\.src, the source of x\.ref"),
        ("ref.0", "x", r"no such file: .*x\.src, the source of x\.ref\.0"),
    ],
)
def test_one_side_alone(there: str, path: str, message: str, tmp_path: Path) -> None:
    (tmp_path / f"x.{there}").write_text("a\n")
    with pytest.raises((FileNotFoundError, DataError), match=message):
        find(tmp_path / path)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    write(tmp_path, pairs__tsv="a\tb\n", x__src="a\n")
    with pytest.raises(
        FileNotFoundError, match=rf"{re.escape(str(tmp_path))}/pears.tsv; did you mean 'pairs.tsv'"
    ):
        find(tmp_path / "pears.tsv")
    with pytest.raises(FileNotFoundError, match=r"x\.ref"):
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


@pytest.mark.parametrize("path", ["a.tsv", "a"])
def test_a_packed_file_is_to_be_unpacked(path: str, tmp_path: Path) -> None:
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(b"a\tb\n", mtime=0))
    (tmp_path / "a2.tsv.gz").write_bytes(gzip.compress(b"a\tb\n", mtime=0))
    what = f"no such file: {tmp_path}/{path}; a.tsv.gz is packed, unpack it: gunzip {tmp_path}/a.tsv.gz"
    with pytest.raises(FileNotFoundError, match=re.escape(what)):
        find(tmp_path / path)
    (problem,) = find(tmp_path / "a.tsv.gz")["all"].read()
    assert "a.tsv.gz:1: expected UTF-8, got gzip; unpack it: gunzip <" in str(problem)


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, train__tsv="a\tb\n", x__src="a\n", x__ref="b\n", words__dict="a B\n" * 20)
    wanted = [("a", "b")]
    for path in ("~/train.tsv", Path("~/train.tsv"), ["~/x.src", Path("~/x.ref")], "~/x"):
        assert pairs(path) == {"all": wanted}
    assert pairs("~") == pairs({"train": Path("~/train.tsv")}) == {"train": wanted}
    assert rlseq.make("rlseq/G2P-v0", path="~/words.dict").size == 1


@pytest.mark.parametrize(
    ("path", "error", "got"),
    [
        (5, TypeError, "path must be a file, a folder, a list .*; got int: 5"),
        (b"x", TypeError, "path must be .*; got bytes: b'x'"),
        ({"a", "b"}, TypeError, "path must be .*; got set"),
        (["a", None], TypeError, "path must be .*; got NoneType"),
        ({"train": "a", "dev": None}, TypeError, "path must be .*; got NoneType"),
        ([], ValueError, r"expected path=\[source, references, …\], got \[\]"),
        ({"train": ()}, ValueError, r"expected path=\[source, references, …\], got \(\)"),
    ],
)
def test_what_is_no_path(
    path: object, error: type[Exception], got: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(write(tmp_path, a="b\tc\n"))
    with pytest.raises(error, match=got):
        pairs(path)


def test_texts_need_no_tab(tmp_path: Path) -> None:
    write(tmp_path, a__txt="one\ntwo\n", b__md="three\n")
    assert [row.target for row in origin(tmp_path / "a.txt", TEXTS).read() if isinstance(row, Pair)] == [
        "one",
        "two",
    ]
    assert [row.target for row in origin(tmp_path / "b.md", TEXTS).read() if isinstance(row, Pair)] == [
        "three"
    ]
    write(tmp_path, train__tsv="a\tb\n")
    with pytest.raises(DataError, match=r"expected a file train\.txt, got a\.txt, b\.md, train\.tsv"):
        find(tmp_path, TEXTS)


def test_a_seed_gives_exact_shares() -> None:
    keys = np.random.default_rng(0).integers(0, 2**63, 200).astype(np.uint64)
    part = by_seed(keys)
    assert np.bincount(part).tolist() == [170, 10, 20]
    changed = (by_seed(np.append(keys, np.uint64(7)))[:200] != part).sum()
    assert changed <= 2, "a new line moves few others"
