"""The `rlseq` command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal


def main() -> None:
    """`demo` runs the demonstration, `envs` lists the tasks, `data inspect PATH` looks at a file."""
    import tyro

    try:
        tyro.extras.subcommand_cli_from_dict(
            {"demo": _demo, "envs": _envs, "data": _data}, prog="rlseq", description=__doc__
        )
    except (ValueError, TypeError, FileNotFoundError) as error:
        sys.exit(f"rlseq: {error}")


def _demo(seed: int = 0, likelihood_updates: int = 300, reinforce_updates: int = 1000) -> None:
    """Pre-train by likelihood, improve by REINFORCE, and show what each has learned.

    Args:
        seed: of everything.
        likelihood_updates: gradient steps on references.
        reinforce_updates: gradient steps on rewards.
    """
    from rlseq.demo import demo

    demo(seed, likelihood_updates, reinforce_updates)


def _envs() -> None:
    """List the registered tasks."""
    from rlseq.registry import describe

    for name, line in describe().items():
        sys.stdout.write(f"{name:22s} {line}\n")


def _data(
    action: Literal["inspect"],
    path: Path,
    /,
    level: str | None = None,
    max_len: int | None = None,
    texts: bool = False,
) -> None:
    """`rlseq data inspect PATH`: count what is in a file, and what is wrong with it.

    Args:
        action: inspect.
        path: as a task's.
        level: count by "char" or "word".
        max_len: count what is longer.
        texts: a text a line, as rlseq/Text-v0 reads it.
    """
    from rich import print as show

    from rlseq.inspection import inspect

    show(inspect(path, level=level, max_len=max_len, texts=texts))
