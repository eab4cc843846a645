"""Number words from one language to another: endless, and exact, as there is one right answer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from random import Random
from typing import Annotated, ClassVar

import torch
from torch import Tensor
from typing_extensions import Unpack

from rlseq.data.corpus import Vocabularies
from rlseq.envs.corpus_task import TokenizerOptions, given_words, of_all_tasks
from rlseq.mdp.sequence_env import SequenceEnv
from rlseq.mdp.task_spec import TaskSpec
from rlseq.metrics.encode import RefTable, table_of
from rlseq.metrics.fitting import HasReferences, named_metric, rewards_of
from rlseq.types import HeldOut, RewardLike
from rlseq.utils.arguments import Range, checked_arguments
from rlseq.utils.errors import need, pick
from rlseq.vocab import EOS, TokenizerVocab, Vocab

LANGUAGES = ("cs", "de", "en", "es", "fr", "it", "nl", "pl", "pt", "sv")
COUNTED = 20_000  # numbers times languages up to which the longest is looked for
SPLITS: dict[str, Sequence[int]] = {"train": range(17), "dev": (19,), "test": (17, 18)}  # a number modulo 20


class Numbers(SequenceEnv):
    """Read a number's words, write them in another language. Reward: 1 − edits / length, by characters.

    Ten languages (cs de en es fr it nl pl pt sv) of the `num2words` package (`pip install 'rlseq[numbers]'`),
    asked when a number is drawn, so that nothing is stored. A number modulo 20 is in dev if 19, in test if
    17 or 18.

    Args:
        source: a language, or "digits".
        target: a language, "digits", or "all" ten, each named before the source.
        below: numbers are 0 … below−1; at least 20, so that every part has some.
        split: "train", "dev" or "test".
        reward: a name of `rlseq metrics`, such as "edit", "exact", "bleu" or "chrf", or any reward.
        words: vocabularies and sizes of a trained policy.
        **options: of a pretrained model's tokenizer, see `TokenizerOptions` and docs/guides/tokenizers.md;
            and those of all tasks.
    """

    held_out: ClassVar[HeldOut] = {"split": "test"}

    @checked_arguments
    def __init__(
        self,
        *,
        source: str = "en",
        target: str = "fr",
        below: Annotated[int, Range(20, 10**15)] = 10_000,
        split: str = "train",
        reward: RewardLike = "edit",
        words: TaskSpec | None = None,
        **options: Unpack[TokenizerOptions],
    ) -> None:
        need("num2words", "numbers")
        known = {name: name for name in ("digits", *LANGUAGES)}
        targets = LANGUAGES if target == "all" else (pick(known, target, "language"),)
        language = pick(known, source, "language")
        given = given_words(words, options, True)
        tokens = given if given is not None and isinstance(given.vocab, TokenizerVocab) else None
        corpus = NumberPairs(language, targets, below, pick(SPLITS, split, "split"), tokens)
        self.corpus = corpus
        super().__init__(
            vocab=corpus.vocab,
            source_vocab=corpus.source_vocab,
            max_len=corpus.width,
            reward=rewards_of(reward, corpus),
            items={"source": torch.zeros(1, corpus.source_width, dtype=torch.int64)},
            **of_all_tasks(options),
        )
        self.metrics = {name: named_metric(name, corpus) for name in ("edit_distance", "exact")}

    @property
    def size(self) -> int:
        """Number of numbers in this part, times languages."""
        return len(self.corpus)

    def contexts(self, index: Tensor) -> dict[str, Tensor]:
        """Return sources, and the one reference of each."""
        made = self.corpus.encoded(index).items()
        return {name: value.to(self.device, non_blocking=True) for name, value in made}  # the host goes on

    def as_source(self, source: str) -> str:
        """Return a number's words; where there are several languages, one of them is named before."""
        text = str(super().as_source(source))
        known = {f"<{name}>" for name in LANGUAGES}
        tags = [word for word in self.source_vocab.words if word in known] if self.source_vocab else []
        if tags and not text.startswith(tuple(tags)):
            raise ValueError(f"name the language first, as in {tags[0] + text!r}; known: {', '.join(tags)}")
        return text


