"""The stages of training: likelihood until dev stops improving, then a reward; each in a run folder.

What is finished is not done again, and what was interrupted goes on to the numbers that it would have
reached: every stage begins with a task and with random numbers of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load, save
from torch import Tensor

from rlseq.agents import make_agent
from rlseq.recipe.source_use import held_out_pairs
from rlseq.training import checkpoint
from rlseq.training.loop import train
from rlseq.training.run_folder import read_results
from rlseq.types import Rollout
from rlseq.utils.files import make_folder, write_json, write_whole
from rlseq.utils.modules import eval_mode

EVERY = 250  # updates between two looks at dev
EVALUATIONS = 10  # of the training on a reward
KEPT = "likeliest.safetensors"  # the weights under which dev was likeliest
NOTES = "likelihood.json"  # nats per token on dev, by look


class Stage(NamedTuple):
    """A part of likelihood with one step size."""

    updates: int  # at most
    lr: float
    patience: int | None = None  # looks without a better one, and a quarter of all, after which it ends

    def converged(self, values: Sequence[float]) -> bool:
        """Return whether dev has stopped improving; never where there is no patience to be lost."""
        without = len(values) - 1 - min(range(len(values)), key=values.__getitem__) if values else 0
        return self.patience is not None and without >= max(self.patience, len(values) // 4)


def likelihood(
    policy: Any,
    task: Callable[[], Any],
    dev: Any,
    folder: Path,
    stages: Sequence[Stage],
    *,
    every: int = EVERY,
    stop: Callable[[str], bool] = lambda look: False,
    say: Callable[[str], None] = print,
    hyper: Mapping[str, Any] = {},
) -> dict[str, float]:
    """Imitate, and keep the weights under which pairs of dev are likeliest; return nats per token by look.

    Args:
        policy: learns; has the best weights afterwards.
        task: makes the task of training, with its random numbers at their start.
        dev: pairs that are not trained on.
        folder: of all stages.
        stages: each starts from the best weights so far.
        every: updates between two looks at dev.
        stop: is asked after every look, by its name, whether the stage must end.
        say: is told every look.
        hyper: further hyper-parameters of the agent.
    """
    make_folder(folder)
    notes = folder / NOTES
    scores: dict[str, float] = json.loads(notes.read_text("utf-8")) if notes.exists() else {}
    held_out = held_out_pairs(dev)
    for number, stage in enumerate(stages, 1):
        env = task()
        torch.manual_seed(env.seed + number)
        agent = make_agent("mle", policy, lr=stage.lr, **hyper)
        before = [min(scores_of(scores, number - 1))] if number > 1 else []
        for done in range(every, stage.updates + 1, every):
            look = f"stage {number}, update {done}"
            if look not in scores:
                train(agent, env, done, eval_every=every, out=folder / f"likelihood-{number}", quiet=True)
                if agent.trial is not None and (chosen := agent.trial.news()):
                    say(chosen)
                nll = _nll(agent, held_out)
                if nll < min(scores.values(), default=float("inf")):
                    write_whole(folder / KEPT, save(_apart(policy.state_dict())))
                scores[look] = nll
                write_json(notes, scores)
                say(f"{look}: {nll:.4f} nats per token on dev")
            if stop(look) or stage.converged([*before, *scores_of(scores, number)]):
                break
        policy.load_state_dict(load((folder / KEPT).read_bytes()))
    return scores


def _nll(agent: Any, held_out: Rollout) -> float:
    """Return the nats per token of held-out pairs."""
    with torch.no_grad(), eval_mode(agent.policy):
        return float(agent.loss(held_out)[0])


def _apart(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights each in memory of its own, as tied ones are not."""
    return {name: weight.detach().cpu().clone().contiguous() for name, weight in weights.items()}


def scores_of(scores: Mapping[str, float], number: int) -> list[float]:
    """Return the nats per token of a stage, by look."""
    return [score for look, score in scores.items() if look.startswith(f"stage {number},")]


def train_on_reward(
    agent: Any,
    env: Any,
    dev: Any,
    folder: Path,
    updates: int,
    eval_texts: int | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train by the reward of an env, or by likelihood, and keep the weights that earn most on dev.

    Returns:
        The results of the run.
    """
    torch.manual_seed(env.seed)
    every = max(1, updates // EVALUATIONS)
    settings: dict[str, Any] = {"eval_every": every, "eval_texts": eval_texts, "quiet": quiet}
    train(agent, env, updates, dev, out=folder, probe=False, **settings)
    results = read_results(folder)
    state = checkpoint.read(folder / "checkpoints", results["best"]["update"])
    agent.policy.load_state_dict(state["policy"])
    return results


def seconds(folder: Path) -> dict[str, float]:
    """Seconds of training, by stage."""
    return {
        path.parent.name: json.loads(path.read_text("utf-8"))["seconds"]
        for path in sorted(folder.glob("*/results.json"))
    }
