"""Counts and problems of a data file, before anything is trained on it: `rlseq data inspect PATH`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

import numpy as np
from rich.console import Console, Group
from rich.table import Column, Table
from rich.text import Text

from rlseq.data.encode import (
    PROBLEMS_LISTED,
    Place,
    Problems,
    assign_parts,
    chosen_levels,
    pairs_of,
    rows_of,
    scan,
)
from rlseq.data.formats import Pair
from rlseq.data.locate import PAIRS, PARTS, TEXTS, Where, by_seed, find
from rlseq.utils.errors import printable
from rlseq.vocab import TokenizerVocab
from rlseq.vocab.pretrained import tokenizer_pair

SHOWN_PAIRS = 3  # of the data, as examples
EXAMPLE, MESSAGE = 300, 2000  # characters that are shown of a text, and of what is wrong with a line


@dataclass
class Side:
    """Lengths and words of the sources, or of the references, of a part."""

    level: str
    tokens: TokenizerVocab | None = None  # in place of characters or words
    lengths: list[int] = field(default_factory=list)
    words: Counter[str] = field(default_factory=Counter)

    def add(self, text: str) -> None:
        """Count a text."""
        if self.tokens is not None:
            words = self.tokens.split(text)
        else:
            words = list(text) if self.level == "char" else [word for word in text.split(" ") if word]
        self.lengths.append(len(words))
        self.words.update(words)

    def unknown(self, train: Side) -> float:
        """Return the share of its words that training, or the tokenizer, does not have."""
        if self.tokens is not None:
            unk = self.tokens.unk
            strange = 0 if unk is None else self.words[self.tokens.words[unk]]
        else:
            strange = sum(n for word, n in self.words.items() if word not in train.words)
        return strange / max(1, self.words.total())

    def row(self, train: Side) -> list[str]:
        """Return the cells of its row in a table."""
        if not self.lengths:
            return ["–"] * 5
        short, middle, long = np.percentile(self.lengths, (0, 50, 95))
        spread = [f"{short:.0f}", f"{middle:.0f}", f"{long:.0f}", f"{max(self.lengths):,}"]
        return [*spread, f"{self.unknown(train):.2%}"]


@dataclass
class Part:
    """Counts of a part."""

    sides: tuple[Side, Side]
    sources: set[str] = field(default_factory=set)
    pairs: int = 0
    repeated_pairs: int = 0
    most_references: int = 0
    too_long: int = 0

    def add(self, pair: Pair, repeated: bool, max_len: int | None) -> None:
        """Count a pair."""
        self.pairs += 1
        self.repeated_pairs += repeated
        source = pair.target if pair.source is None else pair.source
        if source not in self.sources:
            self.sources.add(source)
            self.sides[0].add(source)
        self.sides[1].add(pair.target)
        if max_len is not None:
            self.too_long += self.sides[1].lengths[-1] >= max_len  # the end is a token

    def longer_sources(self, most: int) -> int:
        """Return the number of sources with more tokens."""
        return sum(length > most for length in self.sides[0].lengths)


@dataclass
class Overview:
    """Counts, lengths, unknown words, repetitions and overlap, by part; print it with `rich`, or as text."""

    parts: dict[str, Part]
    level: tuple[str, str]
    problems: Problems
    conditional: bool
    examples: list[Pair]
    max_len: int | None  # T, the end included; references with more tokens are too long
    max_source_len: int | None  # sources with more tokens are cut
    recommended: str  # the level that tasks choose, and why; nothing where a level was given

    @property
    def overlap(self) -> dict[str, float]:
        """The share of each part's sources that training has too."""
        train = self.parts["train"].sources
        return {
            name: len(part.sources & train) / max(1, len(part.sources))
            for name, part in self.parts.items()
            if name != "train"
        }

    def __rich__(self) -> Group:
        names = ["sources", "references", "most of an item", "same pair again", "too long"]
        cut = self.max_source_len is not None
        counts = _table("parts", ["part"], [*names, *["sources to cut"] * cut, "sources also in train"])
        for name, part in self.parts.items():
            numbers = len(part.sources), part.pairs, part.most_references, part.repeated_pairs
            also = "" if name == "train" else f"{self.overlap[name]:.2%}"
            long = "" if self.max_len is None else f"{part.too_long:,}"
            more = (
                [f"{part.longer_sources(self.max_source_len):,}"] if self.max_source_len is not None else []
            )
            counts.add_row(name, *(f"{n:,}" for n in numbers), long, *more, also)
        recommended = [Text(f"recommended: {self.recommended}")] if self.recommended else []
        return Group(counts, self._lengths(), *recommended, *self._examples(), *self._problems())

    def _lengths(self) -> Table:
        unit = " and ".join(dict.fromkeys(self.level))
        known_to = "tokenizer" if unit == "token" else "train"
        names = ["least", "median", "95 %", "most", f"unknown to {known_to}"]
        table = _table(f"lengths, by {unit}", ["part", "of"], names)
        for name, part in self.parts.items():
            for side, what in enumerate(("sources", "references")):
                if self.conditional or side:
                    table.add_row(name, what, *part.sides[side].row(self.parts["train"].sides[side]))
        return table

    def _examples(self) -> Iterator[Text]:
        for pair in self.examples:
            source = f"{_shown(pair.source or '')} → " if self.conditional else ""
            yield Text(f"  {source}{_shown(pair.target)}")

    @property
    def usable(self) -> bool:
        """Whether there is something to train on, and no line is bad."""
        return not self.problems.count and self.parts["train"].pairs > 0

    def _problems(self) -> Iterator[str | Text]:
        if not self.parts["train"].pairs:
            yield "[red]there is nothing to train on[/red]"
        if not self.problems.count:
            yield "no line is bad"
            return
        bad = self.problems.count
        yield f"[red]{bad:,} bad line{'s' if bad > 1 else ''}[/red]"
        yield from (Text(f"  {_shown(str(problem), MESSAGE)}") for problem in self.problems.first)
        if bad > PROBLEMS_LISTED:
            yield f"  and {bad - PROBLEMS_LISTED:,} more"

    def __str__(self) -> str:
        text = StringIO()
        Console(width=120, file=text).print(self)
        return text.getvalue()


