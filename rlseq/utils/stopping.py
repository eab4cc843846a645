"""Signals that ask a program to stop: the first is noted, so that work ends in order, a second one acts."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass
class Stop:
    """A signal handler: the first signal is noted, and a second one ends the program at once.

    Args:
        notice: is written to standard error at the first signal.
        asked: the number of the first signal; 0 until there is one.
    """

    notice: str
    asked: int = 0

    def __call__(self, number: int, frame: Any) -> None:
        """Note the signal, or end."""
        if self.asked:
            raise self.ending()
        self.asked = number
        sys.stderr.write(f"rlseq: {self.notice}\n")

    def ending(self) -> BaseException:
        """The exception with which work ends that was asked to stop."""
        return KeyboardInterrupt() if self.asked == signal.SIGINT else SystemExit(128 + self.asked)


@contextmanager
def stopping(notice: str) -> Iterator[Stop]:
    """Note Ctrl-C, and SIGTERM where nobody else handles it; outside of the main thread nothing can be noted.

    Args:
        notice: what the user is told at the first signal.
    """
    stop = Stop(notice)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {signal.SIGINT: signal.signal(signal.SIGINT, stop)}
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        before[signal.SIGTERM] = signal.signal(signal.SIGTERM, stop)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
