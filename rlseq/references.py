"""References as rollouts: what likelihood learns from."""

from __future__ import annotations

import torch

from rlseq.engine import last_of, sequence_env
from rlseq.env import SequenceEnv
from rlseq.types import Rollout


def demonstrations(env: SequenceEnv) -> Rollout:
    """The references of a fresh batch of contexts, as if they had been acted; they are not judged."""
    context = sequence_env(env).begin()
    if "reference" not in context:
        raise ValueError(f"{type(env).__name__} has no references to learn from; MLE needs them")
    actions, length = context["reference"], context["reference_length"]
    mask = torch.arange(actions.shape[1], device=actions.device) < length.unsqueeze(1)
    nothing = torch.zeros(actions.shape, device=actions.device)
    return Rollout(actions.where(mask, 0), mask, nothing, nothing, None, last_of(mask), None, context)
