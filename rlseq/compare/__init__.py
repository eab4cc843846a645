"""Comparison of agents with equal budgets and several seeds: runs, statistics, tables and reports.

This package can be called: `rlseq.compare(…)` is `rlseq.compare.run.compare(…)`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    """A package that can be called, as `rlseq.compare.run.compare`."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Run a comparison: see `rlseq.compare.run.compare`."""
        from rlseq.compare.run import compare

        return compare(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
