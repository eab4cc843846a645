"""References as rollouts: what likelihood learns from.

A task with references has two tensors among its items: `references` `[N, R, T]`, ids padded with any id, and
`reference_lengths` `[N, R]`, EOS counted. An item with fewer than R has them in its first places, and length
0 in the others.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlseq.engine import last_of, sequence_env
from rlseq.env import SequenceEnv
from rlseq.types import Rollout


def demonstrations(env: SequenceEnv) -> Rollout:
    """A fresh batch of contexts with a reference each, drawn at random, as if acted; not judged.

    All are as wide as the longest of the batch; a task that has `alike` draws items of like length.
    """
    env = sequence_env(env)
    alike = getattr(env, "alike", None)
    context = env.begin(index=None if alike is None else alike(env.num_envs))
    if "references" not in context:
        raise ValueError(f"{type(env).__name__} has no references to learn from; MLE needs them")
    lengths = context["reference_lengths"]
    drawn = torch.rand(len(lengths), generator=env.generator, device=env.device, dtype=torch.float64)
    chosen = (drawn * (lengths > 0).sum(1)).long()
    rows = torch.arange(len(lengths), device=env.device)
    length = lengths[rows, chosen]
    width = int(length.max())  # a look at the device, once a batch, saves the work on padding
    actions = context["references"][rows, chosen, :width]
    mask = torch.arange(width, device=env.device) < length.unsqueeze(1)
    if env.source_vocab is not None:
        context = {**context, "source": _trimmed(context["source"], env.source_vocab.pad)}
    nothing = torch.zeros(actions.shape, device=env.device)
    return Rollout(actions.where(mask, 0), mask, nothing, nothing, None, last_of(mask), None, context)


def _trimmed(source: Tensor, pad: int) -> Tensor:
    """Sources without the columns that only pad."""
    used = (source != pad).any(0).nonzero()
    return source[:, : int(used.max()) + 1 if len(used) else 1]
