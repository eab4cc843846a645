"""Tasks: one file each, one `register` line each."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from rlseq.registry import register

register("rlseq/Copy-v0", "rlseq.envs.copy:Copy")
register("rlseq/Reverse-v0", "rlseq.envs.copy:Reverse")
register("rlseq/Enumerable-v0", "rlseq.envs.enumerable:Enumerable")
register("rlseq/Captions-v0", "rlseq.envs.captions:Captions")
register("rlseq/Oracle-v0", "rlseq.envs.oracle:OracleEnv")


def __getattr__(name: str) -> Any:
    """`rlseq.envs.oracle` and the like, imported when they are first named."""
    try:
        return import_module(f"{__name__}.{name}")
    except ModuleNotFoundError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
