"""A metric as the reward of a task: fitted on a corpus when it is first asked.

A metric reads a text by its tokens, EOS among them, or by its words as the metric's own tokeniser cuts them.
It is fitted once on all items, or, where these are too many or endless, on those of each batch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from rlseq.metrics.algebra import Composable
from rlseq.metrics.base import Metric
from rlseq.metrics.encode import RefTable, pad
from rlseq.metrics.tokenize import Tokenize
from rlseq.types import Context
from rlseq.vocab import Vocab


class HasReferences(Protocol):
    """What a metric can be fitted on."""

    vocab: Vocab

    def table(self, index: Tensor | None = None) -> RefTable:
        """References of items `[B]`, of all when not given; unknown words have ids beyond V."""

    def texts(self, index: Tensor | None = None) -> list[list[str]]:
        """The same as texts."""


Make = Callable[..., Any]  # references, eos=… -> a metric


class Reader(Protocol):
    """How a metric reads what is written, and what it is compared with."""

    eos: int | None

    def references(self, index: Tensor | None) -> RefTable:
        """The references of items `[B]`, of all when not given."""

    def written(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Ids `[B, L]` and where they are real."""

    def on(self, corpus: HasReferences) -> Reader:
        """The same way of reading another corpus."""


class ReadTokens:
    """By tokens; an unknown word of a reference equals nothing that can be written."""

    def __init__(self, corpus: HasReferences) -> None:
        self.eos, self.references = corpus.vocab.eos, corpus.table

    def written(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens as they are."""
        return tokens, mask

    def on(self, corpus: HasReferences) -> ReadTokens:
        """Another corpus, by tokens."""
        return ReadTokens(corpus)


class ReadWords:
    """By words of the text.

    Args:
        corpus: has the references.
        tokenize: from a text to words.
        ends: a text's end is a word too, as a reward needs it: else one half of a reference is as good.
    """

    def __init__(self, corpus: HasReferences, tokenize: Tokenize, ends: bool) -> None:
        self.corpus, self.tokenize = corpus, tokenize
        self.eos = 0 if ends else None
        self.ids: dict[str, int] = {}

    def references(self, index: Tensor | None) -> RefTable:
        """References as words; new ones get an id."""
        items = self.corpus.texts(index)
        rows = [self._ids(text, self.ids, 1, True) for item in items for text in item]
        counts = torch.tensor([len(item) for item in items])
        slot = torch.cat([torch.arange(len(item)) for item in items])
        item = torch.arange(len(items)).repeat_interleave(counts)
        return RefTable(*pad(rows), item, slot, len(items), int(counts.max()))

    def written(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Texts as words; those of no reference get ids of their own."""
        lengths = mask.sum(1)
        texts = self.corpus.vocab.decode_batch(tokens.tolist(), lengths.tolist())
        last = tokens.gather(1, (lengths - 1).clamp(min=0).unsqueeze(1)).squeeze(1)
        ended = ((last == self.corpus.vocab.eos) & (lengths > 0)).tolist()
        oov_words: dict[str, int] = {}
        first = len(self.ids) + 1
        rows = [self._ids(text, oov_words, first, end) for text, end in zip(texts, ended, strict=True)]
        ids, _ = pad(rows)
        ids = ids.to(tokens.device)
        return ids.clamp(min=0), ids >= 0

    def on(self, corpus: HasReferences) -> ReadWords:
        """Another corpus, by the same words."""
        return ReadWords(corpus, self.tokenize, self.eos is not None)

    def _ids(self, text: str, new: dict[str, int], first: int, end: bool) -> list[int]:
        known = self.ids
        ids = [
            known[word] if word in known else new.setdefault(str(word), first + len(new))
            for word in self.tokenize(text)
        ]
        return [*ids, self.eos] if end and self.eos is not None else ids


class Fitted(Composable):
    """A metric that is fitted when it is first asked.

    Args:
        name: for logs.
        make: the metric, of its references.
        read: by tokens or by words.
        once: fit it on all items; False: on those of each batch, for metrics that know no other items.
        scale: what the metric is multiplied by as a reward.
    """

    def __init__(self, name: str, make: Make, read: Reader, once: bool = True, scale: float = 1.0) -> None:
        self.name, self.make, self.read, self.once, self.scale = name, make, read, once, scale

    def __call__(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """The reward, `[B]`."""
        metric, text = self._fit(tokens, mask, context)
        return self.scale * metric(*text)

    def value(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """The metric's own figure, `[B]`."""
        metric, text = self._fit(tokens, mask, context)
        return metric.value(*text)

    def increments(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """What each token adds, `[B, T]`."""
        if not isinstance(self.read, ReadTokens):
            raise TypeError(
                f"{self.name} reads words, so that it cannot be paid token by token; use level='word'"
            )
        metric, text = self._fit(tokens, mask, context)
        return self.scale * metric.increments(*text)

    def on(self, corpus: HasReferences) -> Fitted:
        """The same metric, to be fitted on another corpus."""
        return Fitted(self.name, self.make, self.read.on(corpus), self.once, self.scale)

    @property
    def signature(self) -> str:
        """The metric's own."""
        return self.metric.signature if self.once else self.name

    @cached_property
    def metric(self) -> Metric:
        """Fitted on all items."""
        return self._made(None)

    def _made(self, index: Tensor | None) -> Metric:
        metric: Metric = self.make(self.read.references(index), eos=self.read.eos)
        return metric

    def _fit(
        self, tokens: Tensor, mask: Tensor, context: Context
    ) -> tuple[Metric, tuple[Tensor, Tensor, Context]]:
        """The metric, and the text as it reads it."""
        if self.once:
            return self.metric, (*self.read.written(tokens, mask), context)
        items, index = torch.unique(context["index"], return_inverse=True)
        return self._made(items), (*self.read.written(tokens, mask), {"index": index})


class Lazy(Composable):
    """Stands for a metric; whatever it is asked, the metric answers.

    Args:
        name: for logs.
        make: makes the metric.
    """

    def __init__(self, name: str, make: Callable[[], Any]) -> None:
        self.name, self._make = name, make

    @cached_property
    def metric(self) -> Any:
        """The metric itself."""
        return self._make()

    def __call__(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """The metric's reward."""
        reward: Tensor = self.metric(tokens, mask, context)
        return reward

    def __getattr__(self, name: str) -> Any:
        """Its other attributes, `value` and `increments` among them."""
        if name.startswith("_"):  # copying and pickling look for these before there is a metric
            raise AttributeError(name)
        return getattr(self.metric, name)
