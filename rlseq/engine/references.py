"""References as rollouts: what likelihood learns from.

A task with references has two tensors among its items: `references` `[N, R, T]`, ids padded with any id, and
`reference_lengths` `[N, R]`, EOS counted. An item with fewer than R has them in its first places, and length
0 in the others.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from rlseq.mdp.sequence_env import SequenceEnv, sequence_env
from rlseq.types import Context, Rollout
from rlseq.utils.masks import last_of


def sample_references(env: SequenceEnv, context: Context | None = None) -> Rollout:
    """One reference of every context, drawn at random, as if acted; they are not judged.

    Args:
        env: the task.
        context: of which rows; a fresh batch when not given.
    """
    env = sequence_env(env)
    found = drawn(env, context)
    env.counts.reference_tokens += found.mask.sum()
    return found


def drawn(env: SequenceEnv, context: Context | None = None) -> Rollout:
    """As `demonstrations`, without counting the tokens as read."""
    check_references(env)
    context = env.begin() if context is None else context
    lengths = context["reference_lengths"]
    uniform = torch.rand(len(lengths), generator=env.generator, device=env.device, dtype=torch.float64)
    chosen = (uniform * (lengths > 0).sum(1)).long()
    rows = torch.arange(len(lengths), device=env.device)
    actions, length = context["references"][rows, chosen], lengths[rows, chosen]
    mask = torch.arange(actions.shape[1], device=env.device) < length.unsqueeze(1)
    nothing = torch.zeros(actions.shape, device=env.device)
    return Rollout(actions.where(mask, 0), mask, nothing, nothing, None, last_of(mask), None, context)


def length_bucket(env: SequenceEnv) -> Context | None:
    """Return a fresh batch of contexts whose texts have similar lengths, if the task can draw one."""
    env = sequence_env(env)
    index = env.length_bucket(env.num_envs)
    return None if index is None else env.begin(index=index)


def trimmed(batch: Rollout, env: SequenceEnv) -> Rollout:
    """As wide as the longest text and the longest source of a batch, which saves the work on padding."""
    context = dict(batch.context)
    vocab = sequence_env(env).source_vocab
    if vocab is not None:
        used = (context["source"] != vocab.pad).any(0).nonzero()
        context["source"] = context["source"][:, : int(used.max()) + 1 if len(used) else 1]
    return replace(batch.trimmed(), context=context)


def check_references(env: SequenceEnv) -> None:
    """Refuse a task that has no references, before anything is drawn."""
    if "references" not in env.contexts(torch.zeros(1, dtype=torch.int64, device=env.device)):
        raise ValueError(
            f"{type(env).__name__} has no references to learn from; likelihood, and agents that mix it in, "
            'need items with "references" and "reference_lengths"'
        )
