"""A test of whether a model uses its sources: likelihood of dev with them, and with those of other items.

A model with little training or few pairs may write the most common texts whatever it reads. Its likelihood
still improves, and no score of its texts tells the cause; exchanged sources do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from rlseq.agents.mle import MLE
from rlseq.engine.evaluation import subset
from rlseq.engine.references import sample_references, trimmed
from rlseq.mdp.sequence_env import sequence_env
from rlseq.types import Rollout
from rlseq.utils.files import Json
from rlseq.utils.modules import eval_mode

LITTLE = 0.05  # of the nats per token, which the right sources must save


def held_out_pairs(env: Any, shift: int = 0) -> Rollout:
    """Return some of a task's pairs, drawn at random by a fixed seed.

    Args:
        env: the task; pairs are repeated from the first where it has fewer items than rows.
        shift: read, instead of the source of each pair, the one that lies this many pairs later.
    """
    env = sequence_env(env)
    drawn, rows = subset(env.size, env.num_envs), torch.arange(env.num_envs)
    batch = sample_references(env, env.begin(index=drawn[rows % len(drawn)].to(env.device)))
    if shift:
        others = env.begin(index=drawn[(rows + shift) % len(drawn)].to(env.device))
        batch = replace(batch, context=others)
    return trimmed(batch, env)


@torch.no_grad()
def source_use(policy: Any, env: Any) -> Json:
    """Return nats per token of references, given their own sources and given those of other items."""
    agent = MLE(policy)
    shift = min(env.num_envs, env.size) // 2
    with eval_mode(policy):
        own, exchanged = (float(agent.loss(held_out_pairs(env, by))[0]) for by in (0, shift))
    return {"own": own, "exchanged": exchanged}


def hardly_used(found: Mapping[str, float]) -> bool:
    """Return whether the right sources save less than a twentieth of the nats per token."""
    return found["exchanged"] - found["own"] < LITTLE * found["own"]
