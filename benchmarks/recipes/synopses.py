r"""Pairs to summarise: long descriptions of Debian packages, and the synopsis that their maintainers gave.

    python benchmarks/recipes/synopses.py FOLDER [--index Translation-en]

Writes train.tsv, dev.tsv and test.tsv (a description, a tab, a synopsis) into FOLDER, outside the repository.
The index is the file `Translation-en` of a Debian release, as apt keeps it under /var/lib/apt/lists or as it
is served (`dists/bookworm/main/i18n/Translation-en.xz`). Machines that keep no translations fetch it into a
folder of their own, without any change of the system:

    mkdir -p apt/lists/partial apt/cache/archives/partial
    echo '#clear Acquire::Languages; Acquire::Languages { "en"; };' > apt/apt.conf
    echo "Dir::State::lists \"$PWD/apt/lists/\"; Dir::Cache \"$PWD/apt/cache/\";" >> apt/apt.conf
    apt-get -c apt/apt.conf update

(`-c` is read after the settings of the system, and so it holds; a file named by APT_CONFIG is read before.)

Of Debian 12 (2026-11-29) 63,955 entries have 60,594 different descriptions (median 44 words; synopsis 6):
54,738 for train, 2,877 for dev and 2,979 for test. Each description and each synopsis has the licence of the
package that it describes; nothing of them is in this repository.

One package often comes in several (-dev, -doc, -data, one for each language), which share their description
but for a sentence. All packages of a family are in the same part, so nothing in test has a near-duplicate in
train: packages are of one family when they share the beginning of their name, the first paragraph of their
description, or their synopsis up to a bracket or a dash. The part is chosen by a hash of the family.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import lzma
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

LISTS = Path("/var/lib/apt/lists")
HELPER = Path("/usr/lib/apt/apt-helper")  # reads every compression that apt writes
OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
SHARES = {"test": 0.05, "dev": 0.05}  # of the families; the others are train
VARIANTS = re.compile(r"(-(dev|dbg|docs?|data|common|bin|examples|tests?|headers|utils|tools)|[-.\d])+$")
BULLET = re.compile(r"^([*+o•-]|\d+[.)])\s+")


class Package(NamedTuple):
    """An entry of the index."""

    name: str
    synopsis: str
    paragraphs: tuple[str, ...]

    @property
    def description(self) -> str:
        """The paragraphs, in one line."""
        return " ".join(self.paragraphs)

    def family(self) -> Iterator[str]:
        """Yield the keys that relatives share."""
        yield f"name {VARIANTS.sub('', self.name) or self.name}"
        yield f"paragraph {self.paragraphs[0].casefold()}"
        yield f"synopsis {re.split(r' [-–—(]|: |, ', self.synopsis.casefold())[0]}"


def read(index: Path) -> str:
    """Return the text of an index, whatever it is compressed with."""
    if not index.is_file():
        raise FileNotFoundError(
            f"no index at {index}; the docstring of {Path(__file__).name} says how to get it"
        )
    if index.suffix in OPENERS:
        with OPENERS[index.suffix](index, "rt", encoding="utf-8") as file:
            return str(file.read())
    if index.suffix == ".lz4":
        if not HELPER.exists():
            raise ValueError(f"{index} is read by {HELPER}, which is not here; decompress it with `lz4 -d`")
        return subprocess.run([HELPER, "cat-file", index], capture_output=True, check=True).stdout.decode()
    return index.read_text(encoding="utf-8")


def packages(index: str) -> Iterator[Package]:
    """Yield the entries that have a synopsis and a description."""
    for stanza in index.split("\n\n"):
        head, found, text = stanza.partition("\nDescription-en: ")
        name = re.match(r"Package: (\S+)", head.lstrip())
        synopsis, *lines = text.split("\n")
        paragraphs = tuple(_paragraphs(lines))
        if found and name and paragraphs and synopsis.strip():
            yield Package(name[1], " ".join(synopsis.split()), paragraphs)


def _paragraphs(lines: Iterable[str]) -> Iterator[str]:
    """Yield the paragraphs, without the marks of lists and without line breaks."""
    words: list[str] = []
    for line in [*(line.strip() for line in lines), "."]:
        if line == ".":
            if words:
                yield " ".join(words)
            words = []
        else:
            words += BULLET.sub("", line).split()


def families(entries: list[Package]) -> list[str]:
    """Return the family of each entry: the smallest key of all that are linked by shared keys."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for entry in entries:
        first, *others = (root(key) for key in entry.family())
        for other in others:
            first, other = sorted((root(first), root(other)))
            parent[other] = first
    return [root(next(entry.family())) for entry in entries]


def part_of(family: str) -> str:
    """Return train, dev or test, by a hash: it stays when other packages come or go."""
    place = int(sha256(family.encode()).hexdigest()[:8], 16) / 16**8
    for part, share in SHARES.items():
        if place < share:
            return part
        place -= share
    return "train"


def split(entries: Iterable[Package]) -> dict[str, list[tuple[str, str]]]:
    """Return the pairs of each part; a description is used once, with its first synopsis."""
    unique = list({entry.description: entry for entry in reversed(list(entries))}.values())[::-1]
    parts: dict[str, list[tuple[str, str]]] = {"train": [], "dev": [], "test": []}
    for entry, family in zip(unique, families(unique), strict=True):
        parts[part_of(family)].append((entry.description, entry.synopsis))
    return parts


def the_indices() -> list[Path]:
    """Return the indices that apt keeps on this machine."""
    return sorted(LISTS.glob("*_i18n_Translation-en*"))


def write(folder: Path, indices: list[Path]) -> dict[str, int]:
    """Write the three files, all or none; returns how many pairs they hold."""
    if folder.exists():
        raise FileExistsError(f"{folder} is there already; remove it, or name another folder")
    parts = split(entry for index in indices for entry in packages(read(index)))
    if not all(parts.values()):
        counts = {part: len(pairs) for part, pairs in parts.items()}
        raise ValueError(f"each part needs pairs, got {counts} of {[str(index) for index in indices]}")
    draft = folder.with_name(f"{folder.name}.draft")
    draft.mkdir(parents=True, exist_ok=True)
    for part, pairs in parts.items():
        lines = (f"{description}\t{synopsis}\n" for description, synopsis in pairs)
        (draft / f"{part}.tsv").write_text("".join(lines), encoding="utf-8")
    draft.replace(folder)
    return {part: len(pairs) for part, pairs in parts.items()}


def main() -> None:
    """Write what is asked for, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--index", type=Path, nargs="+", help="Translation-en; default: what apt keeps")
    options = parser.parse_args()
    indices = options.index or the_indices()
    if not indices:
        parser.error(f"no Translation-en under {LISTS}; fetch it as said above, and name it with --index")
    try:
        print(write(options.folder, indices))
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
