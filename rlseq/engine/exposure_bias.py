"""Exposure bias: wrong words by position, after prefixes of references and after the policy's own."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlseq.engine.decode import Decode, Greedy
from rlseq.engine.evaluation import items_tested
from rlseq.engine.references import check_has_expert
from rlseq.engine.rollout import rollout
from rlseq.mdp.sequence_env import SequenceEnv, sequence_env
from rlseq.metrics.next_words import expert_for
from rlseq.types import Rollout
from rlseq.utils.arguments import PositiveInt, checked_arguments


class AtPosition(NamedTuple):
    """Continuations at one position of the texts; shares are NaN where no text has this position."""

    position: int  # from 1
    own: float  # share of words that are not best after the policy's own prefix
    reference: float  # the same after a prefix of the reference
    own_texts: int  # number of texts that the first share is of
    reference_texts: int
    continued: float  # mean reward of texts whose words before this position are the reference's


@checked_arguments
@torch.no_grad()
def exposure_bias(
    policy: Any, env: Any, decode: Decode = Greedy(), limit: PositiveInt | None = 256
) -> list[AtPosition]:
    """Measure how often a policy's next word is not a best one, by position and by whose prefix it follows.

    After references the policy is in the states that likelihood has trained; after words of its own in those
    that it meets when it writes. Where the second share is larger, errors lead to errors. A best word is one
    after which the least edit distance to a reference can still be reached, or for the rewards `accuracy` and
    `exact` one that is right at its position (`rlseq.metrics.next_words`).

    Args:
        policy: the policy that writes.
        env: the task; its episodes, counts and random numbers are restored.
        decode: how words are chosen.
        limit: the largest number of items, the same for every policy; of each its first reference is used.

    Returns:
        A row for every position, the reward of texts that continue references among them.
    """
    env = sequence_env(env)
    check_has_expert(env)
    items = items_tested(env.size, limit).to(env.device)
    with env.preserved():
        env = env.replace(num_envs=len(items), starts=None)
        context = env.begin(index=items)
        references, lengths = context["references"][:, 0], context["reference_lengths"][:, 0]
        found = []
        own = wrong_words(env, rollout(policy, env, decode=decode, index=items))
        for t in range(env.max_len):
            batch = rollout(policy, env, decode=decode, forced=references, forced_steps=t, index=items)
            after_own, after_reference = own[0][:, t], lengths > t
            found.append(
                AtPosition(
                    t + 1,
                    _share(own[1][:, t], after_own),
                    _share(wrong_words(env, batch)[1][:, t], after_reference),
                    int(after_own.sum()),
                    int(after_reference.sum()),
                    float(batch.returns.mean()),
                )
            )
    return found


def wrong_words(env: SequenceEnv, batch: Rollout) -> tuple[Tensor, Tensor]:
    """Return where words were written, and where they are not among the best ones, `[B, T]` each."""
    expert = expert_for(env.parts)
    best = expert(batch.actions, batch.mask, batch.context, env.vocab.eos)
    same = batch.context["references"].unsqueeze(1) == batch.actions[:, :, None, None]
    return batch.mask, batch.mask & ~(best & same).flatten(2).any(2)


def _share(wrong: Tensor, among: Tensor) -> float:
    """Return the share of rows that are wrong."""
    return float((wrong & among).sum() / among.sum())
