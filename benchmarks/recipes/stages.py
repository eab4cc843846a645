"""The stages of a recipe: likelihood until fresh pairs are likeliest, then a reward; each in a run folder.

What is finished is not done again, and what was interrupted goes on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model

import rlseq
from rlseq.engine.evaluation import subset
from rlseq.engine.references import sample_references, trimmed
from rlseq.utils.modules import eval_mode

EVERY = 250  # updates between two looks at dev


def likelihood(
    policy: Any, env: Any, dev: Any, folder: Path, stages: Sequence[tuple[int, float]]
) -> dict[str, float]:
    """Imitate, and keep the weights under which pairs of dev are likeliest; returns their nats per token.

    Args:
        policy: learns; has the best weights afterwards.
        env: the pairs.
        dev: others.
        folder: of all stages.
        stages: updates, and their step size. Each starts from the best weights so far.
    """
    kept, notes = folder / "likeliest.safetensors", folder / "likelihood.json"
    scores: dict[str, float] = json.loads(notes.read_text("utf-8")) if notes.exists() else {}
    held_out = pairs_of(dev)
    for number, (updates, lr) in enumerate(stages, 1):
        agent = rlseq.make_agent("mle", policy, lr=lr)
        for done in range(EVERY, updates + 1, EVERY):
            name = f"stage {number}, update {done}"
            if name in scores:
                continue
            rlseq.train(agent, env, done, eval_every=EVERY, out=folder / f"likelihood-{number}")
            with torch.no_grad(), eval_mode(policy):
                nll = float(agent.loss(held_out)[0])
            if nll < min(scores.values(), default=math.inf):
                save_model(policy, str(kept))
            scores[name] = nll
            notes.write_text(json.dumps(scores, indent=2), "utf-8")
            print(f"{name}: {nll:.4f} nats per token on dev", flush=True)
        load_model(policy, kept)
    return scores


def pairs_of(env: Any) -> Any:
    """Some of a task's pairs, drawn at random by a fixed seed; again from the first where it has fewer."""
    drawn = subset(env.size, env.num_envs)
    context = env.begin(index=drawn[torch.arange(env.num_envs) % len(drawn)].to(env.device))
    return trimmed(sample_references(env, context), env)


def rewarded(agent: Any, env: Any, dev: Any, folder: Path, updates: int) -> None:
    """Train on the reward of an env, and keep the weights that earn most on dev."""
    rlseq.train(agent, env, updates, dev, eval_every=updates // 10, out=folder, probe=False)
    best = json.loads((folder / "results.json").read_text("utf-8"))["best"]["update"]
    agent.policy.load_state_dict(rlseq.checkpoint.read(folder / "checkpoints", best)["policy"])


def seconds(folder: Path) -> dict[str, float]:
    """Of training, by stage."""
    return {
        path.parent.name: json.loads(path.read_text("utf-8"))["seconds"]
        for path in sorted(folder.glob("*/results.json"))
    }
