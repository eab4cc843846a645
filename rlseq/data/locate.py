"""The files that a path stands for, divided into those for training, development and test.

A path is a file, a folder of parts, a list of aligned files, or a mapping of parts. Nothing is guessed from
other names; pairs that files do not divide into parts are divided by a seed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from os import PathLike
from os.path import exists, expanduser, isdir, isfile, islink  # unlike those of Path, they accept any name
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rlseq.data.formats import DataError, Records, aligned, jsonl, text_lines, tsv

ALIASES = {"train": ("train",), "dev": ("dev", "valid", "val", "validation"), "test": ("test",)}
PARTS = tuple(ALIASES)
Formats = Mapping[str, Callable[[Path], Records]]  # a reader for each suffix
PAIRS: Formats = {".tsv": tsv, ".jsonl": jsonl, ".ndjson": jsonl}
TEXTS: Formats = {".txt": text_lines}
STRUCTURED = {*PAIRS, ".json", ".csv"}  # read as a text a line, their tabs and brackets would be learned
LONGEST_NAME = 1000  # characters of a path that an error shows
Where = str | PathLike[str] | Sequence[str | PathLike[str]]
Assign = Callable[[NDArray[np.uint64]], NDArray[np.int64]]  # keys of items in order -> number in PARTS


@dataclass(frozen=True)
class Origin:
    """Something that can be read again and again, and the files that it comes from."""

    read: Callable[[], Records]
    files: tuple[Path, ...] = ()


def by_seed(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Put 5 % in dev, 10 % in test and the rest in train, in the order of keys that a seed has hashed.

    All references of a source stay in one part, and a new line in the file moves few others.
    """
    part = np.zeros(len(keys), dtype=np.int64)
    order = np.argsort(keys, kind="stable")
    dev, test = len(keys) // 20, len(keys) // 10
    part[order[:dev]], part[order[dev : dev + test]] = 1, 2
    return part


def find(path: Where | Mapping[str, Where], formats: Formats = PAIRS) -> dict[str, Origin]:
    """Return what there is to read, by part; under "all" where files do not divide it.

    Args:
        path: a file, a folder of parts, a list `[source, references, …]` of aligned files, or a file or such
            a list for each of "train", "dev" and "test".
        formats: the reader of each suffix.
    """
    if isinstance(path, Mapping):
        if "train" not in path or not set(path) <= set(PARTS):
            raise ValueError(f"path must have parts train, dev, test, and train at least, got {list(path)}")
        return {part: origin(where, formats) for part, where in path.items()}
    if not isinstance(path, (str, PathLike)):
        return {"all": origin(path, formats)}
    where = expand(path)
    if isdir(where):
        return _parts_of(where, formats)
    found = {"all": origin(where, formats)}
    others = [file.name for part in ("dev", "test") for file in _files_of(where.parent, part, formats)]
    if where.stem == "train" and others:
        raise DataError(
            f"{where}: expected the folder of the parts, as {', '.join(others)} lies beside it: "
            f'path="{where.parent}"; or this part alone: path={{"train": "{where}"}}'
        )
    return found


def _parts_of(folder: Path, formats: Formats) -> dict[str, Origin]:
    """The parts in a folder, each from the only file that has the name of the part."""
    parts = {}
    for part in PARTS:
        files = _files_of(folder, part, formats)
        if len(files) > 1:
            which = " or ".join(file.name for file in files)
            raise DataError(
                f'{folder}: which is {part}, {which}? name the parts: path={{"train": …, "{part}": …}}'
            )
        if files:
            parts[part] = origin(files[0], formats)
    if "train" not in parts:
        have = sorted(other.name for other in folder.iterdir())
        packed = "; unpack what ends in .gz: gunzip" if any(name.endswith(".gz") for name in have) else ""
        wanted = " or ".join(f"train{suffix}" for suffix in _suffixes(formats))
        got = ", ".join(have[:8]) or "nothing"
        raise DataError(f"{folder}: expected a file {wanted}, got {got}{packed}")
    return parts


def _files_of(folder: Path, part: str, formats: Formats) -> list[Path]:
    """The files in a folder that may be a part, by any name that the part has."""
    files = [folder / f"{name}{suffix}" for name in ALIASES[part] for suffix in _suffixes(formats)]
    return [file for file in files if isfile(file)]


def _suffixes(formats: Formats) -> list[str]:
    return list(formats) if _texts(formats) else [*formats, ".src"]


def _texts(formats: Formats) -> bool:
    """Return whether a line is a text, and not a pair."""
    return text_lines in formats.values()


def _forms(formats: Formats) -> str:
    """The forms of a path that are accepted, for an error."""
    if _texts(formats):
        return "expected a .txt with a text a line, or a folder of train.txt, dev.txt and test.txt"
    if ".tsv" not in formats:
        return (
            f"expected a file {', '.join(formats)}, a folder of train, dev and test in these forms, or parts "
            'of any name, path={"train": …, "test": …}'
        )
    return (
        f"expected a file {', '.join(formats)}; x.src beside x.tgt, x.ref, or x.ref0, x.ref1, …; a folder of "
        'train, dev and test in these forms; aligned files of any name, path=["x.en", "x.de"]; or parts of '
        'any name, path={"train": …, "test": …}'
    )


