"""Files that are whole, checked, and written by one process at a time."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlseq.utils.files import (
    Damaged,
    Journal,
    locked,
    read_marked,
    read_sealed,
    remove_drafts,
    sign,
    write_sealed,
    write_whole,
)

CONTENT = {"name": "ä", "numbers": [0.1 + 0.2, 1, None, float("inf")], "nested": {"true": True}}


def test_a_sealed_file_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_sealed(path, CONTENT)
    assert read_sealed(path) == CONTENT


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-5], "cannot be read"),
        (lambda data: b"", "cannot be read"),
        (lambda data: data.replace(b"0.3", b"0.4"), "its checksum differs"),
        (lambda data: data.replace(b"true\n", b"false\n"), "its checksum differs"),
        (lambda data: data.replace(b'"checksum"', b'"checksun"'), "its checksum differs"),
        (lambda data: b"[1, 2]", "must hold a JSON object, got list"),
        (lambda data: b'{"checksum": 3}', "its checksum differs"),
        (lambda data: b"\xff\xfe", "cannot be read"),
        (lambda data: b"[" * 100_000, "cannot be read"),
    ],
)
def test_a_sealed_file_that_was_changed_is_named(
    tmp_path: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    path = tmp_path / "file.json"
    write_sealed(path, CONTENT)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(Damaged, match=message) as error:
        read_sealed(path)
    assert str(error.value).startswith(f"{path} ")
    path.unlink()
    with pytest.raises(Damaged, match=r"cannot be read \(No such file or directory\)"):
        read_sealed(path)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of the user, to which planted links lead."""
    path = tmp_path / "victim"
    path.write_text("precious", "utf-8")
    return path


LINKS: list[Any] = [
    lambda link, target: link.symlink_to(target),
    lambda link, target: link.hardlink_to(target),
]


@pytest.mark.parametrize("plant", LINKS)
@pytest.mark.parametrize("name", ["run.json", ".run.json.draft", ".run.json.0123456789abcdef.draft"])
def test_links_in_the_place_of_a_file_or_its_draft_do_no_harm(
    tmp_path: Path, victim: Path, name: str, plant: Any
) -> None:
    plant(tmp_path / name, victim)
    write_sealed(tmp_path / "run.json", CONTENT)
    assert read_sealed(tmp_path / "run.json") == CONTENT
    assert not (tmp_path / "run.json").is_symlink()
    remove_drafts(tmp_path)
    assert victim.read_text("utf-8") == "precious"
    assert {path.name for path in tmp_path.iterdir()} == {"run.json", "victim"}


@pytest.mark.parametrize("plant", LINKS)
def test_links_in_the_place_of_a_lock_or_a_journal_are_refused_by_name(
    tmp_path: Path, victim: Path, plant: Any
) -> None:
    path = tmp_path / "lock"
    plant(path, victim)
    with pytest.raises(ValueError, match=rf"{path} is a (link|file with a second name); remove it"):
        locked(path)
    with pytest.raises(ValueError, match=rf"{path} is a (link|file with a second name); remove it"):
        Journal(path).open()
    assert victim.read_text("utf-8") == "precious"


def test_a_pipe_in_the_place_of_a_lock_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock")
    with pytest.raises(ValueError, match="is no regular file; remove it"):
        locked(tmp_path / "lock")


def test_a_lock_is_held_by_one_and_names_it_when_signed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_bytes(b"\xff stale")
    first = locked(path)
    assert path.read_bytes() == b"\xff stale"
    sign(first)
    with pytest.raises(ValueError, match=rf"is being written by process {os.getpid()};"):
        locked(path)
    first.close()
    locked(path).close()


def test_a_journal_is_checked_up_to_a_mark_and_cut_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    first = Journal(path)
    first.open()
    first.append(["one", "zwei ä"])
    mark = first.mark()
    first.append(["three"])
    first.close()
    again = Journal(path)
    before = path.read_bytes()
    assert again.read(mark) == "one\nzwei ä\n".encode()
    assert path.read_bytes() == before
    again.open()
    assert again.mark() == mark
    again.append(["drei"])
    assert path.read_text("utf-8") == "one\nzwei ä\ndrei\n"
    assert read_marked(path, again.mark()) == path.read_bytes()
    again.close()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:5], "ends after 5 of the 8 bytes"),
        (lambda data: data.replace(b"o", b"0"), "was changed after it was written"),
        (lambda data: b"", "ends after 0 of the 8 bytes"),
    ],
)
def test_a_journal_that_was_changed_is_refused(
    tmp_path: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    journal = Journal(tmp_path / "journal")
    journal.open()
    journal.append(["one", "two"])
    mark = journal.mark()
    journal.close()
    journal.path.write_bytes(damage(journal.path.read_bytes()))
    with pytest.raises(Damaged, match=message):
        Journal(journal.path).read(mark)
    journal.path.unlink()
    with pytest.raises(Damaged, match=r"journal cannot be read \(No such file or directory\)"):
        Journal(journal.path).read(mark)


def test_a_full_disk_adds_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, real = Journal(tmp_path / "journal"), os.write
    journal.open()
    journal.append(["one"])

    def full(handle: int, data: Any) -> int:
        if len(data) < 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(handle, data[:4])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            journal.append(["two", "three"])
    assert journal.path.read_text("utf-8") == "one\n"
    journal.append(["two"])
    assert read_marked(journal.path, journal.mark()) == b"one\ntwo\n"
    journal.close()


def test_an_error_leaves_the_old_file_and_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / "file", b"old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "file", b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]
