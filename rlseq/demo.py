"""The demonstration: likelihood from few references, then REINFORCE from a reward alone."""

from __future__ import annotations

import time
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

import rlseq
from rlseq.agent import Agent

TASK = "rlseq/Reverse-v0"
PAIRS = 200  # with references, for likelihood
SHOWN = 5  # sample outputs


def demo(seed: int = 0, likelihood_updates: int = 300, reinforce_updates: int = 1000) -> list[Stage]:
    """Pre-train by likelihood, improve by REINFORCE, and show what each has learned.

    Args:
        seed: of everything.
        likelihood_updates: gradient steps on references.
        reinforce_updates: gradient steps on rewards.

    Returns:
        What the policy could do at each stage.
    """
    console, started = Console(), time.perf_counter()
    task: dict[str, Any] = {"vocab_size": 10, "length": 6}
    pairs = rlseq.make(TASK, num_envs=256, seed=seed, items=PAIRS, **task)
    sources = rlseq.make(TASK, num_envs=256, seed=seed, **task)
    fresh = rlseq.make(TASK, num_envs=500, seed=seed, items=1000, data_seed=1, **task)
    policy = rlseq.make_policy("lstm", pairs, hidden=96, embedding=32)
    console.print(
        f"[bold]rlseq demo[/bold]: read {task['length']} letters, write them backwards ({TASK}).\n"
        f"1. Likelihood: an LSTM imitates {PAIRS} pairs that have a reference.\n"
        f"2. REINFORCE: it writes for {sources.size:,} sources without seeing references, and is told "
        "only which share of its letters is right.\n"
        f"Both are scored on {fresh.size:,} freshly drawn sources. One to two minutes on two cores.\n"
    )
    stages = [Stage("untrained", policy, fresh)]
    for name, agent, env, updates in (
        ("likelihood", rlseq.make_agent("mle", policy, lr=3e-3), pairs, likelihood_updates),
        (
            "REINFORCE",
            rlseq.make_agent("reinforce", policy, lr=2e-3, entropy=0.01),
            sources,
            reinforce_updates,
        ),
    ):
        _train(console, name, agent, env, updates)
        stages.append(Stage(name, policy, fresh))
    console.print(_scores(stages), _samples(stages, fresh))
    console.print(f"seed {seed}, {time.perf_counter() - started:.0f} seconds, torch {torch.__version__}")
    return stages


class Stage:
    """Scores and texts of a policy as it is now."""

    def __init__(self, name: str, policy: Any, env: Any) -> None:
        self.name = name
        self.greedy = rlseq.evaluate(policy, env)
        self.sampled = rlseq.evaluate(policy, env, decode="sample")
        batch = rlseq.rollout(policy, env, decode=rlseq.Greedy(), index=torch.arange(env.num_envs))
        self.texts = env.texts(batch.actions, batch.mask)[:SHOWN]


def _train(console: Console, name: str, agent: Agent, env: Any, updates: int) -> None:
    columns = (
        TextColumn("{task.description:<11}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} updates · {task.fields[log]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(name, total=updates, log="")

        def show(row: dict[str, float]) -> None:
            key = "reward" if "reward" in row else "nll"
            progress.update(bar, advance=1, log=f"{key} {row[key]:.3f}")

        rlseq.train(agent, env, updates=updates, on_update=show)


def _scores(stages: list[Stage]) -> Table:
    table = Table(title="Reward on fresh sources: share of letters right, the end included")
    for name in ("after", "greedy", "sampled", "all right (greedy)"):
        table.add_column(name, justify="left" if name == "after" else "right")
    for s in stages:
        table.add_row(
            s.name, f"{s.greedy['reward']:.3f}", f"{s.sampled['reward']:.3f}", f"{s.greedy['exact']:.1%}"
        )
    return table


def _samples(stages: list[Stage], env: Any) -> Table:
    """What each stage writes, greedily, for the first sources; wrong letters in red."""
    table = Table(title="Sample outputs")
    for name in ("source", "wanted", *[s.name for s in stages[1:]]):
        table.add_column(name)
    for row, (source, wanted) in enumerate(
        zip(env.sources(), env.items["references"][:, 0].tolist(), strict=False)
    ):
        if row == SHOWN:
            break
        right = env.vocab.decode(wanted)
        table.add_row(source, right, *[_marked(s.texts[row], right) for s in stages[1:]])
    return table


def _marked(text: str, wanted: str) -> str:
    words, right = text.split(), wanted.split()
    return " ".join(
        word if i < len(right) and word == right[i] else f"[red]{word}[/red]" for i, word in enumerate(words)
    )
