"""Where pairs are, and which of them are for training, development and test.

A path is a file, a folder with `train`, `dev` and `test`, or the common beginning of aligned files. What is
not divided by files is divided by a seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from os.path import exists, expanduser, isdir, isfile, islink
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlseq.data.formats import LONGEST, DataError, Line, Problem, Rows, aligned, jsonl, lines, plain, tsv
from rlseq.data.siblings import (
    families,
    is_side,
    is_source,
    is_target,
    language,
    match,
    missing,
    numbered,
    partners,
    refuse_reference,
    side,
    two_ways,
)

ALIASES = {"train": ("train",), "dev": ("dev", "valid", "val", "validation"), "test": ("test",)}


PARTS = tuple(ALIASES)


Formats = Mapping[str, Callable[[Path], Rows]]  # a reader for each suffix


PAIRS: Formats = {".tsv": tsv, ".jsonl": jsonl, ".ndjson": jsonl}


TEXTS: Formats = {".txt": plain}


STRUCTURED = {*PAIRS, ".json", ".csv"}  # what is no text a line: tabs and brackets would be written, too


Where = str | PathLike[str] | Sequence[str | PathLike[str]]


Assign = Callable[[NDArray[np.uint64]], NDArray[np.int64]]  # keys of items in order -> number in PARTS


@dataclass(frozen=True)
class Origin:
    """Something that can be read again and again, and the files that it comes from."""

    read: Callable[[], Rows]
    files: tuple[Path, ...] = ()


class Way(NamedTuple):
    """One way to understand a path."""

    files: list[Path]
    open: Callable[[], Origin]


def by_seed(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """5 % dev, 10 % test, the rest train, in the order of keys that a seed has hashed.

    All references of a source stay in one part, and a new line in the file moves few others.
    """
    part = np.zeros(len(keys), dtype=np.int64)
    order = np.argsort(keys, kind="stable")
    dev, test = len(keys) // 20, len(keys) // 10
    part[order[:dev]], part[order[dev : dev + test]] = 1, 2
    return part


def find(path: Where | Mapping[str, Where], formats: Formats = PAIRS) -> dict[str, Origin]:
    """What there is to read, by part; under "all" where files do not divide it.

    Args:
        path: a file, a folder, the beginning of aligned files, a list `[source, references, …]` of aligned
            files, or any of these for each of "train", "dev" and "test".
        formats: reader of each suffix.
    """
    if isinstance(path, Mapping):
        if "train" not in path or not set(path) <= set(PARTS):
            raise ValueError(f"path must have parts train, dev, test, and train at least, got {list(path)}")
        return {part: origin(where, formats) for part, where in path.items()}
    if not isinstance(path, (str, PathLike)):
        return {"all": origin(path, formats)}
    where = expand(path)
    parts = _divided(where, formats)
    if isdir(where) and "train" not in parts:
        have = sorted(other.name for other in where.iterdir())
        got = ", ".join(have[:8]) or "nothing"
        packed = "; unpack what ends in .gz: gunzip" if any(name.endswith(".gz") for name in have) else ""
        raise DataError(f"{where}: expected a file {_wanted('train', formats)}, got {got}{packed}")
    return parts if len(parts) > 1 or isdir(where) else {"all": parts["train"]}


def _wanted(name: str, formats: Formats) -> str:
    """The files that a beginning may stand for."""
    aligned = [] if plain in formats.values() else [f"{name}.src with {name}.ref"]
    return " or ".join([*(name + suffix for suffix in formats), *aligned])


def expand(where: object) -> Path:
    """A path as it is given, with `~` for the home folder."""
    if not isinstance(where, (str, PathLike)):
        raise TypeError(
            "path must be a file, a folder, a list [source, references, …] of files, or one of these for "
            f"each of train, dev and test; got {type(where).__name__}: {where!r:.40}"
        )
    return Path(expanduser(where))


def _divided(where: Path, formats: Formats) -> dict[str, Origin]:
    """The parts in a folder, or those beside the one for training, as `dev.tsv` beside `train.tsv`."""
    folder = isdir(where)
    parts = {} if folder else {"train": origin(where, formats)}
    for part, names in ALIASES.items():
        if folder:
            candidates = [where / name for name in names]
        elif part != "train" and "train" in where.name:
            candidates = [where.with_name(where.name.replace("train", name)) for name in names]
        else:
            continue
        ways_of = _itself if isfile(where) else _of_a_part
        found = {path: ways for path in candidates if (ways := ways_of(path, formats))}
        if len(found) > 1:
            both = _or([way for ways in found.values() for way in ways])
            raise DataError(
                f'{where}: which is {part}, {both}? name the parts: path={{"train": …, "{part}": …}}'
            )
        for path, ways in found.items():
            parts[part] = _only(path, ways)
    _check_sides(where, parts)
    return parts


def _check_sides(where: Path, parts: Mapping[str, Origin]) -> None:
    """Training on one pair of languages is not tested on another."""
    files = [part.files[:2] for part in parts.values() if len(part.files) > 1]
    for column in zip(*files, strict=True):
        got: dict[str, str] = {}
        for name, pair in zip(map(language, column), files, strict=True):
            got.setdefault(name, " with ".join(file.name for file in pair))
        if len(got.keys() - {""}) > 1:  # a role, as .src, goes with any language
            several = ", ".join(pair for name, pair in got.items() if name)
            raise DataError(
                f"{where}: expected the same sides in all parts, got {several}; "
                'name the parts: path={"train": […, …], "dev": […, …]}'
            )


def origin(where: Where, formats: Formats = PAIRS) -> Origin:
    """One thing to read: a file of a known format, or aligned files."""
    if isinstance(where, Sequence) and not isinstance(where, (str, bytes)):
        if not where:
            raise ValueError(f"expected path=[source, references, …], got {where}")
        if plain in formats.values():
            raise ValueError(
                f"path={where!r:.80}: {_A_TEXT_A_LINE}; aligned files belong to rlseq/Parallel-v0"
            )
        source, *references = map(expand, where)
        return _aligned(source, [file for path in references for file in _given(path)])
    path = expand(where)
    ways = _itself(path, formats) or _begun(path, formats, [])
    if not ways:
        raise _nothing(path, formats)
    return _only(path, ways)


def _only(path: Path, ways: Sequence[Way]) -> Origin:
    """What a path leads to, where it can be understood in one way."""
    if len(ways) > 1:
        first = ways[0].files[0]
        raise DataError(f'{path}: which is meant, {_or(ways)}? name one, path="{first}", or move others away')
    return ways[0].open()


def _nothing(path: Path, formats: Formats) -> Exception:
    """The error where a path leads to nothing, though other files may begin like it."""
    if numbered(path):
        refuse_reference(path)
    there = [] if isdir(path) or islink(path) or not isdir(path.parent) else path.parent.iterdir()
    names = sorted(other.name for other in there if other.name.startswith(f"{path.name}."))
    if not names or exists(path) or any(name.endswith(".gz") for name in names):
        return missing(path)
    mend = "" if plain in formats.values() else '; name aligned files: path=["x.informal", "x.formal"]'
    got = ", ".join(names[:8])
    return FileNotFoundError(f"no such file: {path}; expected {_wanted(path.name, formats)}, got {got}{mend}")


def _itself(path: Path, formats: Formats) -> list[Way]:
    """The file of this very name."""
    return [Way([path], partial(_file, path, formats))] if isfile(path) else []


def _of_a_part(path: Path, formats: Formats) -> list[Way]:
    """What a part may be that nobody has named: `train` is as often a script as it is data."""
    data = isfile(path) and (plain in formats.values() or _tabs(path))
    return _begun(path, formats, _itself(path, formats) if data else [])


def _tabs(path: Path) -> bool:
    """Whether the first line has a tab, in whatever encoding, and is none of a program."""
    with path.open("rb") as file:
        first = file.readline(LONGEST)
    return b"\t" in first and b"\0" not in first


def _begun(path: Path, formats: Formats, ways: list[Way]) -> list[Way]:
    """What a path may stand for as a beginning: a file of each format, or aligned files; after other ways."""
    if not path.name:  # "." and "/" begin no name
        return ways
    files = [path.with_name(path.name + suffix) for suffix in formats]
    ways = [*ways, *(way for file in files for way in _itself(file, formats))]
    if plain in formats.values():
        return ways
    sides, loose = families(path), path.with_name(f"{path.name}.txt")
    if isfile(loose) and (_tabbed(loose, _first(loose)) or not (ways or sides)):
        ways.append(Way([loose], partial(_file, loose, formats)))
    if len(sides) > 1 or (sides and not ways):
        ways.append(Way([file for files in sides.values() for file in files], partial(_matched, path)))
    return ways


def _or(ways: Sequence[Way]) -> str:
    return " or ".join(" + ".join(file.name for file in way.files) for way in ways)


_A_TEXT_A_LINE = "expected a .txt with a text a line, or a folder of train.txt, dev.txt and test.txt"


def _matched(prefix: Path, source: Path | None = None) -> Origin:
    return _aligned(*match(prefix, source))


def _file(path: Path, formats: Formats) -> Origin:
    """A file by its suffix, else by its first line; or by what is beside it, where it is a source."""
    texts = plain in formats.values()
    if texts and path.suffix in STRUCTURED:
        got = f"{path.suffix}; pairs belong to rlseq/Parallel-v0"
        raise DataError(f"{path}:1: {_A_TEXT_A_LINE}, got {got}")
    reader = formats.get(path.suffix, plain if texts else None)
    if reader is not None:
        return Origin(partial(reader, path), (path,))
    role, first, beside = path.suffix[1:], _first(path), partners(path)
    if not (beside or is_source(role) or is_target(side(path))) and _tabbed(path, first):
        return Origin(partial(tsv, path), (path,))
    refuse_reference(path)
    if beside and isinstance(first, str) and "\t" in first:
        raise DataError(two_ways(path, beside[0]))
    if is_source(role) or (beside and is_side(role)):
        return _matched(path.with_suffix(""), path)
    if isinstance(first, Problem):
        raise DataError(str(first))
    raise DataError(f"{path}:1: expected source TAB reference, got {_untabbed(path, first, formats)}")


def _first(path: Path) -> Line:
    return next(lines(path), (1, ""))[1]


def _tabbed(path: Path, first: Line) -> bool:
    """Whether a first line has a tab; what is no text is left to the reader, which says what it is."""
    return "\t" in first if isinstance(first, str) else not is_side(path.suffix[1:])


def _untabbed(path: Path, first: str, formats: Formats) -> str:
    """What a first line without a tab may be, and what to do."""
    first, other = first.strip(), path.with_suffix(".jsonl").name
    if first.startswith("{") and first.endswith("}"):
        return f"a JSON object; one a line is read from .jsonl files: rename it to {other}"
    if path.suffix == ".json" and first[:1] in ("[", "{"):
        return f"JSON of many lines; write one object a line, to {other}"
    return (
        f"no tab in its first line; other formats: {', '.join(formats)}, aligned x.src + x.ref, or aligned "
        'files of any name as a list: path=["x.en", "x.de"]'
    )


def _given(path: Path) -> list[Path]:
    """The file, or those that are called like it with `.0`, `.1`, … after."""
    return [path] if isfile(path) else numbered(path) or [path]


def _aligned(source: Path, references: list[Path]) -> Origin:
    for file in (source, *references):
        if not isfile(file):
            raise missing(file)
    if not references:
        raise ValueError(f"expected reference files beside {source}: path=[source, references, …]")
    return Origin(partial(aligned, source, references), (source, *references))
