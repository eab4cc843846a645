"""The time that a fit may take, and the choices that depend on it, which a resumed fit must make again."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from rlseq.utils.files import Json, read_sealed, write_sealed

Choice = TypeVar("Choice", bool, int, float, dict[str, float])


class Clock:
    """Counts the seconds of all calls together, and keeps every choice that depends on them.

    Args:
        path: the file of seconds and choices.
        limit: seconds that may be spent; None for as many as it takes.
    """

    def __init__(self, path: Path, limit: float | None) -> None:
        self.path, self.limit = path, limit
        found: Json = read_sealed(path) if path.exists() else {"seconds": 0.0, "choices": {}}
        self.before, self.choices = found["seconds"], found["choices"]
        self.began = time.perf_counter()

    @property
    def spent(self) -> float:
        """Seconds so far."""
        return float(self.before + time.perf_counter() - self.began)

    def left(self, share: float = 1.0) -> float:
        """Return the seconds until a share of the limit is spent; infinite where there is no limit."""
        return float("inf") if self.limit is None else share * self.limit - self.spent

    def once(self, name: str, choose: Callable[[], Choice]) -> Choice:
        """Return a choice, which is made and written down when it is first asked for."""
        if name not in self.choices:
            self.choices[name] = choose()
        write_sealed(self.path, {"seconds": self.spent, "choices": self.choices})
        chosen: Choice = self.choices[name]
        return chosen
