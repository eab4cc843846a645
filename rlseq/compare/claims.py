"""Claims on runs in a folder that several machines share: one worker at a time, and another if it ends.

A claim is a file with a number, made only if it is not there; the highest number counts. Its worker touches
it while it works. One that has not been touched for a while has lost its worker, and the next number is free.
Times are those of the file system, so that clocks of machines may differ.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any, NamedTuple

from rlseq.utils.files import make_folder, write_whole

EXPIRES = 60.0  # seconds without a touch after which the worker of a claim counts as lost
ATTEMPTS = 3  # workers that may be lost with a run before it counts as failed
CLAIMS = "claims"  # in the folder of a run


class Claim(NamedTuple):
    """The claim of a worker on a run."""

    run: Path
    number: int

    @property
    def path(self) -> Path:
        """The file."""
        return self.run / CLAIMS / f"{self.number:06d}.json"

    def touch(self) -> bool:
        """Say that the worker is at work; return False if another one has taken over."""
        os.utime(self.path)
        return not self._after().exists()

    def failed(self, reason: str) -> None:
        """Say that the run has failed."""
        write_whole(self.path, json.dumps({"failed": reason}).encode())

    def release(self) -> None:
        """Give the run back, so that it is free at once."""
        self.path.unlink(missing_ok=True)

    def _after(self) -> Path:
        return self._replace(number=self.number + 1).path


def last_claim(run: Path) -> Claim | None:
    """Return the claim on a run that counts; None where there is none."""
    numbers = [int(path.stem) for path in (run / CLAIMS).glob("*.json") if path.stem.isdecimal()]
    return Claim(run, max(numbers)) if numbers else None


def failure_of_run(run: Path) -> str | None:
    """Return why a run has failed; None if it has not."""
    claim = last_claim(run)
    found: Any = None
    try:
        found = None if claim is None else json.loads(claim.path.read_bytes() or b"{}").get("failed")
    except (FileNotFoundError, ValueError):  # given back, or being written at this moment
        return None
    return None if found is None else str(found)


def claimed(run: Path) -> Claim | None:
    """Claim a run, if it is free; None if it is not. A run that has lost too many workers fails."""
    make_folder(run / CLAIMS)
    before = last_claim(run)
    if before is not None and (failure_of_run(run) is not None or not _expired(before)):
        return None
    claim = Claim(run, 1 if before is None else before.number + 1)
    try:
        os.close(os.open(claim.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    except FileExistsError:  # another worker was faster
        return None
    if claim.number > ATTEMPTS:
        claim.failed(f"it has lost {ATTEMPTS} workers one after the other, which all ended without a word")
        return None
    return claim


def forget_failures(run: Path) -> None:
    """Let a run that has failed be tried again."""
    if failure_of_run(run) is not None:
        for path in (run / CLAIMS).glob("*.json"):
            path.unlink()


def _expired(claim: Claim) -> bool:
    try:
        touched = claim.path.stat().st_mtime
    except FileNotFoundError:  # given back
        return False  # the next look finds it free
    with _clock(claim.path.parent) as now:
        return now - touched > EXPIRES


@contextmanager
def _clock(folder: Path) -> Iterator[float]:
    """Return the time of the file system that holds a folder."""
    path = folder / f".{token_hex(8)}.clock"
    path.touch()
    try:
        yield path.stat().st_mtime
    finally:
        path.unlink(missing_ok=True)
