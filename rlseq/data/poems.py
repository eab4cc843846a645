"""Poems in syllabic scripts: a character is a syllable, with a tone and a rhyme by its reading in pinyin."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from rlseq.data.formats import DataError, Pair, Problem, Records, lines
from rlseq.data.locate import Formats, existing, expand
from rlseq.utils.errors import need

LINE_ENDS = "，。！？；、：,.!?;:/"  # each ends a line
PINYIN = re.compile(r"([a-zü:]+?)([1-5]?)")
INITIALS = re.compile(r"(?:zh|ch|sh|[bpmfdtnlgkhjqxrzcs])")
SPELLED = {"yi": "i", "yin": "in", "ying": "ing", "yu": "ü", "yun": "ün", "ye": "ie", "yue": "üe", "wu": "u"}
SPELLED_SHORT = {"ui": "uei", "iu": "iou", "un": "uen"}  # finals that are spelled without their vowel
RHYMES = {  # finals that rhyme with others, of the thirteen rhymes (十三辙) of northern verse
    **dict.fromkeys(("in", "ün"), "en"),
    **dict.fromkeys(("ing", "ong"), "eng"),
    **dict.fromkeys(("ü", "er"), "i"),
    **dict.fromkeys(("üe", "ue"), "ie"),
    "o": "e",
}


class Syllable(NamedTuple):
    """The reading of a character."""

    level: bool  # of the first or the second tone
    rhyme: str


Readings = Callable[[str], Syllable | None]  # of a character; None where it is not known


def syllable_of(pinyin: str) -> Syllable | None:
    """Return the tone and the rhyme of a syllable such as `guang1`; None where it is none."""
    found = PINYIN.fullmatch(pinyin.lower().replace("u:", "ü").replace("v", "ü"))
    if found is None:
        return None
    syllable, tone = found.groups()
    return Syllable(tone in ("1", "2"), rhyme_of(syllable))


def rhyme_of(syllable: str) -> str:
    """Return which of the thirteen rhymes a syllable has: `ang` of `guang` and of `xiang`."""
    initial = INITIALS.match(syllable)
    final = syllable[initial.end() :] if initial else SPELLED.get(syllable, syllable.lstrip("yw"))
    if initial and initial[0] in "jqx" and final.startswith("u"):
        final = f"ü{final[1:]}"
    final = SPELLED_SHORT.get(final, final)
    if final not in ("ie", "üe", "ue") and re.match("[iuü][aoe]", final):
        final = final[1:]  # without the medial
    return RHYMES.get(final, final)


def table_of_readings(path: str | PathLike[str]) -> dict[str, Syllable]:
    """Read a table of readings: a character, a tab, and its pinyin with the number of the tone."""
    file = existing(expand(path))
    found: dict[str, Syllable] = {}
    for number, line in lines(file):
        if isinstance(line, Problem):
            raise DataError(str(line))
        character, _, pinyin = line.strip().partition("\t")
        reading = syllable_of(pinyin.strip())
        if len(character) != 1 or reading is None:
            wanted = "expected a character, a tab and its pinyin, such as 光\tguang1"
            raise DataError(f"{file}:{number}: {wanted}, got {line!r:.40}")
        found[character] = reading
    return found


def from_package(character: str) -> Syllable | None:
    """Return the commonest reading of a character, of the package `pypinyin`."""
    pypinyin = need("pypinyin", "poems")
    read = pypinyin.pinyin(character, style=pypinyin.Style.TONE3, errors="ignore")
    return syllable_of(read[0][0]) if read else None


def verses_of(poem: str) -> list[str]:
    """Return the lines of a poem, without the marks that end them."""
    return [line for line in re.split(f"[{re.escape(LINE_ENDS)}\\s]+", poem) if line]


def poem_formats(height: int | None, width: int | None) -> Formats:
    """Return the reader of poems by suffix.

    Args:
        height: lines that every poem must have; None: any number.
        width: syllables that every line must have; None: any number.
    """
    return {".txt": partial(poem_lines, height=height, width=width)}


def poem_lines(path: Path, height: int | None, width: int | None) -> Records:
    """Read a poem a line, its lines ended by punctuation, or apart by blanks or `/`."""
    wanted = (f"{height} lines" if height else "lines") + (f" of {width} syllables" if width else "")
    for number, text in lines(path):
        if isinstance(text, Problem):
            yield text
            continue
        found = verses_of(text)
        lengths = [len(line) for line in found]
        if not found:
            yield Problem(path, number, "expected a poem, got an empty line")
        elif (height and len(found) != height) or (width and set(lengths) != {width}):
            got = f"{len(found)} of {', '.join(map(str, lengths))}"
            yield Problem(path, number, f"expected {wanted}, got {got:.60}: {text!r:.40}")
        else:
            yield Pair(None, as_poem(found))


def as_poem(found: Iterable[str]) -> str:
    """Return lines as one text, the first of two ended by a comma, the second by a full stop."""
    return "".join(f"{line}{'。' if n % 2 else '，'}" for n, line in enumerate(found))


def commonest_form(poems: Iterable[str]) -> tuple[int, int]:
    """Return the number of lines and of syllables that most poems have."""
    counts: dict[tuple[int, int], int] = {}
    for poem in poems:
        lengths = [len(line) for line in verses_of(poem)]
        if len(set(lengths)) == 1:
            counts[len(lengths), lengths[0]] = counts.get((len(lengths), lengths[0]), 0) + 1
    return max(counts, key=lambda form: counts[form], default=(4, 5))


def readings_of(where: str | PathLike[str] | None, known: Mapping[str, Syllable] | None) -> Readings:
    """Return the readings of characters: of a table in a file, known ones, or those of `pypinyin`."""
    if where is not None:
        return table_of_readings(where).get
    if known is not None:
        return known.get
    try:
        need("pypinyin", "poems")
    except ImportError as error:
        table = "readings=FILE, a table of characters and their pinyin"
        raise ImportError(f"readings of characters: {error}; or give {table}") from None
    return from_package
