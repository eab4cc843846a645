"""A metric as the reward of a task: found by its name, and fitted on a corpus when it is first asked.

A metric reads a text by its tokens, EOS among them, by its words as a tokeniser cuts them, or whole. It is
fitted once on all items, or, where these are too many or endless, on those of each batch.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from rlseq.metrics.algebra import Composable, WeightedSum, increments, signature_of
from rlseq.metrics.base import on_host
from rlseq.metrics.encode import RefTable, pad, table_of, table_of_rows
from rlseq.metrics.pieces import RunWords, run_words
from rlseq.metrics.registry import METRICS, MetricRow, row_of
from rlseq.metrics.tokenize import Tokenize, whitespace
from rlseq.metrics.words_of_texts import WordsOfTexts, words_of_texts
from rlseq.types import Context, Reward, RewardLike
from rlseq.utils.errors import hint
from rlseq.vocab import Subwords, TokenizerVocab, Vocab, ids_of


class HasReferences(ABC):
    """References of items, on which a metric can be fitted."""

    vocab: Vocab
    oov_words: Sequence[str] = ()  # the words of ids V, V + 1, …, which cannot be written
    stream: bool = False  # there are too many references to hold: metrics are fitted on those of each batch

    @abstractmethod
    def table(self, index: Tensor | None = None) -> RefTable:
        """Return the references of items `[B]`, of all when not given; unknown words have ids beyond V."""

    def texts(self, index: Tensor | None = None) -> list[list[str]]:
        """Return the references as texts, a list for each item."""
        table, words = self.table(index), (*self.vocab.words, *self.oov_words)
        found: list[list[str]] = [[] for _ in range(table.items)]
        rows = zip(table.item.tolist(), table.ids.tolist(), table.lengths.tolist(), strict=True)
        for item, ids, length in rows:
            found[item].append(self.vocab.join(words[i] for i in ids[:length] if i != self.vocab.eos))
        return found


class ItemReferences(HasReferences):
    """References that lie in tensors: "references" `[N, R, T]` and "reference_lengths" `[N, R]`."""

    def __init__(self, vocab: Vocab, items: Mapping[str, Tensor]) -> None:
        self.vocab = vocab
        self.ids, self.lengths = items["references"], items["reference_lengths"]

    def table(self, index: Tensor | None = None) -> RefTable:
        """Return the references of items `[B]`, of all when not given."""
        rows = slice(None) if index is None else index.to(self.ids.device)
        return table_of(self.ids[rows].cpu(), self.lengths[rows].cpu())


class WithoutFirst(HasReferences):
    """Items `[n]` of a corpus without the first reference of each."""

    def __init__(self, corpus: HasReferences, items: Tensor) -> None:
        self.corpus, self.items = corpus, items
        self.vocab, self.oov_words = corpus.vocab, corpus.oov_words

    def texts(self, index: Tensor | None = None) -> list[list[str]]:
        """Return their other references as texts."""
        every = self.corpus.texts(self.items if index is None else self.items[index])
        return [texts[1:] for texts in every]

    def table(self, index: Tensor | None = None) -> RefTable:
        """Return their other references."""
        all_ = self.corpus.table(self.items if index is None else self.items[index])
        kept = all_.slot > 0
        ids, lengths, item, slot = (part[kept] for part in (all_.ids, all_.lengths, all_.item, all_.slot))
        return RefTable(ids, lengths, item, slot - 1, all_.items, all_.width - 1)


@dataclass(frozen=True, eq=False)
class MetricReader(ABC):
    """A way of reading what is written, and the references that it is compared with."""

    corpus: HasReferences

    @property
    def on_device(self) -> bool:
        """Whether texts are read where they are, as opposed to on the host."""
        return True

    @property
    @abstractmethod
    def options(self) -> dict[str, Any]:
        """The options with which the metric is made."""

    @abstractmethod
    def references(self, index: Tensor | None) -> Any:
        """Return the references of items `[B]`, of all when not given."""

    def written(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return ids `[B, L]` and where they are real; by default the tokens as they are."""
        return tokens, mask


class ReadTokens(MetricReader):
    """Reading by tokens; an unknown word of a reference equals nothing that can be written."""

    @property
    def options(self) -> dict[str, Any]:
        """The id of the end, which is a token too."""
        return {"eos": self.corpus.vocab.eos}

    def references(self, index: Tensor | None) -> RefTable:
        """Return the references as tokens."""
        return self.corpus.table(index)


