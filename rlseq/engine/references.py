"""References as rollouts, from which likelihood learns.

A task with references has two tensors among its items: `references` `[N, R, T]`, ids padded with any id, and
`reference_lengths` `[N, R]`, EOS counted. An item with fewer than R has them in its first places, and length
0 in the others.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from rlseq.engine.parts import last_word
from rlseq.mdp.sequence_env import SequenceEnv, sequence_env
from rlseq.types import Context, Rollout
from rlseq.utils.masks import last_of


def sample_references(env: SequenceEnv, context: Context | None = None) -> Rollout:
    """Draw one reference of every context at random, as a rollout without rewards, and count its tokens.

    Args:
        env: the task.
        context: of which rows; a fresh batch when not given.
    """
    env = sequence_env(env)
    found = draw_references(env, context)
    env.counts.reference_tokens += env.rank.total(found.mask.sum())
    return found


def draw_references(env: SequenceEnv, context: Context | None = None) -> Rollout:
    """Draw references as `sample_references` does, without counting their tokens."""
    check_has_references(env)
    context = env.begin() if context is None else context
    lengths = context["reference_lengths"]
    drawn = (env.rank.all(len(lengths)),)
    uniform = torch.rand(drawn, generator=env.generator, device=env.device, dtype=torch.float64)
    chosen = (env.rank.own(uniform) * (lengths > 0).sum(1)).long()
    rows = torch.arange(len(lengths), device=env.device)
    actions, length = context["references"][rows, chosen], lengths[rows, chosen]
    mask = torch.arange(actions.shape[1], device=env.device) < length.unsqueeze(1)
    nothing = torch.zeros(actions.shape, device=env.device)
    return Rollout(actions.where(mask, 0), mask, nothing, nothing, None, last_of(mask), None, context)


def length_bucket(env: SequenceEnv) -> Context | None:
    """Return a fresh batch of contexts whose texts have similar lengths, if the task can draw one.

    A curriculum draws items itself, so that it has none.
    """
    env = sequence_env(env)
    index = env.length_bucket(env.rank.all(env.num_envs)) if env.starts is None else None
    return None if index is None else env.begin(index=env.rank.own(index))


def trimmed(batch: Rollout, env: SequenceEnv) -> Rollout:
    """Return a batch as wide as its longest text and its longest source, to save work on padding."""
    vocab = sequence_env(env).source_vocab
    if vocab is None:
        return batch.trimmed()
    source = batch.context["source"]
    widths = torch.stack([batch.last_step, last_word(source, vocab.pad)]).tolist()  # one wait for both
    return replace(batch.trimmed(widths[0]), context={**batch.context, "source": source[:, : widths[1]]})


def has_references(env: SequenceEnv) -> bool:
    """Return whether the items of a task have references; nothing is drawn."""
    return "references" in env.contexts(torch.zeros(1, dtype=torch.int64, device=env.device))


def check_has_references(env: SequenceEnv) -> None:
    """Refuse a task that has no references, before anything is drawn."""
    if not has_references(env):
        raise ValueError(
            f"{type(env).__name__} has no references to learn from; likelihood, and agents that mix it in, "
            'need items with "references" and "reference_lengths"'
        )


def check_has_expert(env: SequenceEnv) -> None:
    """Refuse a task in which no expert knows the best next word after any prefix."""
    context = env.contexts(torch.zeros(1, dtype=torch.int64, device=env.device))
    task = type(env).__name__
    if "references" not in context:
        raise ValueError(
            f"{task} has no references, from which an expert knows the best next word; give its items "
            '"references" and "reference_lengths", or take an agent that learns from the reward, such as rloo'
        )
    if env.size > 1 and "source" not in context and not env.observed:
        raise ValueError(
            f"{task} shows nothing that tells which of its {env.size:,} texts to write, so that no expert "
            "can name the best next word; imitate them by mle, or by gail"
        )
