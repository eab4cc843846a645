"""Which files belong together by their names, and what is refused as nobody would see which was meant."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from rlseq.data import locate as splits
from rlseq.data.formats import DataError, Pair
from rlseq.data.locate import TEXTS, find


def written(folder: Path, names: str) -> Path:
    """Files of these names, each with its name for a line."""
    for name in names.split():
        (folder / name).write_text(f"{name}\n")
    return folder


def pairs(path: object) -> dict[str, list[tuple[str | None, str]]]:
    return {
        part: [(row.source, row.target) for row in origin.read() if isinstance(row, Pair)]
        for part, origin in find(path).items()  # type: ignore[arg-type]
    }


@pytest.mark.parametrize("beside", ["x.out", "x.target", "x.ref.0 x.ref.1", "x.fr"])
def test_a_language_has_one_other_file_beside_it(beside: str, tmp_path: Path) -> None:
    written(tmp_path, f"x.en x.de {beside}")
    for file in beside.split()[0].removesuffix(".0"), "x.de":
        with pytest.raises(DataError, match=rf"which of x\.en, .*{re.escape(file)}.* is source"):
            find(tmp_path / "x.en")


def test_a_source_has_references_before_languages(tmp_path: Path) -> None:
    written(tmp_path, "x.src x.ref x.de")
    assert pairs(tmp_path / "x") == pairs(tmp_path / "x.src") == {"all": [("x.src", "x.ref")]}


OUTPUTS = ["hyp", "sys", "spm", "ali", "map", "mt", "bpe", "tok", "pred", "gen", "seg", "MT"]


@pytest.mark.parametrize("name", OUTPUTS)
def test_what_a_system_wrote_is_no_language(name: str, tmp_path: Path) -> None:
    written(tmp_path, f"x.src x.{name} y.en y.de y.{name}")
    with pytest.raises(FileNotFoundError, match=r"no such file: .*x\.ref"):
        find(tmp_path / "x.src")
    assert pairs(tmp_path / "y.en") == {"all": [("y.en", "y.de")]}


@pytest.mark.parametrize(
    ("names", "path", "mend"),
    [
        ("x.src x.ref x.out", "x", ["x.src", "x.out"]),
        ("x.src x.source x.ref", "x", ["x.src", "x.ref"]),
        ("x.en x.de x.fr", "x.en", ["x.en", "x.de"]),
        ("x.en x.de x.out", "x.en", ["x.en", "x.de"]),
        ("x.en x.src x.tgt", "x.en", ["x.en", "x.tgt"]),
        ("x.en x.de x.de.0", "x.en", ["x.en", "x.de"]),
        ("x.en x.de x.de.0", "x", ["x.en", "x.de"]),
        ("x.input x.ref x.ref.0", "x", ["x.input", "x.ref"]),
    ],
)
def test_a_mend_names_what_is_there_the_source_first(
    names: str, path: str, mend: list[str], tmp_path: Path
) -> None:
    written(tmp_path, names)
    first, second = (str(tmp_path / name) for name in mend)
    with pytest.raises(DataError, match=re.escape(f'path=["{first}", "{second}"]')):
        find(tmp_path / path)
    assert pairs([first, second]) == {"all": [(mend[0], mend[1])]}


def test_two_sources_have_no_mend_of_two_sources(tmp_path: Path) -> None:
    written(tmp_path, "x.src x.source")
    with pytest.raises(DataError, match=r'give both: path=\[".*/x\.src", …\]'):
        find(tmp_path / "x")


@pytest.mark.parametrize("names", ["x.out x.ref", "x.en.0 x.en.1 x.de.0 x.de.1"])
def test_references_of_no_source(names: str, tmp_path: Path) -> None:
    written(tmp_path, names)
    with pytest.raises(FileNotFoundError, match=r"no such file: .*/x\.src, the source of x\.[^,]*, x\."):
        find(tmp_path / "x")


def test_roles_are_roles_in_any_case(tmp_path: Path) -> None:
    written(tmp_path, "x.SRC x.REF y.Source y.REF.0 y.REF.1")
    assert pairs(tmp_path / "x") == pairs(tmp_path / "x.SRC") == {"all": [("x.SRC", "x.REF")]}
    assert pairs(tmp_path / "y") == {"all": [("y.Source", "y.REF.0"), ("y.Source", "y.REF.1")]}
    for name in ("x.REF", "y.REF.0"):
        with pytest.raises(DataError, match="this is a reference file"):
            find(tmp_path / name)


@pytest.mark.parametrize(
    "names",
    [
        "train.src train.tgt test.src test.de",
        "train.src train.de test.src test.ref.0",
        "train.src train.DE test.src test.de",
    ],
)
def test_a_role_goes_with_any_language(names: str, tmp_path: Path) -> None:
    assert pairs(written(tmp_path, names))["test"] == [tuple(names.split()[2:])]


@pytest.mark.parametrize(
    ("names", "got"),
    [
        (
            "train.src train.de dev.src dev.ref test.src test.fr",
            "train.src with train.de, test.src with test.fr",
        ),
        ("train.en train.ref dev.fr dev.ref", "train.en with train.ref, dev.fr with dev.ref"),
    ],
)
def test_two_languages_on_one_side_do_not_go_together(names: str, got: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"the same sides in all parts, got {got}; name"):
        find(written(tmp_path, names))


@pytest.mark.parametrize(
    ("name", "beside"), [("x.en", "x.de"), ("x.en", "x.de.0"), ("x.src", "x.ref"), ("x.src.0", "x.ref")]
)
def test_a_tab_in_one_side_of_two_is_asked_about(name: str, beside: str, tmp_path: Path) -> None:
    written(tmp_path, beside)
    (tmp_path / name).write_text("a\tb\n")
    mends = f'path=["{tmp_path / name}", "{tmp_path / beside}"], or rename a TSV to x.tsv'
    with pytest.raises(DataError, match=rf"{name}:1: which is meant, .*{re.escape(mends)}"):
        find(tmp_path / name)
    assert pairs([tmp_path / name, tmp_path / beside]) == {"all": [("a\tb", beside)]}
    (tmp_path / name).rename(tmp_path / "x.tsv")
    assert pairs(tmp_path / "x.tsv") == {"all": [("a", "b")]}


def test_a_tab_in_a_language_alone_makes_a_tsv(tmp_path: Path) -> None:
    for name in ("x.en", "x.en.0", "y.formal"):
        (written(tmp_path, "x.log x.csv y.de") / name).write_text("a\tb\n")
        assert pairs(tmp_path / name) == {"all": [("a", "b")]}


@pytest.mark.parametrize("name", ["x.ref", "x.ref.0", "x.de.0", "y.ref", "y.ref.0"])
def test_a_tab_makes_no_source_of_a_reference(name: str, tmp_path: Path) -> None:
    (written(tmp_path, "x.en") / name).write_text("a\tb\n")
    with pytest.raises(DataError, match="this is a reference file"):
        find(tmp_path / name)


@pytest.mark.parametrize("script", [b"#!/bin/sh\n", b"\x7fELF\0\t\xff\n", b""])
def test_a_script_is_no_part(script: bytes, tmp_path: Path) -> None:
    for name in ("train", "dev", "test", "valid"):
        (tmp_path / name).write_bytes(script)
    (tmp_path / "train.tsv").write_text("a\tb\n")
    assert pairs(tmp_path) == {"train": [("a", "b")]}
    (tmp_path / "train.tsv").unlink()
    written(tmp_path, "train.src train.ref dev.src dev.ref")
    wanted = {part: [(f"{part}.src", f"{part}.ref")] for part in ("train", "dev")}
    assert pairs(tmp_path) == wanted


@pytest.mark.parametrize("content", [b"a\tb\n", b"caf\xe9\tb\n"])
@pytest.mark.parametrize(
    ("beside", "got"),
    [
        ("dev.tsv", "dev or dev.tsv"),
        ("dev.src dev.ref", r"dev or dev.ref \+ dev.src"),
        ("val.tsv", "dev or val"),
    ],
)
def test_a_part_without_suffix_is_one_more_way(content: bytes, beside: str, got: str, tmp_path: Path) -> None:
    (written(tmp_path, beside) / "dev").write_bytes(content)
    written(tmp_path, "train.src train.ref")
    for path in (tmp_path, tmp_path / "train"):  # a beginning names no file for dev either
        with pytest.raises(DataError, match=rf"which is .*{got}"):
            find(path)


def test_data_without_suffix_is_a_folder_s_part(tmp_path: Path) -> None:
    for name in ("train", "dev"):
        (tmp_path / name).write_text(f"{name}\tb\n")
    assert pairs(tmp_path) == pairs(tmp_path / "train") == {"train": [("train", "b")], "dev": [("dev", "b")]}
    (tmp_path / "train.tsv").write_text("c\td\n")
    assert pairs(tmp_path / "train")["train"] == [("train", "b")], "it is named in full"
    with pytest.raises(DataError, match=r"train: which is meant, train or train\.tsv"):
        find(tmp_path)


def test_texts_without_suffix_are_one_more_way(tmp_path: Path) -> None:
    (written(tmp_path, "train.txt") / "train").write_text("no tab\n")
    with pytest.raises(DataError, match=r"train: which is meant, train or train\.txt"):
        find(tmp_path, TEXTS)
    (tmp_path / "train.txt").unlink()
    assert [str(file) for file in find(tmp_path, TEXTS)["train"].files] == [str(tmp_path / "train")]


def test_a_part_is_looked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, "train.src train.ref dev.txt")
    (tmp_path / "dev.txt").write_text("a\tb\n")
    asked: list[str] = []
    begun = splits._begun

    def counted(path: Path, *rest: Any) -> list[splits.Way]:
        asked.append(path.name)
        return begun(path, *rest)

    monkeypatch.setattr(splits, "_begun", counted)
    assert set(find(tmp_path)) == {"train", "dev"}
    assert sorted(asked) == sorted(name for names in splits.ALIASES.values() for name in names)
