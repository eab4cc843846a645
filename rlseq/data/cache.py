"""A cache of what took long to make, in folders named by the content they were made from.

`$RLSEQ_CACHE`, or `rlseq` in the user's cache folder; an empty `RLSEQ_CACHE` keeps nothing. A folder appears
when it is complete, so that nobody ever reads half of one. Arrays are raw numbers, all else is JSON. A list
of checksums lies beside them, and `check_files` compares them before a file is used.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import tempfile
import time
import warnings
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from hashlib import blake2b, sha256
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import Any
from zlib import crc32

import torch
from torch import Tensor

from rlseq.utils.files import Damaged

WORTH = 1 << 20  # bytes of text from which on it pays
SEAL = "checksums.txt"  # of the other files of a folder
DRAFT = f"rlseq-draft-{crc32(platform.node().encode()):08x}-"  # locks may hold for one machine only
FRESH = 60.0  # seconds; a younger draft may not be locked yet


def home() -> Path | None:
    """Return the folder of the cache, None where nothing is kept."""
    given = os.environ.get("RLSEQ_CACHE")
    if given is not None:
        return Path(given) if given else None
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rlseq"


def key_of(files: Sequence[Path], settings: Mapping[str, Any]) -> str:
    """Return a name for the result of these contents and settings, whatever the files are called."""
    digest = blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16)
    for path in files:
        digest.update(str(path.stat().st_size).encode())
        _update(digest, path)
    return digest.hexdigest()


@contextmanager
def kept(key: str | None, build: Callable[[Path], None]) -> Iterator[tuple[Path, bool]]:
    """Give the folder that `build` fills, made if it is not there yet, and whether it stays."""
    place = None if key is None else _writable()
    if place is None or key is None:
        with TemporaryDirectory(prefix="rlseq-") as passing:
            with _space(tempfile.gettempdir(), "TMPDIR"):
                build(Path(passing))
            yield Path(passing), False
        return
    there = place / key
    if os.path.lexists(there) and (there.is_symlink() or not there.is_dir()):
        raise Damaged(f"{there} is damaged (wanted a folder, got a file or a link)")
    if not there.is_dir():
        with _space(place, "RLSEQ_CACHE"), _draft(place) as draft:
            new = draft / key
            new.mkdir()
            build(new)
            _seal(new)
            with suppress(OSError):  # another process was quicker; `check_files` tells whether it is whole
                new.replace(there)
    yield there, True


@contextmanager
def _space(place: str | Path, setting: str) -> Iterator[None]:
    """Name the full disk, and the setting that chooses another one."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        mend = f"make room, or set {setting} to a folder on another disk"
        message = f"no space is left in {place} for the data in the form in which they are used; {mend}"
        raise OSError(error.errno, message) from error


@contextmanager
def _draft(place: Path) -> Iterator[Path]:
    """A new folder in the cache, removed in the end; those that a kill has left are removed before.

    A folder in use is locked, and the system ends the lock with the process. Its name cannot be foreseen, nor
    links planted in it.
    """
    for left in place.glob(f"{DRAFT}*"):
        with suppress(OSError):  # it is locked, or gone, or the file system has no locks
            if time.time() - left.stat().st_mtime > FRESH:
                with _locked(left):
                    rmtree(left)
    with TemporaryDirectory(prefix=DRAFT, dir=place) as made, ExitStack() as lock:
        with suppress(OSError):
            lock.enter_context(_locked(Path(made)))
        yield Path(made)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder; an `OSError` where another process holds it."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def check_files(folder: Path, names: Iterable[str]) -> None:
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
    """Remove the folder of a key, also while other processes remove it.

    A link is removed itself, never what it leads to.
    """
    place = home()
    if place is not None:
        with _draft(place) as away, suppress(FileNotFoundError):
            (place / key).replace(away / key)


def _seal(folder: Path) -> None:
    """Write down the checksums of all files, and before them that of the list itself."""
    listed = "".join(f"{_digest(path)}  {path.name}\n" for path in sorted(folder.iterdir())).encode()
    (folder / SEAL).write_bytes(sha256(listed).hexdigest().encode() + b"\n" + listed)


@lru_cache(maxsize=1024)
def _checksum(path: Path, unchanged: tuple[int, ...]) -> str:
    """Return the checksum of a file, which is read again only where the file system says that it changed."""
    return _digest(path)


def _digest(path: Path) -> str:
    digest = sha256()
    _update(digest, path)
    return digest.hexdigest()


def _update(digest: Any, path: Path) -> None:
    """Add the content of a file to a checksum, a block at a time."""
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)


def _writable() -> Path | None:
    place = home()
    try:
        if place is not None:
            place.mkdir(parents=True, exist_ok=True)
            TemporaryDirectory(prefix=DRAFT, dir=place).cleanup()
    except OSError as error:
        mend = "set RLSEQ_CACHE to a folder that can be written, or to nothing"
        warnings.warn(
            f"what is read is not kept, as {place} cannot be written ({error}); {mend}", stacklevel=2
        )
        return None
    return place


class ArrayWriter:
    """Numbers added to a file as they come, a block at a time, so that memory does not hold them."""

    BLOCK = 1 << 16

    def __init__(self, path: Path, dtype: torch.dtype) -> None:
        """Begin an empty file of `torch.uint8`, `torch.int32` or `torch.int64`."""
        self.path, self.dtype, self.length = path, dtype, 0
        self._block = array({torch.uint8: "B", torch.int32: "i", torch.int64: "q"}[dtype])
        path.touch()

    def extend(self, numbers: Iterable[int]) -> None:
        """Add numbers."""
        before = len(self._block)
        self._block.extend(numbers)
        self.length += len(self._block) - before
        if len(self._block) >= self.BLOCK:
            self._flush()

    def close(self) -> Tensor:
        """Write the last block, and return all numbers, mapped into memory."""
        self._flush()
        return mapped(self.path, self.dtype)

    def _flush(self) -> None:
        with self.path.open("ab") as file:
            file.write(self._block)
        del self._block[:]


def mapped(path: Path, dtype: torch.dtype) -> Tensor:
    """The numbers of a file, mapped into memory and not read before they are used."""
    return torch.from_file(str(path), shared=False, size=path.stat().st_size // dtype.itemsize, dtype=dtype)
