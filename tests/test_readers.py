"""Files with something wrong: told by file and line."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from rlseq.data.formats import (
    LINE_LENGTH,
    Pair,
    Problem,
    Records,
    aligned,
    dictionary,
    jsonl,
    text_lines,
    tsv,
)


def written(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(reader: Callable[[Path], Records], tmp_path: Path, content: bytes | str) -> list[Pair | Problem]:
    return list(reader(written(tmp_path / "file", content)))


def test_tsv_columns_after_the_first_are_references(tmp_path: Path) -> None:
    assert read(tsv, tmp_path, "a\tb\na\tc\n") == [Pair("a", "b"), Pair("a", "c")]
    assert read(tsv, tmp_path, "a\tb\tc\nd\te\tf") == [
        *(Pair("a", "b"), Pair("a", "c"), Pair("d", "e"), Pair("d", "f"))
    ]


def test_a_byte_order_mark_and_crlf_are_understood(tmp_path: Path) -> None:
    assert read(tsv, tmp_path, b"\xef\xbb\xbfa\tb\r\nc\td\r\n") == [Pair("a", "b"), Pair("c", "d")]


def test_only_line_feeds_end_lines(tmp_path: Path) -> None:
    assert read(text_lines, tmp_path, "a\u2028b\x0bc\n") == [Pair(None, "a\u2028b\x0bc")]


@pytest.mark.parametrize(
    ("reader", "content", "line", "what"),
    [
        (tsv, "a\tb\nno tab here\n", 2, "expected source TAB reference, got no tab: 'no tab here'"),
        (tsv, "a\tb\n\nc\td\n", 2, "got an empty line"),
        (tsv, "a\tb\nc\td\te\n", 2, "expected 2 columns as in line 1, got 3"),
        (tsv, "no tab\na\tb\tc\nd\te\n", 3, "expected 3 columns as in line 2, got 2"),
        (tsv, "a\tb\nc\t \n", 2, "expected a reference, got nothing"),
        (tsv, "\tb\n", 1, "expected a source, got nothing"),
        (tsv, b"a\tb\ncaf\xe9\tx\n", 2, r"expected UTF-8, got byte 0xe9 at place 4; is it Latin-1\? .*iconv"),
        (tsv, "a\tb".encode("utf-16"), 1, "expected UTF-8, got UTF-16; convert it"),
        (tsv, "a\tb".encode("utf-32"), 1, "expected UTF-8, got UTF-32; convert it: iconv -f utf-32"),
        (tsv, b"\0\0\xfe\xff" + "a\tb".encode("utf-32-be"), 1, "expected UTF-8, got UTF-32; convert it"),
        (tsv, gzip.compress(b"a\tb\n", mtime=0), 1, "expected UTF-8, got gzip; unpack it: gunzip < .*file"),
        (tsv, b"a\tb\0\n", 1, "NUL byte"),
        (tsv, "a\tb\n" + "x" * 1_000_000 + "\t1\nc\td\n", 2, "expected lines below 100,000 bytes"),
        (tsv, "a\tb\rc\td\r", 1, r"expected line ends .*, got a carriage return within .* tr '.r' '.n' < "),
        (text_lines, "one\rtwo\r" * 20_000, 1, "got a carriage return within the line"),
        (text_lines, "a\r\nb\rc\r\n", 2, r"got a carriage return within the line; old Mac line ends\?"),
        (jsonl, '{"source": "a", "target": "b"}\r' * 2, 1, "got a carriage return within the line"),
        (text_lines, "a\n\n", 2, "expected a text, got an empty line"),
        (jsonl, '{"source": "a", "target": "b"}\n{"source": "a"', 2, "expected a JSON object, got .*place"),
        (jsonl, "[1]\n", 1, "expected a JSON object, got list"),
        (jsonl, '{"text": "a"}\n', 1, r"expected a text under 'source' or .*got keys \['text'\]"),
        (jsonl, '{"source": "a", "target": 3}\n', 1, "expected a text or a list of texts under one of"),
        (jsonl, '{"source": "a", "references": []}\n', 1, "expected a text or a list of texts"),
        (jsonl, '{"source": "a", "references": ["b", ""]}\n', 1, "expected a reference, got nothing"),
        (
            jsonl,
            '{"source": 5, "target": "b"}\n',
            1,
            "expected a text under 'source' .*got int under 'source'",
        ),
        (jsonl, '{"src": null, "target": "b"}\n', 1, "got NoneType under 'src'"),
        (jsonl, '{"src": "a", "target": null, "output": 3}\n', 1, "got int under 'output'"),
        (jsonl, '{"source": "a", "output": {}}\n', 1, "got dict under 'output'"),
        (jsonl, '{"source": "a", "targets": ["b", 3]}\n', 1, "got a list with int under 'targets'"),
        (jsonl, '{"source": "a", "references": []}\n', 1, "got an empty list under 'references'"),
        (jsonl, '{"source": "a", "id": 3}\n', 1, r"one of .*got keys \['id', 'source'\]"),
        (jsonl, '{"source": "a", "references": ["b"], "target": "c"}', 1, "got 'references' and 'target'"),
        (jsonl, '{"source": "wikipedia", "input": "a", "output": "b"}', 1, "got 'source' and 'input'"),
        (jsonl, r'{"source": "a \ud83d", "target": "b"}', 1, r"expected text, got half a surrogate pair"),
        (jsonl, r'{"source": "a", "target": ["b", "\ude00\ud83d"]}', 1, "half a surrogate pair, '.ude00'"),
        (jsonl, r'{"source": "a\u0000", "target": "b"}', 1, r"expected text, got a NUL, '.x00'"),
        (jsonl, "[" * 50_000 + "]" * 49_000, 1, "got lists or objects nested too deeply"),
        (jsonl, '{"source": "a", "target": "b", "id": ' + "1" * 5000 + "}", 1, "a number of too many digits"),
        (dictionary, "word W ER D\nnothing\n", 2, "expected a word and its phonemes, got 'nothing'"),
        (dictionary, "(2)  X\n", 1, r"expected a word and its phonemes, got '\(2\)  X'"),
        (dictionary, "\n", 1, "expected a word and its phonemes, got ''"),
        (dictionary, "a 1 2\n", 1, "expected phonemes, got '1' for one: 'a 1 2'"),
        (partial(dictionary, stress=True), "a AH 2\n", 1, "expected phonemes, got '2' for one"),
    ],
)
def test_a_bad_line_is_told_by_file_and_line(
    reader: Callable[[Path], Records], content: bytes | str, line: int, what: str, tmp_path: Path
) -> None:
    problems = [row for row in read(reader, tmp_path, content) if isinstance(row, Problem)]
    assert len(problems) >= 1
    bad = next(problem for problem in problems if problem.line == line)
    with pytest.raises(ValueError, match=rf"file:{line}: .*{what}"):
        raise ValueError(str(bad))


def test_lines_after_a_bad_one_are_read(tmp_path: Path) -> None:
    rows = read(tsv, tmp_path, "a\tb\n" + "x" * (3 * LINE_LENGTH) + "\nc\td\n")
    assert [row for row in rows if isinstance(row, Pair)] == [Pair("a", "b"), Pair("c", "d")]
    assert read(tsv, tmp_path, "x" * (LINE_LENGTH - 4) + "\tb\n")[0].target == "b"  # type: ignore[union-attr]


def test_jsonl_names_and_lists(tmp_path: Path) -> None:
    rows = read(jsonl, tmp_path, '{"src": "a", "references": ["b", "c"]}\n{"input": "d", "output": "e"}\n')
    assert rows == [Pair("a", "b", 1), Pair("a", "c", 1), Pair("d", "e", 2)]


def test_a_jsonl_key_with_null_is_none(tmp_path: Path) -> None:
    rows = read(jsonl, tmp_path, '{"input": null, "src": "a", "target": null, "references": ["b", "c"]}\n')
    assert rows == [Pair("a", "b", 1), Pair("a", "c", 1)]


@pytest.mark.parametrize(
    ("end", "kept"), [("\n", True), ("\r\n", True), ("\r", True), ("\rmore\n", False), ("z\n", False)]
)
def test_the_longest_line_is_read_whole_or_not_at_all(end: str, kept: bool, tmp_path: Path) -> None:
    text = "x" * (LINE_LENGTH - 1)
    first, *others = read(text_lines, tmp_path, text + end + "a\n" * (end != "\r"))
    assert first == Pair(None, text) if kept else "expected lines below 100,000 bytes" in str(first)
    assert others == [Pair(None, "a")] * (end != "\r")


def test_escaped_pairs_of_surrogates_are_text(tmp_path: Path) -> None:
    rows = read(jsonl, tmp_path, r'{"source": "\ud83d\ude00", "target": "b"}')
    assert rows == [Pair("\U0001f600", "b", 1)]


def files(tmp_path: Path, *contents: str) -> list[Path]:
    return [written(tmp_path / f"x.{i}", content) for i, content in enumerate(contents)]


def test_aligned_lines_belong_together(tmp_path: Path) -> None:
    source, *references = files(tmp_path, "a\nb\n", "1\n2\n", "3\n4")
    assert list(aligned(source, references)) == [
        *(Pair("a", "1", 1), Pair("a", "3", 1), Pair("b", "2", 2), Pair("b", "4", 2))
    ]


@pytest.mark.parametrize("short", [0, 1, 2])
def test_a_file_one_line_short_cannot_be_trusted(short: int, tmp_path: Path) -> None:
    contents = ["a\nb\nc\n"] * 3
    contents[short] = "a\nb\n"
    source, *references = files(tmp_path, *contents)
    *_, last = aligned(source, references)
    assert isinstance(last, Problem)
    assert last.fatal
    full = 1 if short == 0 else 0
    assert str(last).startswith(
        f"{tmp_path}/x.{short}:3: expected line 3, as {tmp_path}/x.{full} has one, got"
    )


@pytest.mark.parametrize("long", [0, 1, 2])
def test_an_empty_line_at_the_end_is_a_line(long: int, tmp_path: Path) -> None:
    contents = ["a\nb\n"] * 3
    contents[long] += "\n"
    source, *references = files(tmp_path, *contents)
    *rows, last = aligned(source, references)
    assert len(rows) == 4
    short = 1 if long == 0 else 0
    what = f"expected line 3, as {tmp_path}/x.{long} has an empty one, got the end"
    assert str(last).startswith(f"{tmp_path}/x.{short}:3: {what}")
    assert isinstance(last, Problem)
    assert last.fatal


def test_an_empty_reference_is_told_in_its_own_file(tmp_path: Path) -> None:
    source, *references = files(tmp_path, "a\nb\n", "1\n2\n", "3\n\n")
    rows = list(aligned(source, references))
    assert rows[-1] == Problem(tmp_path / "x.2", 2, "expected a reference, got nothing")
    assert rows[:-1] == [Pair("a", "1", 1), Pair("a", "3", 1), Pair("b", "2", 2)]


def test_no_line_of_a_packed_file_is_read(tmp_path: Path) -> None:
    packed = gzip.compress(bytes(range(256)) * 9, compresslevel=0)
    assert packed.count(b"\n") > 5
    what = f"expected UTF-8, got gzip; unpack it: gunzip < {tmp_path}"
    (problem,) = read(tsv, tmp_path, packed)
    assert problem == Problem(tmp_path / "file", 1, f"{what}/file", fatal=True)
    source = written(tmp_path / "x.src", "a\nb\n")
    assert list(aligned(source, [tmp_path / "file"])) == [problem]


def test_an_empty_source_is_told_once(tmp_path: Path) -> None:
    source, *references = files(tmp_path, "a\n \n", "1\n2\n", "3\n\n")
    rows = list(aligned(source, references))
    assert rows[2:] == [Problem(tmp_path / "x.0", 2, "expected a source, got nothing")]
    rows = read(tsv, tmp_path, "a\tb\tc\n\tb\tc\n")
    assert rows[2:] == [Problem(tmp_path / "file", 2, "expected a source, got nothing")]


def test_the_dictionary_s_lines(tmp_path: Path) -> None:
    content = ";;; a comment\nREAD  R EH1 D\nread(2) R IY1 D # now\na B2 C\n"
    assert read(dictionary, tmp_path, content) == [
        *(Pair("read", "R EH D"), Pair("read", "R IY D"), Pair("a", "B C"))
    ]
    assert read(partial(dictionary, stress=True), tmp_path, content)[1] == Pair("read", "R IY1 D")


def test_any_white_space_divides_a_dictionary_s_line(tmp_path: Path) -> None:
    content = "worda0\tW ER1 D\nread(2)\tR  IY1\tD\n"
    assert read(dictionary, tmp_path, content) == [Pair("worda0", "W ER D"), Pair("read", "R IY D")]