class NumberPairs(HasReferences):
    """Items computed from their index: number and language, and their words."""

    stream = True

    def __init__(
        self,
        source: str,
        targets: Sequence[str],
        below: int,
        places: Sequence[int],
        tokens: Vocabularies | None = None,
    ) -> None:
        """Make the vocabularies, of letters and tags where `tokens` are not those of a tokenizer."""
        self.source, self.targets, self.below, self.places = source, targets, below, places
        letters, longest_source = spelling((source,), below)
        self.tags = tuple(f"<{name}>" for name in targets) if len(targets) > 1 else ()
        read = Vocab((EOS, *letters, *self.tags), separator="")
        letters, longest = spelling(tuple(targets), below)
        if tokens is None:
            self.source_vocab, self.vocab = read, Vocab((EOS, *letters), separator="")
            self.source_width, self.width = longest_source + bool(self.tags), longest + 1
            return
        self.source_vocab, self.vocab = tokens.source_vocab or tokens.vocab, tokens.vocab
        if below * len(targets) > COUNTED:  # bounds: a letter is two bytes at most, and each of them a token
            self.source_width = 2 * longest_source + len(
                self.source_vocab.encode(self.tags[0] if self.tags else "x")
            )
            self.width = 2 * longest + 1
            return
        every = [(number, to) for number in range(below) for to in range(len(targets))]
        self.source_width = max(
            map(len, self.source_vocab.encode_batch([self.source_text(*x) for x in every]))
        )
        self.width = max(map(len, self.vocab.encode_batch([self.text(*x) for x in every]))) + 1

    def __len__(self) -> int:
        return sum(len(range(place, self.below, 20)) for place in self.places) * len(self.targets)

    def asked(self, index: Tensor) -> list[tuple[int, int]]:
        """Return number and target of items: number 0 to all languages, then the next of this part."""
        numbers = [divmod(i, len(self.targets)) for i in index.tolist()]
        places = len(self.places)
        return [(i // places * 20 + self.places[i % places], to) for i, to in numbers]

    def encoded(self, index: Tensor) -> dict[str, Tensor]:
        """Return sources `[B, S]`, references `[B, 1, T]` and their lengths."""
        asked, eos = self.asked(index), self.vocab.eos or 0
        read = self.source_vocab.encode_batch([self.source_text(*x) for x in asked])
        written = [[*ids, eos] for ids in self.vocab.encode_batch([self.text(*x) for x in asked])]
        return {
            "source": _padded(read, self.source_width, self.source_vocab.pad),
            "references": _padded(written, self.width, self.vocab.pad).unsqueeze(1),
            "reference_lengths": torch.tensor([[len(ids)] for ids in written]),
        }

    def source_text(self, number: int, to: int) -> str:
        """Return a source: the tag of the target language, where there are several, and the words."""
        return (self.tags[to] if self.tags else "") + number_words(number, self.source)

    def text(self, number: int, to: int) -> str:
        """Return the one reference."""
        return number_words(number, self.targets[to])

    def texts(self, index: Tensor | None = None) -> list[list[str]]:
        """Return the references of items as texts."""
        return [[self.text(*x)] for x in self.asked(torch.arange(len(self)) if index is None else index)]

    def table(self, index: Tensor | None = None) -> RefTable:
        """Return the references of items."""
        items = self.encoded(torch.arange(len(self)) if index is None else index)
        return table_of(items["references"], items["reference_lengths"])


@lru_cache(maxsize=1 << 17)
def number_words(number: int, language: str) -> str:
    """Return a number in words, or in digits."""
    if language == "digits":
        return str(number)
    return str(need("num2words", "numbers").num2words(number, lang=language))


@lru_cache(maxsize=32)
def spelling(languages: tuple[str, ...], below: int) -> tuple[tuple[str, ...], int]:
    """Return the letters of all numbers, and an upper bound of their lengths.

    Words of a number are those of its groups of three digits, and what joins them, at most 8 letters.
    """
    letters, longest, draw = set[str](), 0, Random(0)
    for language in languages:
        length, group = 0, 1
        while group < below:
            texts = [number_words(n * group, language) for n in range(min(1000, -(-below // group)))]
            length += max(map(len, texts)) + 8 * (group > 1)
            letters.update(*texts)
            group *= 1000
        letters.update(*(number_words(draw.randrange(below), language) for _ in range(200)))
        longest = max(longest, length)
    return tuple(sorted(letters)), longest


def _padded(rows: list[list[int]], width: int, pad: int) -> Tensor:
    """Return rows of ids as `[B, width]`."""
    if max(map(len, rows)) > width:
        raise RuntimeError(f"a number has {max(map(len, rows))} tokens, more than the bound of {width}")
    return torch.tensor([row + [pad] * (width - len(row)) for row in rows])
