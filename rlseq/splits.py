"""Where pairs are, and which of them are for training, development and test.

A path is a file, a folder with `train`, `dev` and `test`, or the common beginning of aligned files. What is
not divided by files is divided by a seed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rlseq.readers import DataError, Rows, aligned, jsonl, plain, tsv

ALIASES = {"train": ("train",), "dev": ("dev", "valid", "val", "validation"), "test": ("test",)}
PARTS = tuple(ALIASES)
SOURCES = ("src", "source", "in", "input")
TARGETS = ("ref", "refs", "reference", "tgt", "trg", "target", "out", "output")
Formats = Mapping[str, Callable[[Path], Rows]]  # a reader for each suffix
PAIRS: Formats = {".tsv": tsv, ".jsonl": jsonl, ".ndjson": jsonl}
TEXTS: Formats = {".txt": plain}

Where = str | PathLike[str] | Sequence[str | PathLike[str]]
Assign = Callable[[NDArray[np.uint64]], NDArray[np.int64]]  # keys of items in order -> number in PARTS


@dataclass(frozen=True)
class Origin:
    """Something that can be read again and again, and the files that it comes from."""

    read: Callable[[], Rows]
    files: tuple[Path, ...] = ()


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
    where = Path(path)
    beside = (
        _beside(where)
        if not where.is_dir()
        else {part: [where / name for name in names] for part, names in ALIASES.items()}
    )
    parts = {}
    for part, candidates in beside.items():
        there = [candidate for candidate in candidates if _exists(candidate)]
        if there:
            parts[part] = origin(there[0], formats)
    if where.is_dir() and "train" not in parts:
        have = ", ".join(sorted(p.name for p in where.iterdir())[:8]) or "nothing"
        raise DataError(f"{where}: expected a file train.tsv, train.jsonl or train.src, got {have}")
    return parts if len(parts) > 1 or where.is_dir() else {"all": origin(where, formats)}


def _beside(where: Path) -> dict[str, list[Path]]:
    """`train.tsv` has its dev and test files beside it, where there are any."""
    if "train" not in where.name:
        return {}
    return {
        part: [where.with_name(where.name.replace("train", name)) for name in names]
        for part, names in ALIASES.items()
    }


def _exists(path: Path) -> bool:
    return path.is_file() or bool(_families(path))


def origin(where: Where, formats: Formats = PAIRS) -> Origin:
    """One thing to read: a file of a known format, or aligned files."""
    if not isinstance(where, (str, PathLike)):
        source, *references = map(Path, where)
        return _aligned(source, [file for path in references for file in _numbered(path)])
    path = Path(where)
    for suffix, reader in formats.items():
        file = path if path.suffix == suffix else path.with_name(path.name + suffix)
        if file.is_file():
            return Origin(partial(reader, file), (file,))
    if plain in formats.values():
        if path.is_file():
            return Origin(partial(plain, path), (path,))
    elif path.is_file() and path.suffix.lstrip(".") not in (*SOURCES, *TARGETS) and _has_tab(path):
        return Origin(partial(tsv, path), (path,))
    elif _families(path) or len(_families(path.with_suffix(""))) > 1:
        return _siblings(path)
    if path.exists():
        known = ", ".join(formats)
        raise DataError(
            f"{path}:1: expected source TAB reference; other formats: {known}, aligned x.src + x.ref"
        )
    raise missing(path)


def missing(path: Path) -> FileNotFoundError:
    """The error, with the file that is called most like it."""
    there = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    near = get_close_matches(path.name, there, n=1)
    return FileNotFoundError(f"no such file: {path}" + (f"; did you mean {near[0]!r}?" if near else ""))


def _has_tab(path: Path) -> bool:
    with path.open("rb") as file:
        return b"\t" in file.readline(1 << 20)


def _families(prefix: Path) -> dict[str, list[Path]]:
    """Files `prefix.NAME` and `prefix.NAME.0`, `.1`, …, by name."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(prefix.parent.glob("*")) if prefix.parent.is_dir() else []:
        name, *number = path.name.removeprefix(f"{prefix.name}.").split(".")
        if path.name.startswith(f"{prefix.name}.") and len(number) < 2 and all(n.isdigit() for n in number):
            found[name].append(path)
    return dict(found)


def _numbered(path: Path) -> list[Path]:
    """The file, or those that are called like it with `.0`, `.1`, … after."""
    files = _families(path.with_suffix("")).get(path.suffix.lstrip("."), []) if path.suffix else []
    files = [path] if path.is_file() else files or sorted(path.parent.glob(f"{path.name}.[0-9]*"))
    numbers = sorted(int(file.suffix[1:]) for file in files if file.suffix[1:].isdigit())
    if numbers and numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise DataError(f"{path}: expected references numbered one after the other, got .{numbers}")
    return files or [path]


def _siblings(path: Path) -> Origin:
    """Aligned files by a common beginning, or by their source file."""
    given = path.suffix.lstrip(".") if path.is_file() else None
    prefix = path.with_suffix("") if given else path
    families = _families(prefix)
    sources = [given] if given else [name for name in families if name in SOURCES]
    if not sources:  # as train.en and train.de.0, .1, …: references are what is numbered
        sources = [name for name, files in families.items() if files == [Path(f"{prefix}.{name}")]]
    targets = [name for name in families if name not in sources]
    targets = [name for name in targets if name in TARGETS] or targets
    if len(sources) != 1 or len(targets) != 1:
        raise DataError(
            f"{prefix}: which of {', '.join(f'{prefix.name}.{name}' for name in families)} is source, which "
            f"reference? expected {prefix.name}.src and {prefix.name}.ref (or .ref.0, .ref.1, …), or a list: "
            'path=["x.en", "x.de"]'
        )
    return _aligned(families[sources[0]][0], _numbered(Path(f"{prefix}.{targets[0]}")))


def _aligned(source: Path, references: list[Path]) -> Origin:
    for file in (source, *references):
        if not file.is_file():
            raise missing(file)
    if not references:
        raise ValueError(f"expected reference files beside {source}: path=[source, references, …]")
    return Origin(partial(aligned, source, references), (source, *references))
