"""The base of tasks on texts: items from a corpus, rewards and metrics by name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor
from typing_extensions import Unpack

from rlseq.data.corpus import Corpus
from rlseq.mdp.sequence_env import EnvOptions, SequenceEnv
from rlseq.mdp.task_spec import TaskSpec
from rlseq.metrics.fitting import named_metric, rewards_of
from rlseq.types import Context, Reward, RewardLike


class CorpusTask(SequenceEnv):
    """Write a text for an item of a corpus.

    Args:
        corpus: the items.
        reward: a name of `rlseq metrics`, or of `own`; or any reward.
        metrics: names of what to report.
        own: rewards of this task alone, by name.
        items: what contexts have beside sources and references.
        max_len: T, EOS included; the longest reference when not given. Longer references are left out.
        words: vocabularies and sizes of a trained policy, in place of those of the corpus; longer references
            are left out, longer sources are cut.
        stream: leave tokens in their file, and fit metrics on the items of each batch.
        **options: see `EnvOptions`.
    """

    def __init__(
        self,
        corpus: Corpus,
        *,
        reward: RewardLike,
        metrics: Sequence[str] = (),
        own: Mapping[str, Reward] = {},
        items: Context | None = None,
        max_len: int | None = None,
        words: TaskSpec | None = None,
        stream: bool = False,
        **options: Unpack[EnvOptions],
    ) -> None:
        parts = corpus.notes["parts"].values()
        longest = max(part["longest"] for part in parts)
        longest_source = max(part["longest_source"] for part in parts)
        max_len = max_len or (longest if words is None else words.max_len)
        corpus = corpus if max_len >= longest else fitting(corpus, max_len)
        corpus = replace(corpus, stream=True) if stream else corpus
        self.source_width = longest_source if words is None else words.source_length
        if self.source_width < longest_source:
            warnings.warn(
                f"sources have up to {longest_source} tokens, the policy reads {self.source_width} at most: "
                "longer sources are cut",
                stacklevel=3,
            )
        items = dict(items or {})
        if corpus.sources is not None:
            items["source"] = torch.zeros(1, self.source_width, dtype=torch.int64)
        super().__init__(
            vocab=corpus.vocab,
            source_vocab=corpus.source_vocab,
            max_len=max_len,
            reward=rewards_of(reward, corpus, own),
            items=items,
            **options,
        )
        self.metrics = {name: named_metric(name, corpus, own) for name in metrics}
        self.corpus = corpus if stream else corpus.to(self.device)

    @property
    def size(self) -> int:
        """Number of items."""
        return len(self.corpus)

    def data_tensors(self) -> dict[str, Tensor]:
        """Return the arrays of the corpus."""
        return self.corpus.arrays()

    def length_bucket(self, rows: int) -> Tensor:
        """Draw items of like length, so that little is padded; each item is as likely as any other."""
        start = torch.randint(self.size, (1,), generator=self.generator, device=self.device)
        return self._by_length[(start + torch.arange(rows, device=self.device)) % self.size]

    @cached_property
    def _by_length(self) -> Tensor:
        """Items by the length of their first reference, then of their source; equal ones in random order."""
        corpus = self.corpus
        length = corpus.references.lengths[corpus.order[corpus.starts[:-1]]] * (self.source_width + 1)
        if corpus.sources is not None:
            length = length + corpus.sources.lengths
        generator = torch.Generator().manual_seed(0)
        shuffled = torch.randperm(len(length), generator=generator).to(length.device)
        return shuffled[length[shuffled].argsort(stable=True)].to(self.device)

    def contexts(self, index: Tensor) -> dict[str, Tensor]:
        """Return sources and references."""
        return self.corpus.contexts(index, self.source_width, self.max_len)


def fitting(corpus: Corpus, max_len: int) -> Corpus:
    """Return the corpus without longer references, and warn how many these are."""
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
