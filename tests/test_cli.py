"""What people see: the demonstration and the command."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest


def rlseq_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rlseq", *arguments], capture_output=True, text=True, check=False, timeout=120
    )


def test_the_demonstration_says_what_it_does_and_shows_what_was_learned(capsys: Any) -> None:
    from rlseq.demo import demo

    demo(likelihood_updates=3, reinforce_updates=3)
    seen = capsys.readouterr().out
    for words in (
        "write them backwards",
        "3/3 updates",
        "untrained",
        "likelihood",
        "REINFORCE",
        "greedy",
        "wanted",
    ):
        assert words in seen


def test_the_tasks_are_listed() -> None:
    result = rlseq_command("envs")
    assert result.returncode == 0, result.stderr
    for id in ("rlseq/Copy-v0", "rlseq/Reverse-v0", "rlseq/Enumerable-v0", "rlseq/Oracle-v0"):
        assert id in result.stdout


def test_help_does_not_wait_for_torch() -> None:
    program = (
        "import sys; from rlseq.cli import main; sys.argv = ['rlseq', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "demo" in result.stdout


@pytest.mark.parametrize("arguments", [("demonstrate",), ("demo", "--sed", "1")])
def test_a_mistyped_command_ends_with_status_2(arguments: tuple[str, ...]) -> None:
    result = rlseq_command(*arguments)
    assert result.returncode == 2
