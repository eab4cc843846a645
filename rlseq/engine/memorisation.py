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
from rlseq.engine.evaluation import evaluate_texts, items_tested, subset
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
    held_out: Sequence[Neighbour]  # of held-out references; none where no held-out task was given
    pairs: int  # of equal texts of the policy
    known: int  # training items whose texts were compared

    @property
    def copies(self) -> float:
        """The share of texts that are in the training set word for word."""
        return _share_of_copies(self.neighbours)

    @property
    def held_out_copies(self) -> float:
        """The same share of held-out references; NaN where there are none."""
        return _share_of_copies(self.held_out)

    @property
    def rate(self) -> float:
        """The mean distance to the nearest training text over its length."""
        return _mean_rate(self.neighbours)

    @property
    def held_out_rate(self) -> float:
        """The same mean of held-out references; NaN where there are none."""
        return _mean_rate(self.held_out)

    @property
    def support(self) -> float:
        """The number of equally likely texts that would give as many equal pairs; infinity for none."""
        return support_of(len(self.neighbours), self.pairs)

    def means(self) -> dict[str, float]:
        """Return the figures by name."""
        return {
            "copies": self.copies,
            "held_out_copies": self.held_out_copies,
            "nearest_rate": self.rate,
            "held_out_rate": self.held_out_rate,
            "equal_pairs": float(self.pairs),
            "support": self.support,
        }


@checked_arguments
def memorisation(
    policy: Any,
    env: Any,
    held_out: Any = None,
    decode: Decode = Sample(),
    limit: PositiveInt = 400,
    known: PositiveInt | None = None,
) -> Memorisation:
    """Compare a policy's texts with training texts, and count how often they repeat each other.

    Args:
        policy: the policy that writes.
        env: the training task, with references; its episodes, counts and random numbers are restored.
        held_out: the same task with held-out items. The policy then writes about these, and their references
            are compared, too: the right text for a training source is a training text, which is no copy.
        decode: how words are chosen.
        limit: number of texts, of as many items, or of the only one.
        known: the largest number of training items whose texts are compared, drawn by a fixed seed; all when
            not given.
    """
    env = sequence_env(env)
    check_has_references(env)
    written = env if held_out is None else sequence_env(held_out)
    found = evaluate_texts(policy, written.replace(reward=no_reward), decode, {}, limit)
    texts = torch.where(found.mask, found.actions, PAD)
    items = subset(env.size, known or env.size)
    near = nearest_neighbours(env, texts, items)
    beside = [] if held_out is None else nearest_neighbours(env, _first_references(written, limit), items)
    equal = equal_pairs(map(tuple, texts.tolist()))
    return Memorisation(sorted(near, key=lambda each: each.rate), beside, equal, len(items))


def nearest_neighbours(env: SequenceEnv, texts: Tensor, items: Tensor | None = None) -> list[Neighbour]:
    """Return the nearest training text of each row of ids `[N, T]`, padded with PAD, by edit distance.

    Args:
        env: the training task.
        texts: ids.
        items: whose texts are compared; all items when not given.
    """
    corpus = references_of(env)
    assert corpus is not None
    table = corpus.table(items)
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


def support_of(number: int, equal: int) -> float:
    """Return the number of equally likely texts of which N would hold so many equal pairs."""
    return number * (number - 1) / 2 / equal if equal else math.inf


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


def _first_references(held_out: SequenceEnv, limit: int) -> Tensor:
    """Return the first references of the items that texts are written about, padded with PAD."""
    context = held_out.contexts(items_tested(held_out.size, limit).to(held_out.device))
    words, lengths = context["references"][:, 0], context["reference_lengths"][:, :1]
    inside = torch.arange(words.shape[1], device=words.device) < lengths
    return torch.where(inside, words, PAD)


def _share_of_copies(found: Sequence[Neighbour]) -> float:
    return sum(each.distance == 0 for each in found) / len(found) if found else math.nan


def _mean_rate(found: Sequence[Neighbour]) -> float:
    return sum(each.rate for each in found) / len(found) if found else math.nan
