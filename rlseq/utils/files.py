"""Files that are written whole, checked when they are read, and written by one process at a time."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterable, Mapping
from io import TextIOWrapper
from pathlib import Path
from typing import Any
from weakref import WeakSet

Json = dict[str, Any]
START_ANEW = "put back a copy of it, or start anew in another folder"


class Damaged(ValueError):
    """A file is not as it was written."""


def checksum(data: bytes) -> str:
    """The SHA-256 of some bytes, with the name of the method."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


# ── whole files ──────────────────────────────────────────────────────────────────────────────────────────


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that a kill or a full disk leaves either the new content or the old one.

    The bytes go to a draft with a random name, are synchronised, and the draft is renamed.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}.draft")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    synchronise(path.parent)


def synchronise(folder: Path) -> None:
    """Make the names in a folder durable, too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder whose name is durable, if it is not there."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        synchronise(folder.parent)


def remove_drafts(folder: Path) -> None:
    """Remove the drafts that a kill left in a folder; only its one writer may do so."""
    for path in folder.glob(".*.draft"):
        path.unlink()


def opened(path: Path, flags: int) -> int:
    """Open a regular file that has one name; a link is refused, because its target would be written."""
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError(f"{path} is a link; remove it, because rlseq would write its target") from None
        raise
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(handle)
        kind = "a file with a second name" if stat.S_ISREG(found.st_mode) else "no regular file"
        raise ValueError(f"{path} is {kind}; remove it, because rlseq writes a file of its own there")
    return handle


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────────────


def write_json(path: Path, content: Any) -> None:
    """Write readable JSON, whole or not at all."""
    write_whole(path, readable(content))


def readable(content: Any) -> bytes:
    """Return JSON as people read it."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with a checksum of its content, which `read_sealed` compares."""
    write_whole(path, sealed(content))


def sealed(content: Mapping[str, Any]) -> bytes:
    """Return readable JSON of an object, with a checksum of its content."""
    return readable({**content, "checksum": checksum(canonical(content))})


def read_sealed(path: Path) -> Json:
    """Read what `write_sealed` wrote, without the checksum; anything else is `Damaged`."""
    return unsealed(read_json(path), path)


def unsealed(content: Mapping[str, Any], path: Path) -> Json:
    """The content of a sealed file that has been read, checked and without its checksum."""
    plain = {name: value for name, value in content.items() if name != "checksum"}
    if content.get("checksum") != checksum(canonical(plain)):
        raise Damaged(f"{path} was changed after it was written (its checksum differs); {START_ANEW}")
    return plain


def read_json(path: Path) -> Json:
    """Read a JSON object; a file that is missing, or holds anything else, is `Damaged`."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise Damaged(f"{path} cannot be read ({_why(error)}); {START_ANEW}") from error
    if not isinstance(found, dict):
        raise Damaged(f"{path} must hold a JSON object, got {type(found).__name__}; {START_ANEW}")
    return found


def canonical(content: Any) -> bytes:
    """JSON in the one form of which checksums are taken."""
    return json.dumps(content, separators=(",", ":")).encode()


def _why(error: BaseException) -> str:
    """An error in a few words, without the path that the message names already."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


# ── files that grow ──────────────────────────────────────────────────────────────────────────────────────


class Journal:
    """A file that lines are added to, and a running checksum, so that its beginning can be checked later.

    A mark (`bytes` and `sha256` of the lines so far) costs the same however long the file is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None
        self._size, self._sum = 0, hashlib.sha256()

    def read(self, mark: Mapping[str, Any] | None) -> bytes:
        """Return what was written up to a mark, checked; without a mark nothing was. Changes no file."""
        if mark is None:
            return b""
        data = read_marked(self.path, mark)
        self._size, self._sum = len(data), hashlib.sha256(data)
        return data

    def open(self) -> None:
        """Prepare for new lines: whatever follows those that were read is cut off."""
        self._handle = opened(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.ftruncate(self._handle, self._size)
        os.fsync(self._handle)
        synchronise(self.path.parent)

    def append(self, lines: Iterable[str]) -> None:
        """Add lines; all of them, or none where the disk is full."""
        data = "".join(f"{line}\n" for line in lines).encode()
        assert self._handle is not None
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._handle, view) :]
        except OSError:
            os.ftruncate(self._handle, self._size)
            raise
        self._size += len(data)
        self._sum.update(data)

    def mark(self) -> Json:
        """Make all lines durable; returns their length and checksum."""
        assert self._handle is not None
        os.fsync(self._handle)
        return {"bytes": self._size, "sha256": self._sum.hexdigest()}

    def close(self) -> None:
        """Close the file."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def read_marked(path: Path, mark: Mapping[str, Any]) -> bytes:
    """Return the beginning of a file that a mark describes; it is `Damaged` where the bytes are others."""
    if not mark["bytes"] and not path.is_symlink() and not path.exists():
        return b""
    try:
        with os.fdopen(opened(path, os.O_RDONLY), "rb") as file:
            data = file.read(mark["bytes"])
    except OSError as error:
        raise Damaged(f"{path} cannot be read ({_why(error)}); {START_ANEW}") from error
    if len(data) < mark["bytes"]:
        found = f"ends after {len(data):,} of the {mark['bytes']:,} bytes that were written"
    elif hashlib.sha256(data).hexdigest() != mark["sha256"]:
        found = f"was changed after it was written: the checksum of its first {len(data):,} bytes differs"
    else:
        return data
    raise Damaged(f"{path} {found}; {START_ANEW}")


# ── one writer ───────────────────────────────────────────────────────────────────────────────────────────

_LOCKS: WeakSet[TextIOWrapper] = WeakSet()


def locked(path: Path) -> TextIOWrapper:
    """Return an open file that no other process holds; the system frees it when its holder ends.

    Nothing is written to it before `sign`. Forked processes do not share it: they would hold it on.
    """
    file = os.fdopen(opened(path, os.O_RDWR | os.O_CREAT), "r+", encoding="utf-8", errors="replace")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = file.read(20).strip() or "unknown"
        file.close()
        raise ValueError(
            f"{path.parent} is being written by process {holder}; wait for it, or write to another folder"
        ) from None
    _LOCKS.add(file)
    return file


def _leave_locks() -> None:
    """Close the locks of the process that this one was forked from, which keeps them."""
    for file in list(_LOCKS):
        file.close()


os.register_at_fork(after_in_child=_leave_locks)


def sign(lock: TextIOWrapper) -> None:
    """Write into a lock which process holds it."""
    lock.seek(0)
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
