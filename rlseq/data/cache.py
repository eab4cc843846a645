"""What took long to make is kept in a folder named by the content it was made from.

`$RLSEQ_CACHE`, or `rlseq` in the user's cache folder; an empty `RLSEQ_CACHE` keeps nothing. A folder appears
when it is complete, so that nobody ever reads half of one. Tensors are safetensors, all else is JSON. A list
of checksums lies beside them, and `check` compares them before a file is used.
"""

from __future__ import annotations

import json
import os
import struct
import warnings
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from hashlib import blake2b, sha256
from pathlib import Path
from shutil import copyfileobj
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

WORTH = 1 << 20  # bytes of text from which on it pays


SEAL = "checksums.txt"  # of the other files of a folder


def home() -> Path | None:
    """Where results are kept, None for nowhere."""
    given = os.environ.get("RLSEQ_CACHE")
    if given is not None:
        return Path(given) if given else None
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rlseq"


def key_of(files: Sequence[Path], settings: Mapping[str, Any]) -> str:
    """A name for what comes of these files' content, whatever they are called, and these settings."""
    digest = blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16)
    for path in files:
        digest.update(str(path.stat().st_size).encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


@contextmanager
def kept(key: str | None, build: Callable[[Path], None]) -> Iterator[tuple[Path, bool]]:
    """The folder that `build` fills, made if it is not there yet, and whether it stays."""
    place = None if key is None else _writable()
    if place is None or key is None:
        with TemporaryDirectory(prefix="rlseq-") as passing:
            build(Path(passing))
            yield Path(passing), False
        return
    there = place / key
    if os.path.lexists(there) and (there.is_symlink() or not there.is_dir()):
        raise Damaged(f"{there} is damaged (wanted a folder, got a file or a link)")
    if not there.is_dir():
        with TemporaryDirectory(dir=place) as passing:  # its name cannot be foreseen, nor links planted in it
            new = Path(passing) / key
            new.mkdir()
            build(new)
            _seal(new)
            with suppress(
                OSError
            ):  # another process was quicker; `check` says whether what it wrote is whole
                new.replace(there)
    yield there, True


class Damaged(ValueError):
    """A folder of the cache does not hold what was written."""


def check(folder: Path, names: Iterable[str]) -> None:
    """Refuse a folder in which one of these files is not what was written; a file that never was is passed.

    A file that has not changed since is not read again by the same process.
    """
    try:
        own, _, listed = (folder / SEAL).read_bytes().partition(b"\n")
        if own != sha256(listed).hexdigest().encode():
            raise Damaged(f"{folder} is damaged ({SEAL} is not as it was written)")
        sums = dict(line.split("  ")[::-1] for line in listed.decode().splitlines())
        for name in sums.keys() & {*names}:
            found = (folder / name).stat()
            unchanged = found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
            if sums[name] != _checksum(folder / name, unchanged):
                raise Damaged(f"{folder} is damaged ({name} does not have the checksum it was written with)")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise Damaged(f"{folder} is damaged ({error})") from error


def forget(key: str) -> None:
    """Remove what is kept; another process that does so at the same time is not disturbed.

    A link is removed itself, never what it leads to.
    """
    place = home()
    if place is not None:
        with TemporaryDirectory(dir=place, ignore_cleanup_errors=True) as away, suppress(FileNotFoundError):
            (place / key).replace(Path(away) / key)


def _seal(folder: Path) -> None:
    """Write down the checksums of all files, and before them that of the list itself."""
    listed = "".join(f"{_digest(path)}  {path.name}\n" for path in sorted(folder.iterdir())).encode()
    (folder / SEAL).write_bytes(sha256(listed).hexdigest().encode() + b"\n" + listed)


@lru_cache(maxsize=1024)
def _checksum(path: Path, unchanged: tuple[int, ...]) -> str:
    """The checksum of a file, read once while what the file system says of it is the same."""
    return _digest(path)


def _digest(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _writable() -> Path | None:
    place = home()
    try:
        if place is not None:
            place.mkdir(parents=True, exist_ok=True)
            TemporaryDirectory(dir=place).cleanup()
    except OSError as error:
        mend = "set RLSEQ_CACHE to a folder that can be written, or to nothing"
        warnings.warn(
            f"what is read is not kept, as {place} cannot be written ({error}); {mend}", stacklevel=2
        )
        return None
    return place


class Column:
    """Numbers written to a file as they come, a block at a time, so that memory does not hold them."""

    BLOCK = 1 << 16

    def __init__(self, path: Path, kind: str) -> None:
        """`kind` is "I32" or "I64", as safetensors calls them."""
        self.path, self.kind, self.length = path, kind, 0
        self._file = path.open("wb")
        self._block = array("i" if kind == "I32" else "q")

    def extend(self, numbers: Iterable[int]) -> None:
        """More numbers."""
        before = len(self._block)
        self._block.extend(numbers)
        self.length += len(self._block) - before
        if len(self._block) >= self.BLOCK:
            self._flush()

    def put(self, numbers: NDArray[Any]) -> None:
        """More numbers, at once."""
        self._flush()
        numbers.astype(self._block.typecode).tofile(self._file)
        self.length += len(numbers)

    def close(self) -> NDArray[Any]:
        """All of them, looked at through the file."""
        self._flush()
        self._file.close()
        kind = np.int32 if self.kind == "I32" else np.int64
        return np.memmap(self.path, kind, "r") if self.length else np.zeros(0, kind)

    def _flush(self) -> None:
        self._block.tofile(self._file)
        del self._block[:]


def save(path: Path, columns: Mapping[str, Column]) -> None:
    """Closed columns as one safetensors file, copied block by block."""
    header, end = {}, 0
    for name, column in columns.items():
        size = column.path.stat().st_size
        header[name] = {"dtype": column.kind, "shape": [column.length], "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for column in columns.values():
            with column.path.open("rb") as part:
                copyfileobj(part, file)
            column.path.unlink()
