"""What took long to make is kept in a folder named by the content it was made from.

`$RLSEQ_CACHE`, or `rlseq` in the user's cache folder; an empty `RLSEQ_CACHE` keeps nothing. A folder appears
when it is complete, so that nobody ever reads half of one. Tensors are safetensors, all else is JSON.
"""

from __future__ import annotations

import json
import os
import struct
import warnings
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from shutil import copyfileobj, rmtree
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

WORTH = 1 << 20  # bytes of text from which on it pays


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
    if not (place / key).is_dir():
        with TemporaryDirectory(dir=place) as passing:
            new = Path(passing) / key
            new.mkdir()
            build(new)
            try:
                new.replace(place / key)
            except OSError:  # another process was quicker
                if not (place / key).is_dir():
                    raise
    yield place / key, True


def forget(key: str) -> None:
    """Remove what is kept; another process that does so at the same time is not disturbed."""
    place = home()
    if place is not None:
        away = place / f".{key}.{os.getpid()}"
        with suppress(FileNotFoundError):
            (place / key).replace(away)
        rmtree(away, ignore_errors=True)


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
