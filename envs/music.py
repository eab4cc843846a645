"""Music: go on with a tune, in its metre and key, and come to an end."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache, partial
from random import Random
from typing import Annotated, ClassVar

from typing_extensions import Unpack

from rlseq.data.abc import Tune, abc_formats
from rlseq.data.encode import load
from rlseq.data.locate import Origin, Where, find
from rlseq.data.notes import MIDDLE_C, scale_of, word_of
from rlseq.envs.corpus_task import CorpusTask, CountedPairOptions, reading_of
from rlseq.envs.music_rules import MusicRules
from rlseq.envs.piano_roll import piano_roll
from rlseq.envs.text import copied
from rlseq.types import HeldOut, Reward, RewardLike
from rlseq.utils.arguments import PositiveInt, Range, checked_arguments


class Music(CorpusTask):
    """Read metre, key and the opening of a tune, write its other bars. Reward: the mean of three rules.

    `key` is the share of notes that are of the key, `metre` that of bars that are full, among those wanted,
    and `closure` is 1 if the last note is the tonic. Words are notes with their durations, as in ABC under
    `L:1/8`, but each with its own accidental: `^F2` is F sharp for two eighths, `z` a rest, `|` ends a bar.

    Args:
        path: tunes in ABC notation, .abc (docs/tasks/music.md); generated ones of four bars when not given.
        split: "train", "dev" or "test".
        bars: of a tune, the first ones; 8, or 4 of generated tunes, when not given.
        opening: bars that are read.
        reward: "form", the three rules; "key", "metre" or "closure"; a sum such as
            "metre + 0.5*closure + 0.1*bleu_2"; a name of `rlseq metrics`, or any reward.
        **options: see `CountedPairOptions`; a pretrained model's tokenizer has no words for notes.
    """

    held_out: ClassVar[HeldOut] = {"split": "test"}
    picture = staticmethod(piano_roll)

    @checked_arguments
    def __init__(
        self,
        *,
        path: Where | Mapping[str, Where] | None = None,
        split: str = "train",
        bars: Annotated[int, Range(2, 64)] | None = None,
        opening: PositiveInt = 1,
        reward: RewardLike = "form",
        **options: Unpack[CountedPairOptions],
    ) -> None:
        wanted = bars or (4 if path is None else 8)
        if opening >= wanted:
            raise ValueError(f"opening must be less than bars, which are {wanted}, got {opening}")
        toy = Origin(lambda: (tune.pair(opening) for tune in toy_tunes(wanted)))
        origins = {"all": toy} if path is None else find(path, abc_formats(wanted, opening))
        corpus = load(origins, split, reading_of(options, "word", reads=True))
        assert corpus.source_vocab is not None
        rules = MusicRules(corpus.vocab, corpus.source_vocab, wanted - opening)
        own: dict[str, Reward] = {**rules.rules, "form": rules.form, "copied": partial(copied, corpus)}
        reported = ("form", *rules.rules, "distinct_2", "copied")
        super().__init__(corpus, reward=reward, metrics=reported, own=own, **options)


# ── the embedded default ─────────────────────────────────────────────────────────────────────────────

KEYS = "C major/G major/D major/F major/A minor/E minor/D dorian/G mixolydian"
RHYTHMS = {  # of a bar, in eighths
    "4/4": "2 2 2 2/4 2 2/2 1 1 4/3 1 2 2/1 1 1 1 4",
    "3/4": "2 2 2/4 2/2 1 1 2/3 1 2/2 4",
    "6/8": "2 1 2 1/3 3/1 1 1 3/3 2 1/1 1 1 1 1 1",
}
LAST_BARS = {"4/4": "2 2 4", "3/4": "2 4", "6/8": "3 3"}
CHORDS = ("0 3 4", "0 4 3", "0 5 4", "3 0 4")  # of three bars before the last, as degrees of the scale


@lru_cache(maxsize=4)
def toy_tunes(bars: int, tunes: int = 1500, seed: int = 0) -> tuple[Tune, ...]:
    """Draw tunes that go by steps between notes of chords, and end on the tonic."""
    draw, found = Random(seed), dict[Tune, None]()
    while len(found) < tunes:
        tonic, mode = draw.choice(KEYS.split("/")).split()
        metre = draw.choice(list(RHYTHMS))
        chords = (draw.choice(CHORDS).split() * bars)[: bars - 1]
        written, degree = [], 7
        for chord in map(int, chords):
            rhythm = draw.choice(RHYTHMS[metre].split("/"))
            degrees = _walk(degree, chord, len(rhythm.split()), draw)
            written.append(_bar(degrees, rhythm, scale_of(tonic, mode)))
            degree = degrees[-1]
        end = range(len(LAST_BARS[metre].split()))  # by steps to the tonic, from above or from below
        degrees = [7 + place if degree > 7 else 7 - place for place in reversed(end)]
        written.append(_bar(degrees, LAST_BARS[metre], scale_of(tonic, mode)))
        found[Tune(metre, tonic, mode, tuple(written))] = None
    return tuple(found)


def _walk(before: int, chord: int, notes: int, draw: Random) -> list[int]:
    """Draw degrees of a scale, 7 the upper tonic: the nearest notes of a chord, then by steps."""
    first = min(
        (chord + third + 7 * octave for third in (0, 2, 4) for octave in (0, 1)),
        key=lambda d: abs(d - before),
    )
    degrees = [first]
    for _ in range(notes - 1):
        step = draw.choice((-1, -1, 1, 1, -2, 2))
        degrees.append(degrees[-1] + (step if 2 <= degrees[-1] + step <= 12 else -step))
    return degrees


def _bar(degrees: list[int], rhythm: str, scale: list[int]) -> str:
    """Return a bar as text."""
    low = scale[0] + MIDDLE_C - 12 * (scale[0] > 4)
    pitches = [low + (scale[degree % 7] - scale[0]) % 12 + 12 * (degree // 7) for degree in degrees]
    return " ".join(word_of(p, Fraction(n)) for p, n in zip(pitches, rhythm.split(), strict=True))
