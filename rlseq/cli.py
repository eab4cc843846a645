"""The `rlseq` command."""

from __future__ import annotations

import sys


def main() -> None:
    """`rlseq demo` runs the demonstration; `rlseq envs` lists the tasks."""
    import tyro

    try:
        tyro.extras.subcommand_cli_from_dict(
            {"demo": _demo, "envs": _envs}, prog="rlseq", description=__doc__
        )
    except (ValueError, TypeError) as error:
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
