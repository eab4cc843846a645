"""The base of tasks on texts: items from a corpus, rewards and metrics by name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor
from typing_extensions import Unpack

from rlseq.data.corpus import Corpus, Vocabularies
from rlseq.data.encode import Level, Reading
from rlseq.mdp.sequence_env import EnvOptions, SequenceEnv
from rlseq.mdp.task_spec import TaskSpec
from rlseq.metrics.fitting import named_metric, rewards_of
from rlseq.types import Context, Reward, RewardLike
from rlseq.utils.arguments import PositiveInt, shown
from rlseq.utils.errors import pick
from rlseq.vocab import Subwords, TokenizerVocab, Vocab
from rlseq.vocab.pretrained import tokenizer_pair
from rlseq.vocab.tokenizers import SourceVocab

ERRORS_BY_WORD = ("edit", "edit_distance", "wer", "per")  # where tokens are pieces of words
SOME_ITEMS = 200  # in which words are counted
CUTS = {"cut": None, "refuse": None}  # ways of treating sources with too many tokens


class TokenizerOptions(EnvOptions, total=False):
    """Options of tasks on texts for the tokenizer of a pretrained model, beside those of all tasks."""

    tokenizer: Any  # whose ids are the words: a path, a name, or an object of transformers
    prompt: str | None  # around a source: a text with {source}, or "chat" for the tokenizer's own template
    languages: Sequence[str] | None  # of sources and of texts, for a tokenizer that has several


class SourceOptions(EnvOptions, total=False):
    """Options of tasks that read texts."""

    max_source_len: PositiveInt | None  # the most tokens of a source; as the model has positions for
    too_long: str  # "cut" (the default) shortens sources that have more, "refuse" is an error


class ReferenceOptions(EnvOptions, total=False):
    """Options of tasks on texts from files, as they are written."""

    max_len: PositiveInt | None  # T, EOS included; the longest reference when not given. Longer are left out
    skip_bad: bool  # True passes over lines that cannot be used; False (the default) refuses them
    words: TaskSpec | None  # vocabularies and sizes of a trained policy, not those of the training part


class CountedOptions(ReferenceOptions, total=False):
    """Options of tasks that make a vocabulary from texts, and take no tokenizer."""

    min_count: int  # words that training has less often are unknown; 1
    vocab_size: PositiveInt | None  # V at most, the most frequent words


class CountedPairOptions(SourceOptions, CountedOptions, total=False):
    """Options of tasks that make vocabularies from pairs of texts, and take no tokenizer."""


class TextOptions(TokenizerOptions, SourceOptions, total=False):
    """Options of tasks on the texts of a corpus."""


class FileOptions(TextOptions, ReferenceOptions, total=False):
    """Options of tasks on texts from files."""


class CorpusOptions(FileOptions, CountedPairOptions, total=False):
    """Options of tasks that make vocabularies from texts of any kind."""


class CorpusTask(SequenceEnv):
    """Write a text for an item of a corpus.

    Args:
        corpus: the items.
        reward: a name of `rlseq metrics`, or of `own`; or any reward.
        metrics: names of what to report.
        own: rewards of this task alone, by name.
        items: what contexts have beside sources and references.
        stream: leave tokens in their file, and fit metrics on the items of each batch.
        **options: see `CorpusOptions`. With the words of a trained policy, references that are longer than
            its texts are left out, and longer sources are cut.
    """

    def __init__(
        self,
        corpus: Corpus,
        *,
        reward: RewardLike,
        metrics: Sequence[str] = (),
        own: Mapping[str, Reward] = {},
        items: Context | None = None,
        stream: bool = False,
        **options: Unpack[CorpusOptions],
    ) -> None:
        max_len, words = options.get("max_len"), options.get("words")
        longest = max(part["longest"] for part in corpus.notes["parts"].values())
        max_len = max_len or (written_tokens(corpus.vocab, longest) if words is None else words.max_len)
        corpus = corpus if max_len >= longest else fitting(corpus, max_len)
        corpus = replace(corpus, stream=True) if stream else corpus
        most = options.get("max_source_len")
        self.source_width = (
            source_tokens(corpus, max_len, most)
            if words is None
            else min(words.source_length, most or words.source_length)
        )
        warn_of_single_words(corpus, reward)
        self.cut_sources = check_cut(corpus, self.source_width, options.get("too_long", "cut"))
        items = dict(items or {})
        if corpus.sources is not None:
            items["source"] = torch.zeros(1, self.source_width, dtype=torch.int64)
        super().__init__(
            vocab=corpus.vocab,
            source_vocab=corpus.source_vocab,
            max_len=max_len,
            reward=rewards_of(reward, corpus, own),
            items=items,
            **of_all_tasks(options),
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


def of_all_tasks(options: TokenizerOptions) -> EnvOptions:
    """Return the options that tasks without texts have, too."""
    known = EnvOptions.__annotations__
    return cast(EnvOptions, {name: value for name, value in options.items() if name in known})


def reading_of(
    options: ReferenceOptions, level: Level, reads: bool, own: Vocabularies | None = None
) -> Reading:
    """Return how the texts of a task become ids.

    Args:
        options: of the task.
        level: of its texts; None where it is chosen by the texts.
        reads: whether the task has sources.
        own: the vocabularies of the task, where it makes them itself.
    """
    counted = cast(CountedOptions, options)  # of which a task that counts no words has none
    min_count, vocab_size = counted.get("min_count", 1), counted.get("vocab_size")
    chosen = {"level": level, "min_count": min_count if min_count > 1 else None, "vocab_size": vocab_size}
    of_tokenizer = cast(TokenizerOptions, options)  # of which a task without a tokenizer has none
    words = given_words(options.get("words") or own, of_tokenizer, reads, **chosen)
    return Reading(level, min_count, vocab_size, skip_bad=options.get("skip_bad", False), words=words)


def given_words(
    words: Vocabularies | None, options: TokenizerOptions, reads: bool, **made: Any
) -> Vocabularies | None:
    """Return the vocabularies of a trained policy, or of a tokenizer; None where they are made from texts.

    Args:
        words: of a trained policy, which has them also where they were those of a tokenizer; or of the task.
        options: of the task.
        reads: whether the task has sources.
        **made: options of vocabularies that are made from texts; None where they are at their default.
    """
    if words is not None:
        return words
    tokenizer = options.get("tokenizer")
    prompt, languages = options.get("prompt"), options.get("languages")
    if tokenizer is None:
        for name, value in (("prompt", prompt), ("languages", languages)):
            if value is not None:
                raise ValueError(f"{name} goes with a tokenizer, got {name}={shown(value)} without one")
        return None
    for name, value in made.items():
        if value is not None:
            raise ValueError(
                f"{name}={shown(value)} contradicts tokenizer={shown(tokenizer)}, whose tokens are the "
                f"words; leave {name} out"
            )
    return tokenizer_pair(tokenizer, prompt, languages, reads=reads)


def written_tokens(vocab: Vocab, longest: int) -> int:
    """Return T where it is not given: the longest reference, or as many tokens as the model can write."""
    most = vocab.longest if isinstance(vocab, TokenizerVocab) else None
    return longest if most is None else min(longest, most)


def source_tokens(corpus: Corpus, max_len: int, max_source_len: int | None) -> int:
    """Return S: the longest source, or fewer tokens where the model has no room for more, or by choice."""
    longest: int = max(part["longest_source"] for part in corpus.notes["parts"].values())
    read = corpus.source_vocab
    room = read.room(max_len) if isinstance(read, SourceVocab) else None
    if max_source_len is not None and room is not None and max_source_len > room:
        raise ValueError(
            f"max_source_len={max_source_len} is more than the model has room for: {room} tokens beside "
            f"max_len={max_len} that are written"
        )
    most = min(longest, max_source_len or longest, longest if room is None else room)
    if isinstance(read, SourceVocab) and most < min(read.least, longest):
        raise ValueError(
            f"the prompt leaves no room for a source: it has {read.least - 1} tokens itself, and {most} can "
            f"be read beside max_len={max_len} that are written; shorten the prompt, or choose another "
            "max_len or max_source_len"
        )
    return most


def check_cut(corpus: Corpus, width: int, too_long: str) -> int:
    """Return and say how many sources are cut to `width` tokens, or refuse them."""
    pick(CUTS, too_long, "too_long")
    if corpus.sources is None:
        return 0
    lengths = corpus.sources.lengths
    cut = int((lengths > width).sum())
    if not cut:
        return 0
    said = f"sources have up to {int(lengths.max())} tokens, the policy reads {width} at most"
    which = f"{cut:,} of {len(lengths):,}"
    if too_long == "refuse":
        raise ValueError(f"{said}: shorten {which} sources, or choose too_long='cut'")
    warnings.warn(f"{said}: {which} sources are cut", stacklevel=4)
    return cut


def warn_of_single_words(corpus: Corpus, reward: RewardLike) -> None:
    """Warn of errors counted in words, as those of tokens that are pieces are, where texts are one word."""
    if not isinstance(corpus.vocab, (Subwords, TokenizerVocab)):
        return
    if not isinstance(reward, str) or reward not in ERRORS_BY_WORD:
        return
    items = corpus.texts(torch.arange(min(len(corpus), SOME_ITEMS)))
    references = [text for texts in items for text in texts]
    single = sum(len(text.split()) == 1 for text in references)
    if 2 * single > len(references):
        warnings.warn(
            f"reward={reward!r} counts words, as the tokens are pieces of words, and {single:,} of "
            f"{len(references):,} references looked at are one word, right or wrong as a whole; "
            "reward='cer' counts characters",
            stacklevel=4,
        )


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
