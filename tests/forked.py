"""Run programs in processes that have imported torch already, which takes longer than most programs do.

    process = Forked("-W", "error")
    process.run("print(1)", folder)

A program is forked from a process that has imported torch and nothing of rlseq, so that it must import all
that it uses.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import NamedTuple


class Ended(NamedTuple):
    """The end of a program."""

    returncode: int
    stdout: str
    stderr: str


class Forked:
    """A process that forks one for each program.

    Args:
        options: options of the interpreter.
    """

    def __init__(self, *options: str) -> None:
        self.parent = subprocess.Popen(
            [sys.executable, *options, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # so that it can be forked
        )

    def run(self, code: str, folder: Path) -> Ended:
        """Run a program in a folder and return how it ended."""
        assert self.parent.stdin is not None
        assert self.parent.stdout is not None
        self.parent.stdin.write(json.dumps([code, str(folder)]) + "\n")
        self.parent.stdin.flush()
        status = int(self.parent.stdout.readline())
        return Ended(status, *(_output(folder, name).read_text("utf-8") for name in ("stdout", "stderr")))

    def close(self) -> None:
        """End the process."""
        self.parent.communicate()


def _output(folder: Path, name: str) -> Path:
    return folder.with_name(f"{folder.name}.{name}")


def _child(code: str, folder: Path) -> int:
    """Run a program as `python -c` does, in this process."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(_output(folder, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(folder)
    sys.argv, sys.path[0] = ["-c"], ""
    main = sys.modules["__main__"] = ModuleType("__main__")
    try:
        exec(compile(code, "<string>", "exec"), vars(main))
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:  # an interrupt, too, ends in its traceback
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _serve() -> None:
    import torch

    assert torch.get_num_threads() == 1, torch.get_num_threads()
    for line in sys.stdin:
        code, folder = json.loads(line)
        child = os.fork()
        if child == 0:
            os._exit(_child(code, Path(folder)))
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
