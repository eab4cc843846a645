"""The demonstration: a comparison of about two minutes, like those of `rlseq compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from rlseq.compare.results import Comparison
from rlseq.compare.run import compare
from rlseq.compare.tables import rich_samples

MLE_ITEMS = 200  # pairs that likelihood may learn from
SETTINGS: dict[str, Any] = {
    "envs": {"rlseq/Reverse-v0": {"vocab_size": 10, "length": 6, "num_envs": 256}},
    "agents": {
        "mle": {"lr": 3e-3},
        "reinforce": {"lr": 1e-3, "schedule": "warmup_linear", "entropy": 0.01},
        "rloo": {"lr": 1e-3, "schedule": "warmup_linear", "entropy": 0.01},
        "scst": {"lr": 1e-3, "schedule": "warmup_linear", "entropy": 0.01},
    },
    "policy": {"name": "lstm", "hidden": 96, "embedding": 32},
    "start_tokens": 300_000,
    "start_hyper": {"lr": 3e-3},
    "mle_options": {"items": MLE_ITEMS},
}


def demo(out: Path, seeds: int = 4, budget_tokens: int = 800_000, **changes: Any) -> Comparison:
    """Run the demonstration, and print its steps and results.

    Args:
        out: the folder of the comparison.
        seeds: the number of runs of every agent.
        budget_tokens: the number of tokens of every run.
        **changes: settings that replace those of the demonstration.
    """
    console = Console()
    console.print(
        "[bold]rlseq demo[/bold]: read six letters, write them backwards (rlseq/Reverse-v0).\n"
        f"1. An LSTM imitates {MLE_ITEMS} pairs with references: likelihood, where all agents start.\n"
        f"2. From there, {budget_tokens:,} tokens each, {seeds} seeds: more likelihood on these pairs, or\n"
        "   REINFORCE, RLOO and SCST on 10,000 sources without references, which are only told\n"
        "   what share of their letters is right.\n"
        "3. All are tested on fresh sources: a table with intervals, and a page to look at.\n"
        "One to three minutes on two cores; Ctrl-C stops; the same command continues.\n"
    )
    comparison = compare(
        **{**SETTINGS, "seeds": seeds, "budget_tokens": budget_tokens, "out": out, **changes}
    )
    page = comparison.save()
    console.print(
        comparison.table(), rich_samples(comparison.results["tasks"][0]), f"\nThe page: {page}", sep="\n"
    )
    return comparison