@dataclass(frozen=True, eq=False)
class ReadTexts(MetricReader):
    """Reading of whole texts, for metrics by other programs, which turn tokens into texts themselves.

    Args:
        corpus: has the references.
        ends: a text's end is the word `eos`, so that a text that breaks off lacks a word.
    """

    ends: bool

    @property
    def on_device(self) -> bool:
        """Texts are strings, which are made on the host."""
        return False

    @property
    def options(self) -> dict[str, Any]:
        """The function from ids to a text."""
        return {"detokenize": self.text}

    def references(self, index: Tensor | None) -> Any:
        """Return the references as texts."""
        return [[text + " eos" * self.ends for text in item] for item in self.corpus.texts(index)]

    def text(self, ids: list[int]) -> str:
        """Return the text of ids."""
        vocab = self.corpus.vocab
        return vocab.decode(ids) + " eos" * (self.ends and vocab.eos in ids)


@dataclass(frozen=True, eq=False)
class ReadWords(MetricReader):
    """Reading by words of the text.

    Args:
        corpus: has the references.
        tokenize: from a text to words.
        ends: a text's end is a word too, as a reward needs it: else one half of a reference is as good.
    """

    tokenize: Tokenize
    ends: bool
    ids: dict[str, int] = field(default_factory=dict, init=False)

    @property
    def on_device(self) -> bool:
        """Whether words are read from pieces; texts are decoded on the host."""
        return self.runs is not None

    @property
    def options(self) -> dict[str, Any]:
        """The id of the end, if it is a word."""
        return {"eos": 0 if self.ends else None}

    def references(self, index: Tensor | None) -> RefTable:
        """Return the references as words; new ones get an id."""
        items = self.corpus.texts(index)
        rows = [self._ids(text, self.ids, 1, True) for item in items for text in item]
        return table_of_rows(rows, [len(item) for item in items])

    def written(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the texts as words; those of no reference get ids of their own."""
        eos, lengths = self.corpus.vocab.eos, mask.sum(1)
        last = tokens.gather(1, (lengths - 1).clamp(min=0).unsqueeze(1)).squeeze(1)
        ends = (last == eos) & (lengths > 0)
        if self.runs is not None:
            is_eos = (tokens == eos) & mask
            found = self.runs(tokens, mask & (is_eos.cumsum(1) == 0))
            if found is not None:
                return with_ends(*found, ends if self.ends else torch.zeros_like(ends))
        texts, ended = self.corpus.vocab.decode_batch(tokens.tolist(), lengths.tolist()), ends.tolist()
        if self._reader is not None:
            words, numbers = (part.to(tokens.device) for part in self._reader(texts))
            return with_ends(words, numbers, ends if self.ends else torch.zeros_like(ends))
        oov_words: dict[str, int] = {}
        first = len(self.ids) + 1
        rows = [self._ids(text, oov_words, first, end) for text, end in zip(texts, ended, strict=True)]
        ids = pad(rows)[0].to(tokens.device)
        return ids.clamp(min=0), ids >= 0

    @cached_property
    def runs(self) -> RunWords | None:
        """The reader of whole batches of pieces; None where texts must be decoded."""
        return run_words(self.corpus.vocab.pieces, self.tokenize, self.ids)

    @cached_property
    def _reader(self) -> WordsOfTexts | None:
        """The reader of many texts; None where a text must be cut as a whole."""
        return words_of_texts(self.tokenize, self.ids, 1)

    def _ids(self, text: str, new: dict[str, int], first: int, end: bool) -> list[int]:
        ids = ids_of(map(str, self.tokenize(text)), self.ids, new, first)
        return [*ids, 0] if end and self.ends else ids


def with_ends(words: Tensor, lengths: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """Return words `[B, L]`, with the end, id 0, behind those of ended texts, and where they are real."""
    lengths = lengths + ends
    real = torch.arange(words.shape[1] + 1, device=words.device) < lengths.unsqueeze(1)
    return torch.nn.functional.pad(words, (0, 1)), real


class LazyMetric(Composable):
    """A metric that is fitted when it is first asked.

    Args:
        name: for logs.
        make: the metric, of its references and the options of the reader.
        read: by tokens, by words, or whole.
        once: fit it on all items; False: on those of each batch, for metrics that know no other items.
        scale: what the metric is multiplied by as a reward.
    """

    def __init__(
        self, name: str, make: Callable[..., Any], read: MetricReader, once: bool = True, scale: float = 1.0
    ) -> None:
        self.name, self.make, self.read, self.once, self.scale = name, make, read, once, scale

    def __call__(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the reward, `[B]`."""
        reward = self._asked(lambda metric: metric, tokens, mask, context)
        return reward if self.scale == 1 else self.scale * reward

    def value(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the metric's own figure, `[B]`; of a metric without one its reward, unscaled."""
        return self._asked(lambda metric: getattr(metric, "value", metric), tokens, mask, context)

    def increments(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return what each token adds, `[B, T]`."""
        if isinstance(self.read, ReadWords):
            raise TypeError(
                f"{self.name} reads words, so that it cannot be paid token by token; use level='word'"
            )
        return self.scale * self._asked(lambda metric: partial(increments, metric), tokens, mask, context)

    def without_first_reference(self, items: Tensor) -> Reward:
        """Return the metric, fitted on the other references of items `[n]`, for texts of these in order."""
        read = replace(self.read, corpus=WithoutFirst(self.read.corpus, items))
        left = LazyMetric(self.name, self.make, read, scale=self.scale)
        return lambda tokens, mask, context: left(
            tokens, mask, {"index": torch.arange(len(tokens), device=tokens.device)}
        )

    @property
    def signature(self) -> str:
        """The metric's own signature; its name where it has none, or is fitted on every batch."""
        return signature_of(self.metric) if self.once else self.name

    @cached_property
    def metric(self) -> Any:
        """The metric, fitted on all items."""
        return self._made(None)

    def _made(self, index: Tensor | None) -> Any:
        return self.make(self.read.references(index), **self.read.options)

    def _asked(
        self, what: Callable[[Any], Callable[..., Tensor]], tokens: Tensor, mask: Tensor, context: Context
    ) -> Tensor:
        """Return the answer of the fitted metric; on the host if it is fitted on each batch, or decodes."""

        def answer(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
            metric, text = self._fit(tokens, mask, context)
            return what(metric)(*text)

        if self.once and self.read.on_device:
            return answer(tokens, mask, context)
        return on_host(answer, tokens, mask, context)

    def _fit(
        self, tokens: Tensor, mask: Tensor, context: Context
    ) -> tuple[Any, tuple[Tensor, Tensor, Context]]:
        """Return the fitted metric, and the text as it reads it."""
        if self.once:
            return self.metric, (*self.read.written(tokens, mask), context)
        items, index = torch.unique(context["index"], return_inverse=True)
        return self._made(items), (*self.read.written(tokens, mask), {"index": index})


# ── by name ──────────────────────────────────────────────────────────────────────────────────────────


def references_of(env: Any) -> HasReferences | None:
    """Return the corpus of a task, or the references of all its contexts; None where there are none."""
    corpus: HasReferences | None = getattr(env, "corpus", None)
    if corpus is not None:
        return corpus
    context = env.contexts(torch.arange(env.size, device=env.device))
    return ItemReferences(env.vocab, context) if "references" in context else None


def rewards_of(
    reward: RewardLike, corpus: HasReferences | None, own: Mapping[str, Reward] = {}
) -> Reward | Mapping[str, Reward]:
    """Return a task's reward as `SequenceEnv` takes it, where it may be a name, or a sum of names.

    The parts of a sum, such as "bleu + 0.5*distinct_2", are reported each on its own.
    """
    if not isinstance(reward, str):
        return reward
    if not is_sum(reward):
        return {reward: named_reward(reward, corpus, own)}
    return {
        name: part if weight == 1 else WeightedSum([(weight, part)])
        for name, weight, part in _parts(reward, corpus, own)
    }


def _parts(
    text: str, corpus: HasReferences | None, own: Mapping[str, Reward]
) -> Iterator[tuple[str, float, Reward]]:
    """Yield the names, weights and rewards of a sum of names; of a single name only this one."""
    for name, weight in terms_of(text).items():
        yield name, weight, own[name] if name in own else _fitted(name, "reward", corpus, own)


def terms_of(text: str) -> dict[str, float]:
    """Return the weights of a sum of rewards by name; of a single name its weight, 1."""
    terms: dict[str, float] = {}
    for term in text.split(" + "):
        found = _TERM.fullmatch(term.strip())
        name = found[2] if found else term
        if not found or name in terms:
            raise ValueError(
                "a reward is a name or a sum of different names, such as 'bleu + 0.5*distinct_2', got "
                f"{text!r:.80}"
            )
        terms[name] = float(found[1] or 1)
    return terms


_TERM = re.compile(r"(?:(-?\d+(?:\.\d+)?) *\* *)?(\w[\w+.-]*)")


def named_reward(name: str, corpus: HasReferences | None, own: Mapping[str, Reward] = {}) -> Reward:
    """Return a reward by name, 1 at best, to which a text's end counts.

    A metric of words reads the tokens themselves where these are words.

    Args:
        name: of the task's own rewards, or of a metric; or a sum, such as "bleu + 0.5*distinct_2".
        corpus: what it is fitted on; None where the task has no references.
        own: the task's own rewards.
    """
    if not is_sum(name):
        return own[name] if name in own else _fitted(name, "reward", corpus, own)
    return WeightedSum([(weight, reward) for _, weight, reward in _parts(name, corpus, own)])


def compares_texts(name: str) -> bool:
    """Whether a metric, or one of a sum, compares texts with references."""
    return any(row_of(term).needs_references for term in terms_of(name))


def is_sum(name: str) -> bool:
    """Whether it is a sum of rewards, or one with a weight, and no name of a metric."""
    return "*" in name or " + " in name


def named_metric(name: str, corpus: HasReferences | None, own: Mapping[str, Reward] = {}) -> Reward:
    """Return a metric by name, as it is reported: of the text alone, cut as by its reference implementation.

    Args:
        name: of the task's own metrics, or of any other; of a sum it is the sum of the rewards.
        corpus: what it is fitted on; None where the task has no references.
        own: the task's own metrics.
    """
    if is_sum(name):  # as it is trained on: figures of different scales have no sum
        return named_reward(name, corpus, own)
    return own[name] if name in own else _fitted(name, "metric", corpus, own)


def _fitted(name: str, what: str, corpus: HasReferences | None, own: Iterable[str]) -> Reward:
    """Return the metric of a row for a corpus; as a "reward" it is scaled, and a text's end counts."""
    row, ends = row_of(name), what == "reward"
    if row.make is None:
        known = {row.name for row in METRICS.values() if row.make is not None}
        raise ValueError(f"unknown {what} {name!r}{hint(name, {*known, *own})}")
    if not row.needs_references:
        judge: Reward = row.fit(eos=corpus and corpus.vocab.eos)
        return judge
    if corpus is None:
        raise ValueError(f"{row.name} needs references, which this task does not have")
    if row.all_items and corpus.stream:
        raise ValueError(f"{row.name} weighs words by all items, which are not all in memory; choose another")
    made = LazyMetric(
        row.name, row.fit, _reader(row, corpus, ends), not corpus.stream, row.scale if ends else 1.0
    )
    if row.reads == "texts" and made.once:
        made.metric  # noqa: B018  (what is missing, such as Java, is said before anything is trained)
    return made


def read_words_or_tokens(corpus: HasReferences) -> MetricReader:
    """Return the reader of a metric on words: the tokens of a task, or the words that its pieces make."""
    return ReadWords(corpus, whitespace, True) if is_pieces(corpus.vocab) else ReadTokens(corpus)


def is_pieces(vocab: Vocab) -> bool:
    """Return whether tokens are pieces of words: metrics then read the text, as papers report them."""
    return isinstance(vocab, (Subwords, TokenizerVocab))


def _reader(row: MetricRow, corpus: HasReferences, ends: bool) -> MetricReader:
    """Return the way in which a metric reads a corpus."""
    if row.reads == "texts":
        if "detokenize" not in row.options:
            raise ValueError(f"{row.name} judges texts (rlseq.metrics.evaluate), not what a task writes")
        return ReadTexts(corpus, ends)
    if is_pieces(corpus.vocab):
        return ReadWords(corpus, row.tokenize, ends)
    if row.reads == "tokens" or (ends and row.reads == "words" and corpus.vocab.separator == " "):
        return ReadTokens(corpus)
    return ReadWords(corpus, whitespace if ends and row.reads == "words" else row.tokenize, ends)
