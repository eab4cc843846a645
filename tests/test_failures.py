"""How a command ends: refusals, errors of the system, errors of the user's own code, and bugs."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

import rlseq
from rlseq.cli import command_line as cli
from rlseq.cli import training
from tests.campaigns.test_command_line import typed

TRAINED = [
    *("train", "mle", "--env", "rlseq/Copy-v0", "--option", "length=3", "items=20", "num_envs=4"),
    *("--policy", "gru", "hidden=4", "--budget-tokens", "40", "--evaluations", "1", "--texts", "4"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("failures") / "run")
    status, _, said = typed([*TRAINED, "--out", folder])
    assert status == 0, said
    return folder


def test_a_bug_says_that_it_is_one_and_where_its_report_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(training, "run", None)  # so that rlseq calls what is no function
    status, _, said = typed(["train", "mle", "--env", "rlseq/Copy-v0"])
    (report,) = tmp_path.iterdir()
    assert status == 1
    assert said.startswith("rlseq: this is a bug in rlseq, not in what was typed: TypeError: 'NoneType'")
    assert str(report) in said
    assert "Traceback" not in said
    content = report.read_text("utf-8")
    assert "rlseq 'train' 'mle' '--env' 'rlseq/Copy-v0'" in content
    assert "Traceback (most recent call last)" in content
    monkeypatch.setenv("RLSEQ_DEBUG", "1")
    with pytest.raises(TypeError, match="NoneType"):
        typed(["train", "mle", "--env", "rlseq/Copy-v0"])


def test_an_error_in_code_of_the_user_is_shown_with_their_part_of_the_traceback(tmp_path: Path) -> None:
    class Raising(rlseq.SequenceEnv):
        """A task whose reward raises."""

        def __init__(self, **options: Any) -> None:
            super().__init__(vocab=rlseq.Vocab.numbered(4), max_len=3, reward=self.judge_text, **options)

        def judge_text(self, tokens: Any, mask: Any, context: Any) -> Any:
            raise ZeroDivisionError("in a bad mood")

    rlseq.register("tests/Raising-v0", Raising)
    status, _, said = typed(
        ["train", "reinforce", "--env", "tests/Raising-v0", "--out", str(tmp_path / "run")]
    )
    assert status == 1
    assert said.startswith("rlseq: ZeroDivisionError in code of your own, which rlseq has called:\n")
    assert "in judge_text" in said
    assert "cli.py" not in said
    assert "bug" not in said


def with_two_arguments(tokens: Any, mask: Any) -> Any:
    return mask.sum(1).float()


class WithoutArguments:
    """A reward that takes nothing."""

    def __call__(self) -> Any:
        return None


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (with_two_arguments, "with_two_arguments() takes 2 positional arguments but 3 were given"),
        (WithoutArguments(), "WithoutArguments.__call__() takes 1 positional argument but 4 were given"),
    ],
)
def test_a_function_of_the_user_with_other_arguments_is_named(
    reward: Any, message: str, tmp_path: Path
) -> None:
    class Called(rlseq.SequenceEnv):
        """A task with a reward that takes other arguments."""

        def __init__(self, **options: Any) -> None:
            super().__init__(vocab=rlseq.Vocab.numbered(4), max_len=3, reward=reward, **options)

    rlseq.register(f"tests/Called{len(message)}-v0", Called)
    words = ["train", "reinforce", "--env", f"tests/Called{len(message)}-v0", "--out", str(tmp_path / "run")]
    status, _, said = typed([*words, "--alarms", "ignore"])
    assert status == 1
    assert said.startswith(f"rlseq: code of your own ({__file__}, line ")
    assert f"does not take what rlseq gives it: {message}\n  answer = part(tokens, mask" in said


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_cannot_be_written_is_named(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = Mock(side_effect=OSError(number, os.strerror(number), str(tmp_path / "run")))
    monkeypatch.setattr("os.fsync", full)
    status, _, said = typed([*TRAINED, "--out", str(tmp_path / "run")])
    assert status == 2
    assert said.splitlines()[-1] == f"rlseq: {tmp_path / 'run'}: {os.strerror(number)}"


@pytest.mark.parametrize("decode", ["greedy", "beam"])
def test_a_reader_that_stops_reading_is_no_error(run: str, decode: str) -> None:
    command = [sys.executable, "-m", "rlseq", "generate", run, "--decode", decode, *["a b c"] * 300]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait() == 1


@pytest.mark.parametrize(
    ("redirected", "status", "message"),
    [
        ("> /dev/full", 2, "No space left on device"),
        (">&-", 0, ""),
        ("< /dev/null", 2, "no sources: give them after the run"),
        ("<&-", 2, "no sources: give them after the run"),
        ("< $FILE", 2, "standard input is not UTF-8"),
    ],
)
def test_streams_may_be_closed_or_full(
    run: str, tmp_path: Path, redirected: str, status: int, message: str
) -> None:
    (tmp_path / "file").write_bytes(b"a b \xff\n")
    texts = "'a b c'" if ">" in redirected else ""
    line = f"{sys.executable} -m rlseq generate {run} {texts} {redirected}"
    found = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, check=False,
        env={**os.environ, "FILE": str(tmp_path / "file")},
    )  # fmt: skip
    assert found.returncode == status, found.stderr
    assert message in found.stderr
    assert "Traceback" not in found.stderr
    assert "Exception ignored" not in found.stderr


def test_arguments_that_are_no_text_are_refused() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "rlseq", "evaluate", b"\xff"], capture_output=True, check=False
    )
    assert found.returncode == 2
    assert found.stderr == b"rlseq: word 2 of the command must be text in UTF-8, got '\\udcff'\n"


@pytest.mark.parametrize(
    "content", ["[1, 2]", "a: [", "a: 2020-01-01", "- x", "\x00", "lr: x", "decode: {a: 1}"]
)
def test_files_of_settings_are_refused_by_their_name_or_the_setting(content: str, tmp_path: Path) -> None:
    path = tmp_path / "x[/x].yaml".replace("/", "-")
    path.write_text(content, "utf-8")
    status, _, said = typed(["train", "scst", "--config", str(path)])
    assert status == 2
    assert str(path) in said or said.startswith(("rlseq: lr must be", "rlseq: decode has no option 'a'"))
    assert len(said.splitlines()) == 1


def test_the_command_closes_what_it_opened() -> None:
    """Its streams are those of the caller."""
    before = sys.stdin, sys.stdout, sys.stderr
    cli._open_streams()
    assert before == (sys.stdin, sys.stdout, sys.stderr)
