"""Many continuations of a prefix: completions of every prefix, and beam search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlseq.engine.categorical import FORBIDDEN
from rlseq.engine.decode import acting_logits
from rlseq.engine.rollout import finished_rollout
from rlseq.engine.state import checked_state, fork
from rlseq.mdp.episodes import Episodes
from rlseq.mdp.sequence_env import SequenceEnv, sequence_env
from rlseq.types import RAW, Behaviour, Policy, Rollout
from rlseq.utils.arguments import NonNegativeFloat, PositiveInt, check_fields, checked_arguments
from rlseq.utils.modules import eval_mode


@dataclass(frozen=True)
class Beam:
    """A search that goes on with the `width` likeliest prefixes at every step (`beam_search`).

    Texts are ranked by log p / ((5 + length) / 6)^α, with α the length penalty (Wu et al. 2016, eq. 14).

    Args:
        width: prefixes kept.
        length_penalty: α; 0 ranks by probability, 1 by about the mean per token.
        groups: number of groups that share the width, each penalised for the tokens of the groups before it
            (diverse beam search, Vijayakumar et al. 2016).
        diversity: the penalty, in nats, for each earlier group that writes the same token.
    """

    width: PositiveInt = 5
    length_penalty: float = 0.0
    groups: PositiveInt = 1
    diversity: NonNegativeFloat = 0.5

    def __post_init__(self) -> None:
        check_fields(self)
        if self.width % self.groups:
            raise ValueError(f"groups must divide width={self.width}, got {self.groups}")

    def best(self, policy: Policy, env: SequenceEnv, *, repeat: int, index: Tensor | None) -> Rollout:
        """Return the best text of every row with its rewards."""
        found = beam_search(policy, env, self, repeat=repeat, index=index)
        tokens, mask = found.tokens[:, 0], found.mask[:, 0]
        done = torch.ones_like(mask[:, 0])
        episodes = Episodes.of(env.context, tokens, mask.sum(1), done, env.vocab.pad)
        return finished_rollout(env.replace(episodes=episodes), (found.log_probs[:, 0], None, None), RAW)


class NBest(NamedTuple):
    """The n likeliest texts of every row, best first."""

    tokens: Tensor  # [B, n, T], 0 where there is none
    mask: Tensor  # [B, n, T]
    log_probs: Tensor  # [B, n, T]
    scores: Tensor  # [B, n], with the length penalty


@checked_arguments
@torch.no_grad()
def beam_search(
    policy: Policy, env: Any, beam: Beam = Beam(), *, repeat: PositiveInt = 1, index: Any = None
) -> NBest:
    """Search the likeliest texts of every row, all rows and all prefixes together.

    Args:
        policy: the policy that gives the probabilities.
        env: the task; it is begun, and its episodes stay empty.
        beam: width, length penalty, groups.
        repeat: as in `rollout`.
        index: the items to write about, drawn at random when not given.
    """
    env = sequence_env(env)
    if beam.width > _count(env):
        raise ValueError(
            f"only {_count(env)} texts can be written, got width={beam.width}; use a narrower beam"
        )
    context = env.begin(repeat=repeat, index=index)
    lane = torch.arange(env.num_envs, device=env.device).repeat_interleave(beam.width)
    lanes = env.take(lane)
    total = torch.full((env.num_envs, beam.width), -torch.inf, device=env.device)
    total[:, :: beam.width // beam.groups] = 0.0  # all prefixes are empty; one counts in each group
    log_probs = torch.zeros(len(lane), env.max_len, device=env.device)
    with eval_mode(policy):
        state = fork(checked_state(policy.start(context), env.num_envs), lane)
        token = torch.full_like(lane, env.vocab.bos)
        for t in range(env.max_len):
            logits, state = policy.step(token, state)
            log_p = acting_logits(logits, Behaviour(1.0, lanes.allowed())).log_softmax(-1)
            log_p.masked_fill_(log_p < FORBIDDEN / 2, -torch.inf)
            log_p[:, 0].masked_fill_(lanes.done, 0.0)  # a finished text has one continuation: itself
            log_p[:, 1:].masked_fill_(lanes.done.unsqueeze(1), -torch.inf)
            parent, token, total = _best(total, log_p, lanes, beam)
            log_probs, state, lanes = log_probs[parent], fork(state, parent), lanes.take(parent)
            log_probs[:, t] = log_p[parent, token]
            lanes.append(token)
    scores, order = (total / _penalty(lanes.length, beam).view_as(total)).sort(1, descending=True)
    order += torch.arange(env.num_envs, device=env.device).unsqueeze(1) * beam.width
    if scores.isnan().any():
        raise ValueError("the policy's logits hold NaN; nothing was found")
    mask = lanes.mask[order]
    return NBest(lanes.tokens[order].where(mask, 0), mask, log_probs[order].where(mask, 0.0), scores)


def _best(total: Tensor, log_p: Tensor, lanes: SequenceEnv, beam: Beam) -> tuple[Tensor, Tensor, Tensor]:
    """Choose the lanes to go on from and their next tokens, `[B·width]` each, with log p `[B, width]`."""
    (rows, width), words, each = total.shape, log_p.shape[1], total.shape[1] // beam.groups
    sums = (total.view(-1, 1) + log_p).view(rows, width, words)
    length = lanes.length + ~lanes.done
    ranks = sums / _penalty(length, beam).view(rows, width, 1)
    live = (~lanes.done).view(rows, width).float()  # finished texts write nothing
    written = torch.zeros(rows, 1, words, device=total.device)
    chosen = []
    for start in range(0, width, each):
        lane = slice(start, start + each)
        paid = beam.diversity * written * live[:, lane].unsqueeze(2)
        place = (ranks[:, lane] - paid).flatten(1).topk(each).indices + start * words
        chosen.append(place)
        written.squeeze(1).scatter_add_(1, place % words, live.gather(1, place // words))
    place = torch.cat(chosen, 1)
    first = torch.arange(rows, device=total.device).unsqueeze(1) * width
    return (first + place // words).flatten(), (place % words).flatten(), sums.flatten(1).gather(1, place)


def _penalty(length: Tensor, beam: Beam) -> Tensor:
    return ((5.0 + length) / 6.0) ** beam.length_penalty


def _count(env: SequenceEnv) -> int:
    """Return the number of texts that can be written."""
    words, steps = len(env.vocab), env.max_len
    unending = words - (env.vocab.eos is not None)  # words that do not end a text
    every: int = unending**steps
    return every if unending == words else every + sum(unending**k for k in range(steps))
