"""What is in a file before anything is trained on it: `rlseq data inspect PATH`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import StringIO

import numpy as np
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from rlseq.data.encode import SHOWN, Problems, assign_parts, levels, scan
from rlseq.data.formats import Pair
from rlseq.data.locate import PAIRS, PARTS, TEXTS, Origin, Where, by_seed, find
from rlseq.utils.errors import printable

EXAMPLE, MESSAGE = 300, 2000  # characters that are shown of a text, and of what is wrong with a line


@dataclass
class Side:
    """Lengths and words of the sources, or of the references, of a part."""

    level: str
    lengths: list[int] = field(default_factory=list)
    words: Counter[str] = field(default_factory=Counter)

    def add(self, text: str) -> None:
        """One more text."""
        words = list(text) if self.level == "char" else [word for word in text.split(" ") if word]
        self.lengths.append(len(words))
        self.words.update(words)

    def unknown(self, train: Side) -> float:
        """Share of its words that training does not have."""
        strange = sum(n for word, n in self.words.items() if word not in train.words)
        return strange / max(1, self.words.total())

    def row(self, train: Side) -> list[str]:
        """As a row of a table."""
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


@dataclass
class Overview:
    """Counts, lengths, unknown words, repetitions and overlap, by part; print it with `rich`, or as text."""

    parts: dict[str, Part]
    level: tuple[str, str]
    problems: Problems
    conditional: bool
    examples: list[Pair]
    max_len: int | None

    @property
    def overlap(self) -> dict[str, float]:
        """Share of each part's sources that training has too."""
        train = self.parts["train"].sources
        return {
            name: len(part.sources & train) / max(1, len(part.sources))
            for name, part in self.parts.items()
            if name != "train"
        }

    def __rich__(self) -> Group:
        counts = Table(title="parts", title_justify="left")
        for name in (
            "part",
            "sources",
            "references",
            "most of an item",
            "same pair again",
            "too long",
            "sources also in train",
        ):
            counts.add_column(name, justify="left" if name == "part" else "right")
        for name, part in self.parts.items():
            numbers = len(part.sources), part.pairs, part.most_references, part.repeated_pairs
            also = "" if name == "train" else f"{self.overlap[name]:.2%}"
            long = "" if self.max_len is None else f"{part.too_long:,}"
            counts.add_row(name, *(f"{n:,}" for n in numbers), long, also)
        return Group(counts, self._lengths(), *self._examples(), *self._problems())

    def _lengths(self) -> Table:
        unit = " and ".join(dict.fromkeys(self.level))
        table = Table(title=f"lengths, by {unit}", title_justify="left")
        for name in ("part", "of", "least", "median", "95 %", "most", "unknown to train"):
            table.add_column(name, justify="left" if name in ("part", "of") else "right")
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
        """Can all of it be trained on, as it is?"""
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
        if bad > SHOWN:
            yield f"  and {bad - SHOWN:,} more"

    def __str__(self) -> str:
        console = Console(width=120, file=StringIO())
        console.print(self)
        return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def inspect(
    path: Where | Mapping[str, Where],
    *,
    level: str | None = None,
    max_len: int | None = None,
    texts: bool = False,
) -> Overview:
    """Look at everything a path leads to; nothing is refused, and nothing is written.

    Args:
        path: as of `rlseq/Parallel-v0`.
        level: count by "char" or "word"; as the task would choose when not given.
        max_len: count references that are longer, the end included.
        texts: a text a line, as of `rlseq/Text-v0`.
    """
    if level not in (None, "char", "word"):
        raise ValueError(f"level must be char or word, which is what can be counted, got {level!r}")
    origins = find(path, TEXTS if texts else PAIRS)
    surveys = {name: scan(origin, 0) for name, origin in origins.items()}
    both = levels(level, surveys)
    overview = Overview(
        parts={},
        level=both,
        problems=Problems.of_all(surveys.values()),
        conditional=any(seen.conditional for seen in surveys.values()),
        examples=[],
        max_len=max_len,
    )
    for name, seen in surveys.items():
        place = assign_parts(name, seen, by_seed)
        references = Counter(
            zip(place.part[place.kept].tolist(), place.item[place.kept].tolist(), strict=True)
        )
        for code, kept, pair in zip(
            place.part.tolist(), place.kept.tolist(), _pairs(origins[name]), strict=True
        ):
            part = overview.parts.setdefault(PARTS[code], Part((Side(both[0]), Side(both[1]))))
            _count(part, pair, kept, max_len)
            if len(overview.examples) < 3:
                overview.examples.append(pair)
        for (code, _), n in references.items():
            part = overview.parts[PARTS[code]]
            part.most_references = max(part.most_references, n)
    overview.parts = {name: overview.parts[name] for name in PARTS if name in overview.parts}
    overview.parts.setdefault("train", Part((Side(both[0]), Side(both[1]))))
    return overview


def _shown(text: str, most: int = EXAMPLE) -> str:
    """A text of the data for a terminal: control characters are escaped, and what is long is cut.

    Breaking a long word into lines would also take time that grows with the square of its length.
    """
    more = f"… ({len(text):,} characters)" if len(text) > most else ""
    return printable(text[:most]) + more


def _pairs(origin: Origin) -> Iterator[Pair]:
    return (row for row in origin.read() if isinstance(row, Pair))


def _count(part: Part, pair: Pair, kept: bool, max_len: int | None) -> None:
    """One more pair."""
    part.pairs += 1
    part.repeated_pairs += not kept
    source = pair.target if pair.source is None else pair.source
    if source not in part.sources:
        part.sources.add(source)
        part.sides[0].add(source)
    part.sides[1].add(pair.target)
    if max_len is not None:
        part.too_long += part.sides[1].lengths[-1] >= max_len  # the end is a token
