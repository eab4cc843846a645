"""Files that belong together by their names: `x.src` with `x.ref`, or `x.ref.0`, …; `x.en` with `x.de`.

Only names that say what they are count, or any file beside a text would be taken for its references. Two ways
to understand them are refused: nobody would see which was meant.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from difflib import get_close_matches
from os.path import exists, isdir, isfile, islink  # unlike those of Path, no name is an error to them
from pathlib import Path

from rlseq.data.formats import DataError

SOURCES = ("src", "source", "in", "input")


LONGEST_NAME = 1000  # characters of a path; longer ones are shown cut


TARGETS = ("ref", "refs", "reference", "tgt", "trg", "target", "out", "output")


LANGUAGE = re.compile("[a-z]{2,3}([-_][a-z0-9]{2,8})*", re.IGNORECASE)  # en, deu, pt-br, zh_Hans


_SHORT = """
ali avi bak bat bin bmp bpe bz cc cfg cpp css csv dat db doc err exe gen gif gz htm hyp idx ids ini jpg js
log lst lz map md mov mt npy npz odt old pdf pkl png ppt pth py pyc rar rst rtf seg spm sql svg swp sys tab
tar tex tgz tmp tok tsv txt vec wav xls xml xz yml zip zst
"""


# These are no languages: pl, pt, ps, sh and so are left out, as they are. But .mt is what a machine has
# translated, more often than Maltese, and nobody would see that a system learns from it.
TYPES = frozenset(_SHORT.split())


def is_side(name: str) -> bool:
    """Whether files of this suffix are one side of aligned files: by its role, or its language."""
    language = LANGUAGE.fullmatch(name) is not None and name.lower() not in TYPES
    return is_source(name) or is_target(name) or language


def is_source(name: str) -> bool:
    """Whether a suffix says that this is the source; in any case, as languages are."""
    return name.lower() in SOURCES


def is_target(name: str) -> bool:
    """Whether a suffix says that this is a reference."""
    return name.lower() in TARGETS


def side(path: Path) -> str:
    """What a name says of a file, without the number that it may have: `de` of `x.de.0`."""
    return _bare(path).suffix[1:]


def _bare(path: Path) -> Path:
    """A name without its number."""
    return path.with_suffix("") if path.suffix[1:].isdecimal() else path


def language(path: Path) -> str:
    """The language that a name tells; none for a role, which any language may have."""
    name = side(path)
    return "" if is_source(name) or is_target(name) or not is_side(name) else name.lower()


def match(prefix: Path, given: Path | None = None) -> tuple[Path, list[Path]]:
    """Source and references by a common beginning, or by their source file."""
    found = families(prefix)
    sources = [given.suffix[1:]] if given else _sources(prefix, found)
    targets = [name for name in found if name not in sources]
    if all(map(is_source, sources)):  # beside a language, another is no worse: .out may be a decoder's
        targets = [name for name in targets if is_target(name)] or targets
    if not sources:
        files = _named(file for name in targets for file in found[name])
        raise FileNotFoundError(f"no such file: {prefix}.src, the source of {files}")
    if len(sources) > 1 or len(targets) > 1:
        raise DataError(_which(prefix, sources, targets, given))
    if not targets:
        beside = _file(prefix, sources[0])
        wanted = f"{prefix}.ref, or {prefix}.ref.0, {prefix}.ref.1, …"
        raise FileNotFoundError(f"no such file: {wanted}, the references of {beside}")
    source = given or _file(prefix, sources[0])
    if not given and found[sources[0]] != [source]:
        raise DataError(f"{prefix}: expected one source file, got {_named(found[sources[0]])}")
    return source, _references(_file(prefix, targets[0]), source)


def _sources(prefix: Path, found: dict[str, list[Path]]) -> list[str]:
    """What may be the source where none is given."""
    if sources := [name for name in found if is_source(name)]:
        return sources  # else as train.en and train.de.0, .1, …: references are what is numbered
    alone = [name for name, files in found.items() if files == [_file(prefix, name)]]
    return [name for name in alone if not is_target(name)]


def _file(prefix: Path, name: str) -> Path:
    return prefix.with_name(f"{prefix.name}.{name}")


def _named(files: Iterable[Path]) -> str:
    return ", ".join(file.name for file in files)


def _which(prefix: Path, sources: list[str], targets: list[str], given: Path | None) -> str:
    """What to say where names do not tell the source, or the references."""
    names = ", ".join(f"{prefix.name}.{name}" for name in (*sources, *targets))
    first, *others = (
        f'"{_file(prefix, name)}"'
        for name in (*sources, *targets)
        if name == sources[0] or not is_source(name)
    )
    second = others[0] if others else "…"
    alone = not given and len(sources) == 2 and others and not targets
    source = f"the source alone: path={first} or path={second}; or " if alone else ""
    return (
        f"{prefix}: which of {names} is source, which reference? expected {prefix.name}.src and "
        f"{prefix.name}.ref (or .ref.0, .ref.1, …); give {source}both: path=[{first}, {second}]"
    )


def families(prefix: Path) -> dict[str, list[Path]]:
    """Files `prefix.NAME` and `prefix.NAME.0`, `.1`, …, by NAME, where that is one of a side."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in _all(prefix.parent):
        name, *number = path.name.removeprefix(f"{prefix.name}.").split(".")
        if not path.name.startswith(f"{prefix.name}.") or not is_side(name) or not isfile(path):
            continue
        if not number or (len(number) == 1 and number[0].isdecimal()):
            found[name].append(path)
    return dict(found)