def origin(where: Where, formats: Formats = PAIRS) -> Origin:
    """Return one thing to read: a file by its suffix, or aligned files."""
    if isinstance(where, Sequence) and not isinstance(where, (str, bytes)):
        if _texts(formats):
            raise ValueError(
                f"path={where!r:.80}: {_forms(formats)}; aligned files belong to rlseq/Parallel-v0"
            )
        files = [expand(file) for file in where]
        if len(files) < 2:
            raise ValueError(f"expected path=[source, references, …], got {where}")
        return _aligned(files)
    path = existing(expand(where))
    if path.suffix == ".src" and not _texts(formats):
        return _aligned([path, *_references(path)])
    default = text_lines if _texts(formats) and path.suffix not in STRUCTURED else None
    if (reader := formats.get(path.suffix, default)) is None:
        raise DataError(
            f"{path}:1: {_forms(formats)}, got {path.suffix or 'no suffix'}{_mend(path, formats)}"
        )
    return Origin(partial(reader, path), (path,))


def _mend(path: Path, formats: Formats) -> str:
    """Return the advice about a file with another suffix."""
    if path.suffix == ".gz":
        return f"; unpack it: gunzip {path}"
    if _texts(formats):
        return "; pairs belong to rlseq/Parallel-v0"
    if path.suffix == ".json" and ".jsonl" in formats:
        return f"; write one object a line, to {path.with_suffix('.jsonl').name}"
    return (
        f"; if its lines are source TAB reference, rename it to {path.stem}.tsv" if ".tsv" in formats else ""
    )


def expand(where: object) -> Path:
    """A path as it is given, with `~` for the home folder."""
    if not isinstance(where, (str, PathLike)):
        raise TypeError(
            "path must be a file, a folder, a list [source, references, …] of files, or one of these for "
            f"each of train, dev and test; got {type(where).__name__}: {where!r:.40}"
        )
    return Path(expanduser(where))


def _aligned(files: list[Path]) -> Origin:
    """Aligned files, the source first."""
    return Origin(partial(aligned, files[0], files[1:]), tuple(map(existing, files)))


def _references(source: Path) -> list[Path]:
    """`x.tgt`, `x.ref`, or `x.ref0`, `x.ref1`, … (or `x.ref.0`, …) beside `x.src`; one of these families."""
    role = re.compile(re.escape(source.stem) + r"\.(tgt|ref)(?:\.?([0-9]+))?")
    named = [(found, file) for file in source.parent.iterdir() if (found := role.fullmatch(file.name))]
    # A file without a number is -2, which no number follows.
    files = sorted((int(found[2] or -2), found[1], file) for found, file in named if isfile(file))
    if not files:
        wanted = f"{source.stem}.tgt, {source.stem}.ref, or {source.stem}.ref0, {source.stem}.ref1, …"
        raise FileNotFoundError(f"no such file: {wanted}, the references of {source}")
    numbers, roles = [number for number, *_ in files], {role for _, role, _ in files}
    if len(roles) > 1 or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        got = ", ".join(file.name for *_, file in files)
        raise DataError(
            f"{source}: expected one .tgt or .ref, or .ref0, .ref1, … without a gap, got {got}; "
            f'name the references: path=["{source}", …]'
        )
    return [file for *_, file in files]


def existing(path: Path) -> Path:
    """Return the path of a file; else the error names what is there instead, or what has nearly its name."""
    if isfile(path):
        return path
    if instead := _instead(path):
        raise FileNotFoundError(f"{path}: expected a file, got {instead}")
    there = sorted(other.name for other in path.parent.iterdir()) if isdir(path.parent) else []
    begun = [name for name in there if name.startswith(f"{path.name}.")]
    packed = [name for name in begun if name.endswith(".gz")]
    near = get_close_matches(path.name[:LONGEST_NAME], there, n=1)
    shown = f"{path!s:.200}… ({len(str(path)):,} characters)" if len(str(path)) > LONGEST_NAME else path
    mend = f"; {packed[0]} is packed, unpack it: gunzip {path.with_name(packed[0])}" if packed else ""
    mend = mend or (f"; did you mean {' or '.join(map(repr, begun[:8] or near))}?" if begun or near else "")
    raise FileNotFoundError(f"no such file: {shown}{mend}")


def _instead(path: Path) -> str:
    """Return what stands where a file was expected: a folder, for instance."""
    if isdir(path):
        return "a folder"
    if islink(path) and not exists(path):
        return f"a link to what is not there: {path.readlink()}"
    return "a pipe or a device, which cannot be read more than once" if exists(path) else ""
