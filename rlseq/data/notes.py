"""Notes, keys and metres as words: `^F2` is the F sharp above middle C for two eighths, `z` a rest.

Words are those of ABC notation under `L:1/8`, but each note has its own accidental: it sounds as it is
written, whatever the key, and every pitch has one name.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

LETTERS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}  # semitones above C
ACCIDENTALS = {"": 0, "=": 0, "^": 1, "_": -1, "^^": 2, "__": -2}
PITCH_NAMES = ("C", "^C", "D", "_E", "E", "F", "^F", "G", "^G", "A", "_B", "B")  # by semitones above C
SHARPS = {"C": 0, "G": 1, "D": 2, "A": 3, "E": 4, "B": 5, "F": -1}  # of the major key
MODES = {  # sharps beside those of the major key
    "major": 0,
    "minor": -3,
    "dorian": -2,
    "mixolydian": -1,
    "lydian": 1,
    "phrygian": -4,
    "locrian": -5,
}
MIDDLE_C = 60
BAR = "|"
_NOTE = re.compile(r"(?:(z)|([_=^]{0,2})([A-Ga-g])([,']*))(\d*)(?:(/)(\d*))?")


class Sound(NamedTuple):
    """A pitch as a number of semitones (60 is middle C), None for a rest, and its eighths."""

    pitch: int | None
    eighths: Fraction


def word_of(pitch: int | None, eighths: Fraction) -> str:
    """Return the word of a note, or of a rest, which has no pitch."""
    whole, parts = eighths.numerator, eighths.denominator
    duration = ("" if whole == 1 else str(whole)) + ("" if parts == 1 else f"/{parts}")
    if pitch is None:
        return f"z{duration}"
    octave, name = pitch // 12 - MIDDLE_C // 12, PITCH_NAMES[pitch % 12]
    if octave > 0:
        return f"{name.lower()}{chr(39) * (octave - 1)}{duration}"
    return f"{name}{',' * -octave}{duration}"


def sound_of(word: str) -> Sound | None:
    """Return what a word sounds like; None where it is no note and no rest."""
    found = _NOTE.fullmatch(word)
    if found is None:
        return None
    groups: tuple[str, ...] = found.groups(default="")
    rest, accidental, letter, octave, whole, slash, parts = groups
    if accidental not in ACCIDENTALS or parts == "0":
        return None
    eighths = Fraction(int(whole or 1), int(parts or 2) if slash else 1)
    if rest:
        return Sound(None, eighths)
    return Sound(pitch_of(letter, octave) + ACCIDENTALS[accidental], eighths)


def pitch_of(letter: str, octave: str) -> int:
    """Return the pitch of a letter of ABC without accidental, with its marks of the octave."""
    high = MIDDLE_C + 12 * (letter.islower() + octave.count("'") - octave.count(","))
    return high + LETTERS[letter.upper()]


def signature(tonic: str, mode: str) -> dict[str, int]:
    """Return the letters that a key raises, 1, or lowers, −1."""
    sharps = SHARPS[tonic[0]] + 7 * (tonic.count("#") - tonic.count("b")) + MODES[mode]
    order = "FCGDAEB" if sharps > 0 else "BEADGCF"
    found: dict[str, int] = {}
    for place in range(abs(sharps)):
        letter = order[place % 7]
        found[letter] = found.get(letter, 0) + (1 if sharps > 0 else -1)
    return found


def tonic_of(tonic: str) -> int:
    """Return the semitones of a tonic, such as `F#`, above C."""
    return (LETTERS[tonic[0]] + tonic.count("#") - tonic.count("b")) % 12


def scale_of(tonic: str, mode: str) -> list[int]:
    """Return the seven notes of a key in rising order, as semitones above C, the tonic first."""
    raised, start = signature(tonic, mode), "CDEFGAB".index(tonic[0])
    letters = [*"CDEFGAB"[start:], *"CDEFGAB"[:start]]
    return [(LETTERS[letter] + raised.get(letter, 0)) % 12 for letter in letters]


def eighths_of(metre: str) -> Fraction:
    """Return the eighths of a bar, such as 6 of `6/8`."""
    return Fraction(metre) * 8
