"""Two regimes of data: much noisy text and little clean text in one task, drawn by shares that change.

What comes back shares episodes, contexts and random numbers with the task that was given; use one of them.
Evaluations begin as always.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

from rlseq.data.formats import Problem
from rlseq.data.locate import PAIRS, TEXTS, Where, origin
from rlseq.mdp.sequence_env import SequenceEnv
from rlseq.mdp.starts import Starts
from rlseq.utils.arguments import Share, checked_arguments
from rlseq.vocab import Vocab

_E = TypeVar("_E", bound=SequenceEnv)
READ_TOGETHER = 4096  # items whose texts are looked at together


class CleanShare(Starts):
    """Draws a share of every batch among the clean items, and the rest among the noisy ones."""

    def __init__(self, clean: Tensor, start: float, end: float, until: float) -> None:
        self.clean, self.noisy = clean.nonzero().flatten(), (~clean).nonzero().flatten()
        self.start, self.end, self.until, self.share = start, end, until, start

    def set_progress(self, done: float) -> None:
        """Move the share from its first to its last value, linearly with training."""
        self.share = self.start + (self.end - self.start) * min(1.0, done / max(self.until, 1e-9))

    def draw(self, env: Any, number: int) -> Tensor:
        """Return items; each is a clean one with the probability of the share."""
        uniform = torch.rand(2, number, generator=env.generator, device=env.device, dtype=torch.float64)
        clean, noisy = ((uniform[1] * len(items)).long() for items in (self.clean, self.noisy))
        return torch.where(uniform[0] < self.share, self.clean[clean], self.noisy[noisy])

    def state_dict(self) -> dict[str, Any]:
        """Return the share."""
        return {"share": self.share}

    def load_state_dict(self, state: Any) -> None:
        """Continue from a share."""
        self.share = state["share"]


@checked_arguments
def TwoRegimes(  # noqa: N802  (a wrapper, as others name theirs)
    env: _E, clean: Any, start: Share = 0.1, end: Share = 1.0, until: Share = 0.8
) -> _E:
    """Return the task in which a share of the items that are drawn are clean ones, whatever their number.

    The share is the weight of clean text in the loss of likelihood. With `start` equal to `end` it is
    constant; from 0 to 1, training begins with the noisy text and ends with the clean one.

    Args:
        env: the training task, whose files hold all of the text.
        clean: the clean items: True for each of them, `[N]`; or files of the clean text alone, pairs or
            texts, whose sources, or texts where nothing is read, tell them.
        start: share of clean items at the beginning.
        end: share of clean items at the end.
        until: share of training after which the share stays.
    """
    which = clean if isinstance(clean, Tensor) else clean_items(env, clean)
    if which.dtype != torch.bool or which.shape != (env.size,):
        raise ValueError(
            f"clean must be True or False for each of {env.size:,} items, got {which.dtype} of shape "
            f"{tuple(which.shape)}"
        )
    count = int(which.sum())
    if count in (0, env.size):
        whose = "the tensor" if isinstance(clean, Tensor) else str(clean)
        raise ValueError(
            f"{count:,} of {env.size:,} training items are clean by {whose}, and there must be some of both "
            "kinds; the training file must hold the clean text, too"
        )
    return env.replace(starts=CleanShare(which.to(env.device), start, end, until))


def clean_items(env: SequenceEnv, where: Where) -> Tensor:
    """Return True for each item whose source, or text where nothing is read, is in files, `[N]`."""
    vocab, known = env.source_vocab, set[str]()
    read = env.vocab if vocab is None else vocab
    width = env.items["source"].shape[1] if vocab is not None else env.max_len
    for row in origin(where, PAIRS if vocab is not None else TEXTS).read():
        if isinstance(row, Problem):
            raise ValueError(str(row))
        ids = encoded(read, row.target if row.source is None else row.source)
        known.add(read.decode(ids[:width]))
    return torch.tensor([text in known for text in texts_of(env)])


def encoded(vocab: Vocab, text: str) -> list[int]:
    """Return the ids of a text; none where it has a word that the vocabulary cannot read."""
    try:
        return vocab.encode(text)
    except ValueError:
        return []


def texts_of(env: SequenceEnv) -> Iterator[str]:
    """Yield the source of every item, or its first reference where nothing is read."""
    for index in torch.split(torch.arange(env.size, device=env.device), READ_TOGETHER):
        context = env.contexts(index)
        if env.source_vocab is not None:
            ids = context["source"]
            lengths = (ids != env.source_vocab.pad).sum(1)
            yield from env.source_vocab.decode_batch(ids.tolist(), lengths.tolist())
        else:
            ids, lengths = context["references"][:, 0], context["reference_lengths"][:, 0]
            yield from env.vocab.decode_batch(ids.tolist(), lengths.tolist())
