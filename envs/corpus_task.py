"""What tasks on texts share: items from a corpus, rewards and metrics by name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack

from rlseq.data.corpus import Corpus
from rlseq.mdp.sequence_env import EnvOptions, SequenceEnv
from rlseq.metrics import BLEU, ROUGEL, TER, ChrF, CIDErD, EditDistance, ErrorRate, Exact
from rlseq.metrics.fitting import Fitted, HasReferences, Reader, ReadTokens, ReadWords
from rlseq.metrics.tokenize import whitespace
from rlseq.types import Reward
from rlseq.utils.errors import pick

OF_WORDS: dict[str, Any] = {"bleu": BLEU, "chrf": ChrF, "cider_d": CIDErD, "rouge_l": ROUGEL, "ter": TER}


REWARDS: dict[str, Any] = {"edit": EditDistance, "exact": Exact, **OF_WORDS}


METRICS: dict[str, Any] = {"edit_distance": EditDistance, "per": ErrorRate, "exact": Exact, **OF_WORDS}


SCALE = {"bleu": 0.01, "chrf": 0.01, "cider_d": 0.1}  # so that rewards are 1 at best


def reward_named(name: str, corpus: HasReferences, once: bool = True) -> Fitted:
    """A reward by name, 1 at best, to which a text's end counts.

    "edit" (1 − errors / length) and "exact" are of tokens, "chrf" of characters, the others of words.
    """
    make = pick(REWARDS, name, "reward")
    check_once(name, once)
    words_written = corpus.vocab.separator == " " and name != "chrf"
    read: Reader = ReadTokens(corpus)
    if name in OF_WORDS and not words_written:
        read = ReadWords(corpus, ChrF.words if name == "chrf" else whitespace, ends=True)
    return Fitted(name, make, read, once, SCALE.get(name, 1.0))


def metric_named(name: str, corpus: HasReferences, once: bool = True) -> Fitted:
    """A metric by name, as it is reported: of the text alone, as its reference implementation cuts it."""
    make = pick(METRICS, name, "metric")
    check_once(name, once)
    read = ReadWords(corpus, make.words, ends=False) if name in OF_WORDS else ReadTokens(corpus)
    return Fitted(name, make, read, once)


def check_once(name: str, once: bool) -> None:
    """Refuse what needs all items where there is only a batch of them."""
    if name == "cider_d" and not once:
        raise ValueError("cider_d weighs words by all items, which are not all in memory; choose another")


class CorpusTask(SequenceEnv):
    """Write a text for an item of a corpus.

    Args:
        corpus: the items.
        reward: a name, or any reward.
        metrics: names of what to report.
        max_len: T, EOS included; the longest reference when not given. Longer references are left out.
        stream: leave tokens in their file, and fit metrics on the items of each batch.
        **options: see `EnvOptions`.
    """

    def __init__(
        self,
        corpus: Corpus,
        *,
        reward: str | Reward | Mapping[str, Reward],
        metrics: Sequence[str] = (),
        max_len: int | None = None,
        stream: bool = False,
        **options: Unpack[EnvOptions],
    ) -> None:
        parts = corpus.notes["parts"].values()
        longest = max(part["longest"] for part in parts)
        corpus = corpus if max_len is None or max_len >= longest else fitting(corpus, max_len)
        self.source_width = max(part["longest_source"] for part in parts)
        source = torch.zeros(1, self.source_width, dtype=torch.int64)
        super().__init__(
            vocab=corpus.vocab,
            source_vocab=corpus.source_vocab,
            max_len=max_len or longest,
            reward={reward: reward_named(reward, corpus, not stream)} if isinstance(reward, str) else reward,
            items={} if corpus.sources is None else {"source": source},
            **options,
        )
        self.metrics = {name: metric_named(name, corpus, not stream) for name in metrics}
        self.corpus = corpus if stream else corpus.to(self.device)

    @property
    def size(self) -> int:
        """Number of items."""
        return len(self.corpus)

    def data_tensors(self) -> dict[str, Tensor]:
        """The corpus."""
        return self.corpus.arrays()

    def length_bucket(self, rows: int) -> Tensor:
        """Items of like length, so that little is padded; each item is as likely as any other."""
        start = torch.randint(self.size, (1,), generator=self.generator, device=self.device)
        return self._by_length[(start + torch.arange(rows, device=self.device)) % self.size]

    @cached_property
    def _by_length(self) -> Tensor:
        """Items by the length of their first reference, then of their source; those alike in random order."""
        corpus = self.corpus
        length = corpus.references.lengths[corpus.order[corpus.starts[:-1]]] * (self.source_width + 1)
        if corpus.sources is not None:
            length = length + corpus.sources.lengths
        generator = torch.Generator().manual_seed(0)
        shuffled = torch.randperm(len(length), generator=generator).to(length.device)
        return shuffled[length[shuffled].argsort(stable=True)].to(self.device)

    def contexts(self, index: Tensor) -> dict[str, Tensor]:
        """Sources and references."""
        return self.corpus.contexts(index, self.source_width, self.max_len)


def fitting(corpus: Corpus, max_len: int) -> Corpus:
    """The corpus without what is longer, and a warning that says how much that is."""
    less = corpus.without_longer_than(max_len)
    lost = len(corpus.order) - len(less.order)
    if not len(less):
        raise ValueError(f"no reference has at most max_len={max_len} tokens, EOS included")
    if lost:
        warnings.warn(
            f"left out {lost:,} of {len(corpus.order):,} references, longer than max_len={max_len}, and "
            f"{len(corpus) - len(less):,} of {len(corpus):,} items that have no other",
            stacklevel=4,
        )
    return less
