"""Readers of pairs of texts, line by line; errors name the file and the line.

A reader yields a `Pair` for every reference, or a `Problem`; its caller decides whether a problem ends the
reading, or is counted and skipped. No reader holds more than a line of each of its files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO

from rlseq.data import limits

LINE_LENGTH = limits.DEFAULTS[limits.LINE_BYTES]  # of a line, where the environment says nothing else

MARKS = {  # first bytes of files that are no UTF-8; UTF-32 before UTF-16, as one mark begins with the other
    b"\x1f\x8b": "gzip; unpack it: gunzip <",
    b"\xff\xfe\0\0": "UTF-32; convert it: iconv -f utf-32 -t utf-8",
    b"\0\0\xfe\xff": "UTF-32; convert it: iconv -f utf-32 -t utf-8",
    b"\xff\xfe": "UTF-16; convert it: iconv -f utf-16 -t utf-8",
    b"\xfe\xff": "UTF-16; convert it: iconv -f utf-16 -t utf-8",
}

SOURCE_KEYS = ("source", "src", "input")
TARGET_KEYS = ("references", "targets", "target", "tgt", "reference", "output")


@dataclass(frozen=True)
class Pair:
    """A source, None where there is none, and one of its references."""

    source: str | None
    target: str
    item: int | None = None  # the line it is from, where that has all references of its source


@dataclass(frozen=True)
class Problem:
    """A line that cannot be used, and what was expected there."""

    file: Path
    line: int
    what: str
    fatal: bool = False  # no line after it can be trusted, so that it cannot be skipped

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}"


class DataError(ValueError):
    """A file does not hold what was expected; the message names file and line."""


LineOrProblem = str | Problem
Records = Iterator[Pair | Problem]
Read = Iterable[Pair | str]  # what a line holds: pairs, and what was expected in place of others


def lines(path: Path) -> Iterator[tuple[int, LineOrProblem]]:
    """Yield the numbered lines of a UTF-8 file, without line ends; a byte-order mark and CRLF are removed."""
    longest = limits.limit(limits.LINE_BYTES)
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(longest):
            number += 1
            long = len(raw) == longest and not raw.endswith(b"\n") and _passed_over(raw, file)
            if long and b"\r" not in raw[:-1]:  # a last one may begin CRLF, and tells nothing of what follows
                mend = f"is this text? if so, set {limits.LINE_BYTES}"
                yield number, Problem(path, number, f"expected lines below {longest:,} bytes; {mend}")
                continue
            yield number, (line := _decoded(raw, path, number))
            if isinstance(line, Problem) and line.fatal:  # or every line of it would be told as Latin-1
                return


def _passed_over(raw: bytes, file: BinaryIO) -> bool:
    """Read the rest of a line after its first piece, and tell whether it was more than a line end."""
    second = rest = file.readline(LINE_LENGTH)
    while rest and not rest.endswith(b"\n"):
        rest = file.readline(LINE_LENGTH)
    return not raw.endswith(b"\r") or second not in (b"", b"\n")


def _decoded(raw: bytes, path: Path, number: int) -> LineOrProblem:
    """Decode a line, or tell what is wrong with it."""
    if number == 1 and (other := next((what for mark, what in MARKS.items() if raw.startswith(mark)), None)):
        return Problem(path, 1, f"expected UTF-8, got {other} {path}", fatal=True)
    raw = raw.removesuffix(b"\n").removesuffix(b"\r")
    if b"\r" in raw:  # of an old Mac, all the file is one line
        got = "expected line ends LF or CRLF, got a carriage return within the line"
        return Problem(path, number, rf"{got}; old Mac line ends? convert them: tr '\r' '\n' < {path}")
    try:
        text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        got = f"byte 0x{raw[error.start]:02x} at place {error.start + 1}"
        mend = f"is it Latin-1? convert it: iconv -f latin1 -t utf-8 {path}"
        return Problem(path, number, f"expected UTF-8, got {got}; {mend}")
    return (
        Problem(path, number, "expected text, got a NUL byte; is this a text file?") if "\0" in text else text
    )


def tsv(path: Path) -> Records:
    """Read `source TAB reference`, or more references, as many in every line as in the first good one.

    A source that comes again has several references.
    """
    columns = first = 0  # and the line that has set them, which may be the odd one

    def read(line: str, number: int) -> Read:
        nonlocal columns, first
        fields = [field.strip() for field in line.split("\t")]
        if not columns and len(fields) > 1 and all(fields):
            columns, first = len(fields), number
        if not line.strip():
            return ["expected source TAB reference, got an empty line"]
        if len(fields) < 2:
            return [f"expected source TAB reference, got no tab: {line!r:.60}"]
        if columns and len(fields) != columns:
            return [f"expected {columns} columns as in line {first}, got {len(fields)}: {line!r:.60}"]
        return _pairs(fields[0], fields[1:])

    return _each(path, read)


def jsonl(path: Path) -> Records:
    """Read one object a line: `{"source": …, "target": …}`, or `"references": [… , …]`."""

    def read(line: str, number: int) -> Read:
        entry = _entry(line)
        return [entry] if isinstance(entry, str) else _pairs(*entry, item=number)

    return _each(path, read)


def _entry(line: str) -> tuple[str, list[str]] | str:
    """Return source and references of a JSON line, or what is wrong with it."""
    try:
        entry: Any = json.loads(line)
    except json.JSONDecodeError as error:
        return f"expected a JSON object, got {line!r:.40} ({error.msg} at place {error.pos + 1})"
    except RecursionError:
        return f"expected a JSON object of texts, got lists or objects nested too deeply: {line!r:.40}"
    except ValueError:  # Python reads no number of more than 4,300 digits
        return f"expected a JSON object of texts, got a number of too many digits: {line!r:.40}"
    if not isinstance(entry, dict):
        return f"expected a JSON object, got {type(entry).__name__}"
    # A table that is written as JSON has null for what a row lacks.
    given = {key: value for key, value in entry.items() if value is not None}
    found = [[key for key in keys if key in given] for keys in (SOURCE_KEYS, TARGET_KEYS)]
    for keys, named in zip((SOURCE_KEYS, TARGET_KEYS), found, strict=True):
        if len(named) > 1:
            return f"expected one of {', '.join(keys)}, got {' and '.join(map(repr, named))}; leave one"
    source, targets = (given[named[0]] if named else None for named in found)
    targets = [targets] if isinstance(targets, str) else targets
    if not isinstance(source, str):
        return f"expected a text under {' or '.join(map(repr, SOURCE_KEYS))}, got {_got(SOURCE_KEYS, entry)}"
    if not isinstance(targets, list) or not targets or not all(isinstance(text, str) for text in targets):
        wanted = f"a text or a list of texts under one of {TARGET_KEYS}"
        return f"expected {wanted}, got {_got(TARGET_KEYS, entry)}"
    if strange := _STRANGE.search("".join((source, *targets))):
        kind = "a NUL" if strange[0] == "\0" else "half a surrogate pair"
        return f"expected text, got {kind}, {strange[0]!r}: {line!r:.60}"
    return source.strip(), [text.strip() for text in targets]


_STRANGE = re.compile("[\0\ud800-\udfff]")  # JSON can escape what UTF-8 text cannot hold


def _got(keys: Sequence[str], entry: Mapping[str, Any]) -> str:
    """Say what an entry has under one of the keys instead of texts."""
    there = sorted((key for key in keys if key in entry), key=lambda key: entry[key] is None)
    if not there:
        return f"keys {sorted(entry)}"
    value = entry[there[0]]
    kind = type(value).__name__
    if isinstance(value, list):
        kinds = [type(part).__name__ for part in value]
        kind = next((f"a list with {part}" for part in kinds if part != "str"), "an empty list")
    return f"{kind} under {there[0]!r}"


def aligned(source: Path, references: Sequence[Path]) -> Records:
    """Read line n of the source file with line n of every reference file."""
    files = (source, *references)
    for entries in zip_longest(*map(lines, files)):
        texts = [None if entry is None else entry[1] for entry in entries]
        number = next(entry[0] for entry in entries if entry is not None)
        if None in texts:
            yield _short(files, texts, number)
            return
        problems = [text for text in texts if isinstance(text, Problem)]
        yield from problems
        if any(problem.fatal for problem in problems):
            return
        if isinstance(texts[0], str) and not texts[0].strip():  # once, however many references it has
            yield Problem(source, number, "expected a source, got nothing")
        elif isinstance(texts[0], str):
            for file, text in zip(references, texts[1:], strict=True):
                if isinstance(text, str):
                    yield from _rows(_pairs(texts[0].strip(), [text.strip()], number), file, number)


def _short(files: Sequence[Path], texts: Sequence[LineOrProblem | None], number: int) -> Problem:
    """Name the first file that has ended while another still has a line, be it an empty one."""
    short = files[texts.index(None)]
    full, text = next((f, t) for f, t in zip(files, texts, strict=True) if t is not None)
    one = "an empty one" if isinstance(text, str) and not text.strip() else "one"
    what = f"expected line {number}, as {full} has {one}, got the end; aligned files have equally many"
    return Problem(short, number, what, fatal=True)


def text_lines(path: Path) -> Records:
    """Read a text a line."""

    def read(line: str, number: int) -> Read:
        return [Pair(None, line.strip()) if line.strip() else "expected a text, got an empty line"]

    return _each(path, read)


def dictionary(path: Path, stress: bool = False) -> Records:
    """Read the CMU dictionary: lines of `word(2) P1 P2 … # comment`, divided by any white space.

    Args:
        path: the file.
        stress: keep the digits of vowels, 1 and 2 for primary and secondary stress.
    """

    def read(line: str, number: int) -> Read:
        if line.startswith(";;;"):
            return []
        name, *sounds = line.partition("#")[0].split() or [""]
        word = re.sub(r"\(\d+\)$", "", name).lower()
        bare = [sound.translate(_DIGITS) for sound in sounds]
        if not word or not sounds:
            return [f"expected a word and its phonemes, got {line!r:.60}"]
        if not all(bare):
            return [f"expected phonemes, got {sounds[bare.index('')]!r} for one: {line!r:.60}"]
        return [Pair(word, " ".join(sounds if stress else bare))]

    return _each(path, read)


_DIGITS = dict.fromkeys(map(ord, "0123456789"))


def _pairs(source: str, targets: Iterable[str], item: int | None = None) -> Read:
    """Return a pair for each reference; an empty text is a problem."""
    if not source:
        return ["expected a source, got nothing"]
    return [Pair(source, text, item) if text else "expected a reference, got nothing" for text in targets]


def _each(path: Path, read: Callable[[str, int], Read]) -> Records:
    """Yield what `read` makes of every line and its number."""
    for number, line in lines(path):
        yield from [line] if isinstance(line, Problem) else _rows(read(line, number), path, number)


def _rows(found: Read, path: Path, number: int) -> Records:
    """Yield what a line holds, with its place where it is a problem."""
    for row in found:
        yield row if isinstance(row, Pair) else Problem(path, number, row)