def inspect(
    path: Where | Mapping[str, Where],
    *,
    level: str | None = None,
    max_len: int | None = None,
    texts: bool = False,
    tokenizer: Any = None,
    prompt: str | None = None,
    languages: Sequence[str] | None = None,
) -> Overview:
    """Look at everything a path leads to; nothing is refused, and nothing is written.

    Args:
        path: as of `rlseq/Parallel-v0`.
        level: count by "char" or "word"; as the task would choose when not given.
        max_len: count references that are longer, the end included.
        texts: a text a line, as of `rlseq/Text-v0`.
        tokenizer: count its tokens, with those of its special tokens that are read, and what has more of them
            than the model has positions.
        prompt: around sources, for a tokenizer.
        languages: of a tokenizer that has several.
    """
    _check_counted(level, tokenizer)
    origins = find(path, TEXTS if texts else PAIRS)
    problems = Problems()
    surveys = {name: scan(origin, 0, problems) for name, origin in origins.items()}
    places = {name: assign_parts(name, seen, by_seed) for name, seen in surveys.items()}
    conditional = any(seen.conditional for seen in surveys.values())
    chosen, why = chosen_levels(level, surveys, rows_of(origins, places), conditional)
    source, target = ("char" if name == "char" else "word" for name in chosen)
    written, read = None, None
    if tokenizer is not None:
        written, read = tokenizer_pair(tokenizer, prompt, languages, reads=conditional)
        source, target, why, max_len = "token", "token", "", max_len or written.longest
    parts = {name: Part((Side(source, read), Side(target, written))) for name in PARTS}
    examples = list[Pair]()
    for name, place in places.items():
        pairs = pairs_of(origins[name])
        examples += _count(parts, place, pairs, max_len, shown=SHOWN_PAIRS - len(examples))
    longest = _longest(parts)
    return Overview(
        parts={name: part for name, part in parts.items() if part.pairs or name == "train"},
        level=(source, target),
        problems=problems,
        conditional=conditional,
        examples=examples,
        max_len=max_len,
        max_source_len=None if read is None else read.room(min(longest, max_len or longest)),
        recommended=why,
    )


def _longest(parts: Mapping[str, Part]) -> int:
    """Return the number of tokens of the longest reference with its end."""
    return max((length + 1 for part in parts.values() for length in part.sides[1].lengths), default=1)


def _check_counted(level: str | None, tokenizer: Any) -> None:
    """Refuse a level that cannot be counted, or that contradicts a tokenizer."""
    if tokenizer is not None and level is not None:
        raise ValueError(f"level={level!r} contradicts a tokenizer, whose tokens are counted; leave it out")
    if level not in (None, "char", "word"):
        raise ValueError(f"level must be char or word, the units that can be counted, got {level!r}")


def _count(
    parts: Mapping[str, Part], place: Place, pairs: Iterable[Pair], max_len: int | None, shown: int
) -> list[Pair]:
    """Count pairs in the parts that they belong to; return the first of them, at most `shown`."""
    first: list[Pair] = []
    codes, kept = place.part.tolist(), place.kept.tolist()
    for code, is_kept, pair in zip(codes, kept, pairs, strict=True):
        parts[PARTS[code]].add(pair, not is_kept, max_len)
        if len(first) < shown:
            first.append(pair)
    numbered = zip(place.part[place.kept].tolist(), place.item[place.kept].tolist(), strict=True)
    for (code, _), n in Counter(numbered).items():
        part = parts[PARTS[code]]
        part.most_references = max(part.most_references, n)
    return first


def _table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    """A table with names at the left, and numbers at the right."""
    columns = [Column(name) for name in left] + [Column(name, justify="right") for name in right]
    return Table(*columns, title=title, title_justify="left")


def _shown(text: str, most: int = EXAMPLE) -> str:
    """Prepare a text of the data for a terminal: control characters are escaped, and what is long is cut.

    Breaking a long word into lines would also take time that grows with the square of its length.
    """
    more = f"… ({len(text):,} characters)" if len(text) > most else ""
    return printable(text[:most]) + more
