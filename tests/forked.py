"""Run programs in processes that have imported torch already, which takes longer than most programs do.

    processes = Forked("torch", options=("-W", "error"))
    processes.run("print(1)", folder)

A program is forked from a process that has imported the named modules and nothing of rlseq, so that it must
import all that it uses.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from select import select
from types import ModuleType
from typing import NamedTuple

LONGEST = 1 << 16  # bytes of a request
SECONDS = 120.0  # that a program may take


class Ended(NamedTuple):
    """The end of a program."""

    returncode: int
    stdout: str
    stderr: str


class Program:
    """A program that runs in a process and a session of its own.

    Args:
        outputs: the files of its standard output and of its errors.
        answers: a pipe from which the id of the process is read, and its status when it has ended.
    """

    def __init__(self, outputs: Sequence[Path], answers: int) -> None:
        self.outputs, self._answers = outputs, answers
        self.pid = self._answer()
        self.returncode: int | None = None

    def _answer(self) -> int:
        return int.from_bytes(os.read(self._answers, 8), "big", signed=True)

    def poll(self, seconds: float = 0.0) -> int | None:
        """Wait for some seconds at most; return the status, None while the program goes on."""
        if self.returncode is None and select([self._answers], [], [], seconds)[0]:
            self.returncode = self._answer()
            os.close(self._answers)
        return self.returncode

    def wait(self) -> Ended:
        """Return how the program ended; kill it if it has not ended in time."""
        if self.poll(SECONDS) is None:
            self.send_signal(signal.SIGKILL)
            self.poll(SECONDS)
        assert self.returncode is not None
        return Ended(self.returncode, *(path.read_text("utf-8") for path in self.outputs))

    def send_signal(self, number: int) -> None:
        """Send a signal to the process."""
        os.kill(self.pid, number)


class Forked:
    """A process that forks one for each program.

    Args:
        *modules: are imported before, torch among them.
        options: options of the interpreter.
    """

    def __init__(self, *modules: str, options: Sequence[str] = ()) -> None:
        self._requests, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, *options, __file__, str(theirs.fileno()), *modules],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # so that it can be forked
        )
        theirs.close()

    def start(self, code: str, folder: Path) -> Program:
        """Start a program in a folder; its output goes to files beside the folder."""
        outputs = [folder.with_name(f"{folder.name}.{name}") for name in ("stdout", "stderr")]
        handles = [os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for path in outputs]
        answers, theirs = os.pipe()
        request = json.dumps([code, str(folder)]).encode()
        assert len(request) <= LONGEST
        socket.send_fds(self._requests, [request], [*handles, theirs])
        for handle in (*handles, theirs):
            os.close(handle)
        return Program(outputs, answers)

    def run(self, code: str, folder: Path) -> Ended:
        """Run a program in a folder and return how it ended."""
        return self.start(code, folder).wait()

    def close(self) -> None:
        """End the process."""
        self._requests.close()
        self._process.wait()


# ── in the process ───────────────────────────────────────────────────────────────────────────────────────


def serve(requests: socket.socket) -> None:
    """Fork a process for each request, which starts the program and tells its status."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    while True:
        request, handles, *_ = socket.recv_fds(requests, LONGEST, 3)
        if not request:
            return
        if os.fork() == 0:
            try:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                watch(*json.loads(request), *handles)
            finally:
                os._exit(0)
        for handle in handles:
            os.close(handle)


def watch(code: str, folder: str, out: int, errors: int, answers: int) -> None:
    """Start a program; write the id of its process to a pipe, and its status when it has ended."""
    pid = os.fork()
    if pid == 0:
        os.close(answers)
        os.setsid()
        os.dup2(out, 1)
        os.dup2(errors, 2)
        os._exit(run(code, folder))
    os.write(answers, pid.to_bytes(8, "big"))
    _, status = os.waitpid(pid, 0)
    os.write(answers, os.waitstatus_to_exitcode(status).to_bytes(8, "big", signed=True))


def run(code: str, folder: str) -> int:
    """Run a program as `python -c` does, in this process, and return its status."""
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


if __name__ == "__main__":
    for name in sys.argv[2:]:
        import_module(name)
    torch = sys.modules["torch"]
    assert torch.get_num_threads() == 1, torch.get_num_threads()
    serve(socket.socket(fileno=int(sys.argv[1])))
