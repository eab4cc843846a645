"""The level at which texts are read: words where training knows them, else subwords or characters.

The share of words on dev that training does not have decides, so that no task reads an open vocabulary, such
as dates or names, as words of which it has never seen the next one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec

LEAST_BLANKS = 0.5  # blanks a text below which most texts are single words
MOST_UNKNOWN = 0.02  # share of dev's words that are unknown, up to which words are read
MOST_RARE = 0.02  # share of training's words that are rare, up to which words are read beside characters
RARE = 50  # times; a rarer word beside characters is better spelled than known by itself
SHORT = 6  # words a text on average, up to which characters are read where words do not do
ENOUGH = 20, 1000  # words of dev, or of training where there is no dev, from which shares are measured
LEAST_PAIR = 10  # times that two pieces must stand together to be joined, where subwords are chosen here

Levels = tuple[str, str]  # of sources and of references
NAMES = {"char": "characters", "word": "words", "bpe": "subwords"}
SIDES = "sources", "references"


@dataclass
class WordCounts:
    """The words of the sources, or of the references, that stand between blanks."""

    blanks: float  # a text, on average
    train: Counter[str] = field(default_factory=Counter)
    dev: Counter[str] = field(default_factory=Counter)

    @property
    def unknown(self) -> float | None:
        """The share of dev's words that training does not have; None where too few can be counted.

        Where there is no dev, the share of training's words that occur once, which estimates the same
        (Good 1953).
        """
        if self.dev.total() >= ENOUGH[0]:
            return sum(n for word, n in self.dev.items() if word not in self.train) / self.dev.total()
        if not self.dev and self.train.total() >= ENOUGH[1]:
            return sum(n for n in self.train.values() if n == 1) / self.train.total()
        return None

    @property
    def rare(self) -> float | None:
        """The share of training's words that occur fewer than 50 times; None where too few are counted."""
        if self.train.total() < ENOUGH[1]:
            return None
        return sum(n for n in self.train.values() if n < RARE) / self.train.total()


def count_words(
    pairs: Iterable[tuple[str | None, str, int, bool]], blanks: Sequence[float]
) -> tuple[WordCounts, WordCounts]:
    """Count the words of training and dev on both sides.

    Args:
        pairs: source, reference, number of the part, and whether the source was not met before.
        blanks: blanks in a source, and in a reference, on average.
    """
    sides = WordCounts(blanks[0]), WordCounts(blanks[1])
    for source, target, part, first in pairs:
        if part <= 1:
            for side, text in zip(sides, (source if first else None, target), strict=True):
                (side.dev if part else side.train).update((text or "").split())
    return sides


def choose(sides: tuple[WordCounts, WordCounts], conditional: bool) -> tuple[Levels, str]:
    """Return the level of each side, and a sentence that says why.

    Texts that are mostly single words are read by characters. Others are read by words where at most 2 % of
    dev's are unknown, and, if the other side is read by characters, hardly one is rare. Else they are read by
    characters where they are short, and by subwords where they are longer.

    Args:
        sides: the words of sources and of references.
        conditional: whether there are sources.
    """
    single = [side.blanks < LEAST_BLANKS for side in sides]
    levels, reasons = [], []
    for side, alone, other_alone in zip(sides, single, reversed(single), strict=True):
        level, reason = _chosen(side, alone, conditional and other_alone)
        levels.append(level)
        reasons.append(reason)
    first = 0 if conditional else 1
    said = "; ".join(
        f"{name} are read by {NAMES[level]}, because {reason}"
        for name, level, reason in list(zip(SIDES, levels, reasons, strict=True))[first:]
    )
    return (levels[0], levels[1]), said


def _chosen(side: WordCounts, single: bool, beside_characters: bool) -> tuple[str, str]:
    """Return the level of a side, and the reason."""
    unknown, rare = side.unknown, side.rare
    if single:
        return "char", "most are single words"
    if beside_characters and rare is not None and rare > MOST_RARE:
        return _below_words(side, f"{rare:.1%} of their words occur fewer than {RARE} times")
    if unknown is None:
        return "word", "they are too few to count unknown words"
    counted = f"{unknown:.1%} of the words of dev are unknown to training"
    return ("word", counted) if unknown <= MOST_UNKNOWN else _below_words(side, counted)


def _below_words(side: WordCounts, reason: str) -> tuple[str, str]:
    """Return characters for short texts, and subwords for longer ones where these can be made."""
    if side.blanks < SHORT:
        return "char", reason
    if find_spec("tokenizers") is None:
        return "char", f"{reason} (pip install 'rlseq[bpe]' for subwords, which such long texts need)"
    return "bpe", reason
