"""Memorisation and support: how near texts are to the training set, and how many different ones there are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlseq.engine.decode import Decode, Sample
from rlseq.engine.evaluation import evaluate_texts
from rlseq.engine.references import check_has_references
from rlseq.mdp.sequence_env import SequenceEnv, sequence_env
from rlseq.mdp.task import no_reward
from rlseq.metrics.base import WholeTexts
from rlseq.metrics.edit import EditDistance
from rlseq.metrics.encode import RefTable
from rlseq.metrics.fitting import references_of
from rlseq.metrics.ngrams import PAD
from rlseq.utils.arguments import OpenShare, PositiveInt, checked_arguments

NEIGHBOURS_TOGETHER = 4096  # training texts that are compared at a time


class Neighbour(NamedTuple):
    """A text, the training text that is nearest to it, and their edit distance in tokens."""

    text: str
    nearest: str
    distance: int
    rate: float  # the distance over the length of the training text


@dataclass(frozen=True)
class Memorisation:
    """Texts of a policy beside those that it was trained on.

    A small distance to the training set shows copying only where held-out references are farther away.
    """

    neighbours: Sequence[Neighbour]  # of every text of the policy, the nearest first
    held_out_rate: float  # mean rate of held-out references; NaN where none were given
    pairs: int  # of equal texts
    support: float  # number of equally likely texts that would give as many equal pairs; infinity for none

    @property
    def copies(self) -> float:
        """The share of texts that are in the training set word for word."""
        return sum(each.distance == 0 for each in self.neighbours) / len(self.neighbours)

    def means(self) -> dict[str, float]:
        """Return the figures by name."""
        return {
            "copies": self.copies,
            "nearest_rate": self.rate,
            "held_out_rate": self.held_out_rate,
            "equal_pairs": float(self.pairs),
            "support": self.support,
        }

    @property
    def rate(self) -> float:
        """The mean distance to the nearest training text over its length."""
        return sum(each.rate for each in self.neighbours) / len(self.neighbours)


@checked_arguments
def memorisation(
    policy: Any, env: Any, held_out: Any = None, decode: Decode = Sample(), limit: PositiveInt = 400
) -> Memorisation:
    """Compare a policy's texts with all training texts, and count how often they repeat each other.

    Args:
        policy: the policy that writes.
        env: the training task, with references; its episodes, counts and random numbers are restored.
        held_out: the same task with held-out items, whose references are compared, too.
        decode: how words are chosen.
        limit: number of texts, of as many items, or of the only one.
    """
    env = sequence_env(env)
    check_has_references(env)
    found = evaluate_texts(policy, env.replace(reward=no_reward), decode, {}, limit)
    texts = torch.where(found.mask, found.actions, PAD)
    near = nearest_neighbours(env, texts)
    equal = equal_pairs(map(tuple, texts.tolist()))
    number = len(texts) * (len(texts) - 1) // 2
    rate = math.nan if held_out is None else _rate_of_references(env, sequence_env(held_out), limit)
    support = number / equal if equal else math.inf
    return Memorisation(sorted(near, key=lambda each: each.rate), rate, equal, support)


def nearest_neighbours(env: SequenceEnv, texts: Tensor) -> list[Neighbour]:
    """Return the nearest training text of each row of ids `[N, T]`, padded with PAD, by edit distance."""
    corpus = references_of(env)
    assert corpus is not None
    table = corpus.table()
    rows = torch.zeros(len(texts), dtype=torch.int64)
    best = [
        EditDistance(part, eos=env.vocab.eos).patterns.distances(WholeTexts(texts.cpu(), rows))[:, 0].min(1)
        for part in _parts(table)
    ]
    distances = torch.stack([part.values for part in best])
    part = distances.argmin(0)
    place = (
        torch.stack([b.indices for b in best]).gather(0, part.unsqueeze(0))[0] + NEIGHBOURS_TOGETHER * part
    )
    words = (*env.vocab.words, *corpus.oov_words)
    found = []
    for text, i, distance in zip(texts.tolist(), place.tolist(), distances.amin(0).tolist(), strict=True):
        length = int(table.lengths[i])
        named = [w for w in table.ids[i, :length].tolist() if w != env.vocab.eos]
        near = env.vocab.join(words[w] for w in named)
        own = env.vocab.decode([w for w in text if w != PAD])
        found.append(Neighbour(own, near, int(distance), distance / max(length, 1)))
    return found


def equal_pairs(texts: Iterator[tuple[int, ...]]) -> int:
    """Return the number of pairs of equal texts."""
    return sum(n * (n - 1) // 2 for n in Counter(texts).values())


@checked_arguments
def birthday_support(number: PositiveInt, chance: OpenShare = 0.5) -> float:
    """Return N² / (2 log 1/(1 − p)): the number of equally likely texts of which N hold a duplicate with p.

    Arora & Zhang 2018 read N² off the same experiment, which is 2 log 2 = 1.39 times as much where p = ½.
    """
    return number**2 / (2 * -math.log1p(-chance))


def _parts(table: RefTable) -> Iterator[RefTable]:
    """Yield the references as those of one item, some at a time."""
    for start in range(0, len(table.ids), NEIGHBOURS_TOGETHER):
        ids, lengths = (x[start : start + NEIGHBOURS_TOGETHER] for x in (table.ids, table.lengths))
        slots = torch.arange(len(ids))
        yield RefTable(ids, lengths, torch.zeros_like(slots), slots, 1, len(ids))


def _rate_of_references(env: SequenceEnv, held_out: SequenceEnv, limit: int) -> float:
    """Return the mean rate of the first references of held-out items."""
    context = held_out.contexts(torch.arange(min(limit, held_out.size), device=held_out.device))
    words, lengths = context["references"][:, 0], context["reference_lengths"][:, :1]
    inside = torch.arange(words.shape[1], device=words.device) < lengths
    near = nearest_neighbours(env, torch.where(inside, words, PAD))
    return sum(each.rate for each in near) / len(near)
