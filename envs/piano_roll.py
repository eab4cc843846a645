"""A picture of a melody as SVG: a bar for each note, as high as it sounds and as long as it lasts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

from rlseq.data.notes import BAR, MODES, scale_of, sound_of, tonic_of

STEP, EIGHTH = 6, 12  # pixels of a semitone and of an eighth
OPENING, IN_KEY, OFF_KEY = "var(--soft, #5c6573)", "var(--accent, #2563a8)", "var(--bad, #b3261e)"
LINE = "var(--line, #d8d4c8)"


class Placed(NamedTuple):
    """A note in a picture."""

    start: float  # in eighths
    eighths: float
    pitch: int
    word: str
    colour: str


def piano_roll(source: str, text: str) -> str:
    """Return the picture of a tune: its opening in grey, notes outside of the key in red.

    Upright lines divide bars, dashed ones are the tonic.

    Args:
        source: metre, key and opening, as `rlseq/Music-v0` has them.
        text: what follows.
    """
    _, tonic, mode, *opening = source.split()
    words = [*opening, *text.split()]
    known = tonic.startswith("K:") and mode in MODES
    scale = scale_of(tonic[2:], mode) if known else range(12)
    notes = list(_placed(words, len(opening), scale))
    bars, end = _bars(words)
    pitches = [note.pitch for note in notes] or [0]
    low, high = min(pitches) - 1, max(pitches) + 1
    width, height = max(end, 1.0) * EIGHTH, (high - low + 1) * STEP
    home = [pitch for pitch in range(low, high + 1) if known and pitch % 12 == tonic_of(tonic[2:])]
    parts = [f'<path d="M{x * EIGHTH:g} 0V{height}" stroke="{LINE}"/>' for x in (0.0, *bars, end)]
    parts += [
        f'<path d="M0 {(high - pitch + 0.5) * STEP:g}H{width:g}" stroke="{LINE}" stroke-dasharray="3 3"/>'
        for pitch in home
    ]
    parts += [_rectangle(note, high) for note in notes]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="Piano roll: {escape(text)}" '
        f'viewBox="0 0 {width:g} {height}" width="{width:g}" style="display: block; max-width: 100%">'
        f"{''.join(parts)}</svg>"
    )


def _rectangle(note: Placed, high: int) -> str:
    """Return a note as a rectangle, in a picture whose highest pitch is given."""
    x, y, width = note.start * EIGHTH + 0.5, (high - note.pitch) * STEP, note.eighths * EIGHTH - 1
    place = f'x="{x:g}" y="{y}" width="{width:g}" height="{STEP}"'
    return f'<rect {place} rx="2" fill="{note.colour}"><title>{escape(note.word)}</title></rect>'


def _placed(words: Sequence[str], opening: int, scale: Sequence[int]) -> Iterator[Placed]:
    """Yield the notes, with their places."""
    at = 0.0
    for place, word in enumerate(words):
        sound = sound_of(word)
        if sound is None:
            continue
        if sound.pitch is not None:
            judged = IN_KEY if sound.pitch % 12 in scale else OFF_KEY
            colour = OPENING if place < opening else judged
            yield Placed(at, float(sound.eighths), sound.pitch, word, colour)
        at += float(sound.eighths)


def _bars(words: Sequence[str]) -> tuple[list[float], float]:
    """Return where bars end, and the end of the last one, in eighths."""
    at, ends = 0.0, []
    for word in words:
        sound = sound_of(word)
        at += float(sound.eighths) if sound else 0.0
        if word == BAR:
            ends.append(at)
    return ends, at
