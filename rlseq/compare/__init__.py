"""Compare agents: equal budgets, several seeds, intervals that hold, and a report.

`rlseq.compare(…)` is a call, and `rlseq.compare.statistics` a module: this package can be called.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    """A package that can be called, as `rlseq.compare.run.compare`."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """See `rlseq.compare.run.compare`."""
        from rlseq.compare.run import compare

        return compare(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