def partners(path: Path) -> list[Path]:
    """Files of another side beside a file that is named as one: `x.de` beside `x.en`."""
    others = families(_bare(path).with_suffix("")) if is_side(side(path)) else {}
    return [file for name, files in others.items() if name != side(path) for file in files]


def two_ways(path: Path, beside: Path) -> str:
    """What to say of a first line with a tab, in a file that has another side beside it."""
    name, other = path.name, _bare(path).with_suffix(".tsv").name
    return (
        f"{path}:1: which is meant, {name} + {beside.name}, or {name} alone, as its first line has a tab? "
        f'name aligned files, path=["{path}", "{beside}"], or rename a TSV to {other}'
    )


def _all(folder: Path) -> list[Path]:
    """What is in a folder, `x.ref` before `x.ref.0`, and `x.ref.2` before `x.ref.10`."""
    return sorted(folder.iterdir(), key=lambda p: (len(p.name), p.name)) if isdir(folder) else []


def numbered(path: Path) -> list[Path]:
    """`path.0`, `path.1`, …, where there are any."""
    start = f"{path.name}."
    there = [file for file in _all(path.parent) if file.name.startswith(start) and isfile(file)]
    files = sorted((int(n), file) for file in there if (n := file.name.removeprefix(start)).isdecimal())
    numbers = [number for number, _ in files]
    if numbers and numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise DataError(f"{path}: expected references numbered one after the other, got .{numbers}")
    return [file for _, file in files]


def _references(path: Path, source: Path) -> list[Path]:
    """The file, or those with numbers after its name, but not both."""
    files = numbered(path)
    if files and isfile(path):
        raise DataError(
            f"{path}: which are the references, {path.name} or {_named(files)}? move one away, or name them: "
            f'path=["{source}", "{path}"]'
        )
    return files or [path]


def refuse_reference(path: Path) -> None:
    """A reference file is never taken for a source."""
    name, number = side(path), path.suffix[1:].isdecimal()
    if is_target(name) or (number and is_side(name) and not is_source(name)):
        common = _bare(path).with_suffix("")
        raise DataError(
            f'{path}: this is a reference file; give its source, or the common beginning: path="{common}"'
        )


def missing(path: Path) -> FileNotFoundError:
    """The error: what is there instead, or the file that is called most like it."""
    there = [other.name for other in _all(path.parent) if other.name != path.name]
    packed = [name for name in there if name.startswith(f"{path.name}.") and name.endswith(".gz")]
    near = get_close_matches(path.name[:LONGEST_NAME], there, n=1)
    if instead := _instead(path):
        return FileNotFoundError(f"{path}: expected a file, got {instead}")
    mend = f"; did you mean {near[0]!r}?" if near else ""
    if packed:
        mend = f"; {packed[0]} is packed, unpack it: gunzip {path.with_name(packed[0])}"
    shown = f"{path!s:.200}… ({len(str(path)):,} characters)" if len(str(path)) > LONGEST_NAME else path
    return FileNotFoundError(f"no such file: {shown}{mend}")


def _instead(path: Path) -> str:
    """What has the name of a file, and is none."""
    if isdir(path):
        return "a folder"
    if islink(path) and not exists(path):
        return f"a link to what is not there: {path.readlink()}"
    return "a pipe or a device, which cannot be read more than once" if exists(path) else ""
