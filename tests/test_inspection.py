"""What `rlseq data inspect` counts."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

import rlseq
from rlseq.data.formats import DataError
from rlseq.data.inspection import inspect


def write(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content, "utf-8")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(
        tmp_path,
        train__tsv="ab\tx\nab\ty z\nc\tx\nc\tx\nno tab\n",
        test__tsv="ab\tx q\nd\tz z z\n",
    )


def test_counts_by_part(folder: Path) -> None:
    seen = inspect(folder, max_len=3)
    train, test = seen.parts["train"], seen.parts["test"]
    assert (len(train.sources), train.pairs, train.repeated_pairs, train.most_references) == (2, 4, 1, 2)
    assert (len(test.sources), test.pairs, test.repeated_pairs, test.most_references) == (2, 2, 0, 1)
    assert seen.level == ("char", "word")
    assert seen.overlap == {"test": 0.5}
    assert [part.too_long for part in (train, test)] == [0, 1], "three words and the end are four"
    assert test.sides[1].unknown(train.sides[1]) == pytest.approx(1 / 5)
    assert train.sides[1].lengths == [1, 2, 1, 1]
    assert [(p.file.name, p.line) for p in seen.problems.first] == [("train.tsv", 5)]


def test_nothing_of_it_is_hidden_when_printed(folder: Path) -> None:
    text = str(inspect(folder, level="word", max_len=3))
    for words in (
        "train",
        "test",
        "50.00%",
        "lengths, by word",
        "1 bad line",
        "train.tsv:5: expected source TAB",
    ):
        assert words in text, words
    assert "ab → x" in text
    assert "no line is bad" in str(inspect(folder / "test.tsv"))


def test_a_file_without_a_good_line(tmp_path: Path) -> None:
    seen = inspect(write(tmp_path, x__tsv="bad\n") / "x.tsv")
    assert seen.problems.count == 1
    assert "1 bad line\n" in str(seen)
    assert not seen.usable


def test_a_file_without_a_line(tmp_path: Path) -> None:
    seen = inspect(write(tmp_path, x__tsv="") / "x.tsv")
    assert "there is nothing to train on" in str(seen)
    assert not seen.usable


def test_words_are_those_of_the_task_and_subwords_are_not_counted(tmp_path: Path) -> None:
    path = write(tmp_path, x__tsv="a\u00a0b  c\td e\n") / "x.tsv"
    assert inspect(path, level="word").parts["train"].sides[0].lengths == [2]
    env = rlseq.make("rlseq/Parallel-v0", path=path, level="word")
    assert env.items["source"].shape[1] == 2
    with pytest.raises(ValueError, match=r"level must be char or word, .* got 'bpe'"):
        inspect(path, level="bpe")


def test_texts(tmp_path: Path) -> None:
    seen = inspect(write(tmp_path, x__txt="one text\nanother\n") / "x.txt", texts=True)
    assert seen.parts["train"].pairs == 2
    assert "references" in str(seen)
    with pytest.raises(DataError, match=r"x.jsonl:1: expected a .txt with a text a line, .* got .jsonl"):
        inspect(write(tmp_path, x__jsonl="{}\n") / "x.jsonl", texts=True)


def test_the_command(folder: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "rlseq", "data", "inspect", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    good = run(str(folder / "test.tsv"), "--max-len", "3")
    assert good.returncode == 0, good.stderr
    assert "sources" in good.stdout
    with_a_bad_line = run(str(folder))
    assert with_a_bad_line.returncode == 1, with_a_bad_line.stderr
    assert "1 bad line" in with_a_bad_line.stdout
    write(folder, x__en="a\nb\n", x__de="c\nd\n")
    aligned = run(str(folder / "x.en"), str(folder / "x.de"))
    assert "a → c" in aligned.stdout, aligned.stderr
    assert run(str(folder / "x.en")).returncode == run().returncode == 2
    bad = run(str(folder / "trian.tsv"))
    assert bad.returncode == 2
    assert "did you mean 'train.tsv'?" in bad.stderr


HOSTILE = ["\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\u202egnp.exe", "\x9b2J", "\x7f\x08", "x\u2028line"]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_terminal_obeys_nothing_in_the_data(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.tsv").write_bytes(f"a\t{text}.\n{text}.\tb\nno tab {text}.\n".encode())
    shown = str(inspect(tmp_path / "x.tsv"))
    assert all(line.isprintable() for line in shown.split("\n"))
    escaped = text.encode("unicode_escape").decode()
    assert f"a → {escaped}." in shown
    assert f"{escaped}. → b" in shown
    assert "no tab" in shown


@pytest.mark.parametrize("text", ["[red]x[/red]", "[/]", ":smile:", "[link=http://x]y[/link]", "\\[x"])
def test_markup_in_the_data_is_text(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = str(inspect(write(Path(), x__tsv=f"{text}\t{text}\n{text}\n") / "x.tsv"))
    assert f"{text} → {text}" in shown
    assert f"got no tab: {text!r}" in shown


def test_a_name_of_a_file_is_escaped_too(tmp_path: Path) -> None:
    (tmp_path / "x\x1b[31m.tsv").write_text("bad\n")
    shown = str(inspect(tmp_path / "x\x1b[31m.tsv"))
    assert r"x\x1b[31m.tsv:1: expected" in shown.replace("\n", "")
    assert "\x1b" not in shown


@pytest.mark.parametrize("text", ["x" * 40_000, "ab " * 13_333, "字" * 15_000, "e\u0301" * 15_000])
def test_a_long_line_is_cut_and_takes_no_time(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, x__tsv=f"{text}\t{text}\n") / "x.tsv"
    started = time.process_time()
    shown = str(inspect(path))
    assert time.process_time() - started < 2
    assert f"… ({len(text.strip()):,} characters)" in shown.replace("\n", " ")
    assert len(shown) < 5000
