"""Reader of tunes in ABC notation, several in a file; errors name the file and the line.

Read is the melody: of a chord the first note, no grace notes, ornaments, slurs or ties. Each part of a tune,
which ends at a double bar or a repeat, is made of full bars: an upbeat is left out, a rest completes a last
bar that leaves room for one. Repeats are read once, with their first ending.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rlseq.data.formats import Pair, Problem, Records, lines
from rlseq.data.locate import Formats
from rlseq.data.notes import ACCIDENTALS, BAR, MODES, eighths_of, pitch_of, signature, word_of

NumberedLine = tuple[int, str]
Note = tuple[int | None, Fraction]  # pitch, eighths
SWUNG = {2: 3, 3: 2, 4: 3, 6: 2, 8: 3}  # in the time of how many notes so many are played
_TOKENS = re.compile(
    r"""(?P<field>\[[A-Za-z]:[^\]]*\])
    | (?P<bar>[:\[|]*\|[|\]:]*|::+)[ ]*(?:\[?(?P<ending>\d)[\d,.-]*)?
    | \[(?P<later>\d)[\d,.-]*
    | \((?P<tuplet>\d)(?::(?P<time>\d*))?(?::(?P<count>\d*))?
    | (?P<chord>\[(?=[^\]]))?(?P<note>(?P<accidental>[_=^]{0,2})(?P<letter>[A-Ga-gzx])(?P<octave>[,']*)
      (?P<duration>\d*/*\d*))(?(chord)(?P<others>[^\]]*)\](?P<all>\d*/*\d*))
    | (?P<rests>Z)(?P<bars>\d*)
    | (?P<broken>>+|<+)
    | (?P<ignored>[-\s)~.`\\*yH-WYh-w$]|\((?!\d)|"[^"]*"|\{[^}]*\}|!(?:[a-z.()+<>]{2,}|\d)!|!)""",
    re.VERBOSE,
)
_KEY = re.compile(r"([A-G][#b]?)\s*([A-Za-z]*)(.*)")
_SHORT_MODES = {"": "major", "m": "minor", "ion": "major", "aeo": "minor"} | {
    mode[:3]: mode for mode in MODES
}
_FIELD = re.compile(r"([A-Za-z]):\s*(.*)")


class Tune(NamedTuple):
    """A melody in full bars, each a text of notes as `rlseq.data.notes` writes them."""

    metre: str
    tonic: str
    mode: str
    bars: tuple[str, ...]

    def pair(self, opening: int) -> Pair:
        """Return metre, key and the first bars as the source, and the other bars as what follows."""
        first, others = (f" {BAR} ".join(bars) for bars in (self.bars[:opening], self.bars[opening:]))
        return Pair(f"M:{self.metre} K:{self.tonic} {self.mode} {first} {BAR}", others)


class AbcError(ValueError):
    """An error in a line of ABC notation."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line


def abc_formats(bars: int, opening: int) -> Formats:
    """Return the reader of the first bars of every tune, by suffix."""
    return {".abc": partial(abc_tunes, bars=bars, opening=opening)}


def abc_tunes(path: Path, bars: int, opening: int = 1) -> Records:
    """Yield the first bars of every tune in a file, as a pair; or what is wrong with a tune."""
    header: list[NumberedLine] = []
    found = False
    for tune in _tunes(path):
        if isinstance(tune, Problem):
            yield tune
        elif not tune[0][1].startswith("X:"):
            header = tune
        else:
            found = True
            try:
                yield tune_of(header, tune, bars).pair(opening)
            except AbcError as error:
                yield Problem(path, error.line, str(error))
    if not found:
        yield Problem(
            path, 1, "expected tunes, each of which begins with a line X:1 (ABC notation), got none"
        )


def _tunes(path: Path) -> Iterator[list[NumberedLine] | Problem]:
    """Yield the lines of the head of the file, if there are any, and of every tune: until an empty line."""
    part: list[NumberedLine] = []
    ended = False
    for number, line in lines(path):
        if isinstance(line, Problem):
            yield line
            continue
        text = line.partition("%")[0].rstrip()
        if text.startswith("X:"):
            if part:
                yield part
            part, ended = [(number, text)], False
        elif not line.strip():
            ended = True
        elif text and not ended:
            part.append((number, text))
    if part:
        yield part


def tune_of(header: Sequence[NumberedLine], text: Sequence[NumberedLine], bars: int) -> Tune:
    """Return the first bars of a tune.

    Args:
        header: fields that hold for all tunes of the file.
        text: the lines of the tune.
        bars: how many.
    """
    fields, body = _fields([*header, *text])
    first = text[0][0]
    number, metre = fields.get("M", (first, ""))
    metre = {"C": "4/4", "C|": "2/2"}.get(metre, metre)
    if not re.fullmatch(r"[1-9]\d?/(1|2|4|8|16|32)", metre):
        raise AbcError(number, f"expected a metre such as M:6/8, got {metre!r:.40}")
    number, key = fields.get("K", (first, ""))
    tonic, mode = _key(number, key)
    number, unit = fields.get("L", (first, "1/8" if Fraction(metre) >= Fraction(3, 4) else "1/16"))
    if not re.fullmatch(r"1/[1-9]\d?", unit):
        raise AbcError(number, f"expected a unit of length such as L:1/8, got {unit!r:.40}")
    melody = _Melody(eighths_of(metre), Fraction(unit) * 8, signature(tonic, mode))
    for number, line in body:
        if len(melody.bars) < bars:
            melody.read(number, line)
    melody.close()
    full = melody.bars[:bars]
    for number, bar in full:
        length = sum((eighths for _, eighths in bar), Fraction(0))
        if length != melody.full:
            raise AbcError(
                number,
                f"expected bars of {metre}, {melody.full} eighths, got one of {length}: {_text(bar)!r:.60}",
            )
    if len(full) < bars:
        raise AbcError(first, f"expected at least {bars} bars, got {len(full)}; read fewer: bars={len(full)}")
    return Tune(metre, tonic, mode, tuple(_text(bar) for _, bar in full))


def _text(bar: Sequence[Note]) -> str:
    return " ".join(word_of(pitch, eighths) for pitch, eighths in bar)


def _fields(text: Sequence[NumberedLine]) -> tuple[dict[str, NumberedLine], list[NumberedLine]]:
    """Return the fields up to the key, and the lines of music after it."""
    fields: dict[str, NumberedLine] = {}
    body: list[NumberedLine] = []
    keyed = False
    for number, line in text:
        named = _FIELD.match(line)
        name = named[1] if named else ""
        if named and not keyed:
            fields[name] = number, named[2].strip()
            keyed = name == "K" and text[0][0] <= number
        elif named and name in "KLMV":
            body.append((number, f"[{name}:{named[2].strip()}]"))
        elif not named and keyed:
            body.append((number, line))
        elif not named:
            raise AbcError(number, f"expected a field such as M:6/8 before the key, K:, got {line!r:.40}")
    return fields, body


def _key(number: int, text: str) -> tuple[str, str]:
    """Return tonic and mode of a key."""
    found = _KEY.fullmatch(text)
    mode = found and _SHORT_MODES.get(found[2].lower()[:3] if found[2] != "m" else "m")
    if found and found[2].lower() in ("clef", "treble", "bass", "octave"):
        mode = "major"
    if not found or not mode or re.search(r"[_=^][A-Ga-g]", found[3]):
        raise AbcError(number, f"expected a key such as K:G, K:Am or K:Ddor, got {text!r:.40}")
    return found[1], mode


class _Melody:
    """The bars of a tune, read token by token.

    Args:
        full: eighths of a bar.
        unit: eighths of a note without a number.
        key: the letters that the key raises or lowers.
    """

    def __init__(self, full: Fraction, unit: Fraction, key: dict[str, int]) -> None:
        self.full, self.unit, self.key = full, unit, key
        self.bars: list[tuple[int, list[Note]]] = []  # of the parts that have ended
        self.part: list[tuple[int, list[Note]]] = []
        self.bar: list[Note] = []
        self.raised: dict[str, int] = {}  # by accidentals of this bar
        self.tuplet, self.left = Fraction(1), 0  # the factor of the next notes, and how many these are
        self.next = Fraction(1)  # the factor of the next note, after > or <
        self.skipped = False  # in a second ending

    def read(self, number: int, line: str) -> None:
        """Read a line of music."""
        place = 0
        while place < len(line):
            found = _TOKENS.match(line, place)
            if found is None:
                raise AbcError(number, f"expected notes in ABC notation, got {line[place : place + 20]!r}")
            place = found.end()
            if found["field"]:
                self._field(number, found["field"])
            elif found["bar"]:
                self._end_bar(number, found["bar"] != BAR)
            elif found["tuplet"]:
                self._tuplet(int(found["tuplet"]), found["time"], found["count"])
            elif found["note"]:
                self._note(number, found)
            elif found["rests"]:
                for _ in range(int(found["bars"] or 1)):
                    self.bar.append((None, self.full))
                    self._end_bar(number, False)
            elif found["broken"]:
                self._broken(number, found["broken"])
            if ending := found["ending"] or found["later"]:
                self.skipped = int(ending) > 1

    def close(self) -> None:
        """End the last part."""
        self._end_bar(0, True)

    def _field(self, number: int, field: str) -> None:
        if field[1] in "KLMV" and len(self.bars) + len(self.part) + len(self.bar):
            raise AbcError(number, f"expected one metre, key and voice in a tune, got {field:.40}")
        if field[1] in "KLM":
            raise AbcError(number, f"expected {field[1]}: in the head of the tune, got {field:.40}")

    def _note(self, number: int, found: re.Match[str]) -> None:
        eighths = self.unit * _duration(number, found["duration"]) * _duration(number, found["all"] or "")
        if self.left:
            eighths, self.left = eighths * self.tuplet, self.left - 1
        eighths, self.next = eighths * self.next, Fraction(1)
        letter, accidental = found["letter"], found["accidental"]
        if accidental not in ACCIDENTALS:
            raise AbcError(number, f"expected one accidental, got {found['note']!r}")
        if letter in "zx":
            self.bar.append((None, eighths))
            return
        name = letter.upper()
        if accidental:
            self.raised[name] = ACCIDENTALS[accidental]
        above = self.raised.get(name, self.key.get(name, 0))
        self.bar.append((pitch_of(letter, found["octave"]) + above, eighths))

    def _tuplet(self, notes: int, time: str | None, count: str | None) -> None:
        compound = self.full.numerator % 3 == 0 and self.full != 6
        played = int(time) if time else SWUNG.get(notes, 3 if compound else 2)
        self.tuplet, self.left = Fraction(played, notes), int(count) if count else notes

    def _broken(self, number: int, signs: str) -> None:
        if not self.bar:
            raise AbcError(number, f"expected a note before {signs!r} in its bar")
        short = Fraction(1, 2 ** len(signs))
        before, self.next = (2 - short, short) if signs[0] == ">" else (short, 2 - short)
        pitch, eighths = self.bar[-1]
        self.bar[-1] = pitch, eighths * before

    def _end_bar(self, number: int, ends_part: bool) -> None:
        if self.bar and not self.skipped:
            self.part.append((number or (self.part[-1][0] if self.part else 1), self.bar))
        self.bar, self.raised = [], {}
        if ends_part:
            self.bars += _full_bars(self.part, self.full)
            self.part, self.skipped = [], False


def _full_bars(part: list[tuple[int, list[Note]]], full: Fraction) -> list[tuple[int, list[Note]]]:
    """Return the bars of a part without its upbeat; a rest completes the last one."""

    def missing(bar: list[Note]) -> Fraction:
        return full - sum((eighths for _, eighths in bar), Fraction(0))

    if len(part) > 1 and missing(part[0][1]) > 0:
        part = part[1:]
    if part and (left := missing(part[-1][1])) > 0:
        number, bar = part[-1]
        part = [*part[:-1], (number, [*bar, (None, left)])]
    return part


def _duration(number: int, text: str) -> Fraction:
    """Return the factor that a number behind a note stands for, such as 3/2, /, // or 2."""
    whole, slashes, parts = re.fullmatch(r"(\d*)(/*)(\d*)", text).groups()  # type: ignore[union-attr]
    below = int(parts) if parts else 2 ** len(slashes)
    if below == 0 or whole == "0":
        raise AbcError(number, f"expected a length above 0, got {text!r}")
    return Fraction(int(whole or 1), below)
