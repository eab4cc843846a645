"""A stranger's data, as files: words of the CMU dictionary, told by less than they are spelled with.

All words that are told alike are right answers, so likelihood is left with many of them. A folder holds
7,000 pairs to learn from, a tenth of them dev, and 4,000 other sources to be tested on: with the 500 that
a tenth of the pairs would be, a change of errors by 4 % cannot be told from none.

    python benchmarks/recipes/words.py FOLDER [--told vowels]
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

PAIRS = {"train": 6300, "dev": 700}
TEST = 4000  # sources
HEARD = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH"
CONSONANTS = dict(zip(HEARD.split(), "bCdDfghJklmnNprsStTvwyzZ", strict=True))
Told = Callable[[str, list[str]], str]  # a word and its phonemes -> what is told of it; nothing: not used


def without_vowels(word: str, _phonemes: list[str]) -> str:
    """The consonants of a short word, as these have most readings: kwik, kwake -> kwk."""
    return "".join(c for c in word if c not in "aeiouy") if len(word) <= 7 else ""


def consonant_sounds(_word: str, phonemes: list[str]) -> str:
    """The consonants that are heard, a letter each, as Hebrew and Arabic write: nation, nashin -> nSn."""
    return "".join(CONSONANTS[sound] for sound in phonemes if sound in CONSONANTS)


def write(folder: Path, told: Told) -> Path:
    """Write train.tsv, dev.tsv and test.tsv, all or none, unless they are there; returns the folder."""
    if not folder.exists():
        answers: dict[str, set[str]] = defaultdict(set)
        for word, phonemes in dictionary():
            source = told(word, phonemes)
            if word.isalpha() and len(word) > 2 and len(source) > 2:
                answers[source].add(word)
        sources = sorted(answers)
        Random(1).shuffle(sources)
        draft = folder.with_name(f"{folder.name}.draft")
        draft.mkdir(parents=True, exist_ok=True)
        rest = iter(sources)
        for part, size in {**PAIRS, "test": None}.items():
            (draft / f"{part}.tsv").write_text("".join(_lines(rest, answers, size)), "utf-8")
        draft.replace(folder)
    return folder


def _lines(sources: Iterator[str], answers: dict[str, set[str]], pairs: int | None) -> Iterator[str]:
    """Of so many pairs, or a few more, as a source keeps all its answers; or of TEST sources."""
    written = 0
    for number, source in enumerate(sources, 1):
        yield from (f"{source}\t{word}\n" for word in sorted(answers[source]))
        written += len(answers[source])
        if number == TEST if pairs is None else written >= pairs:
            return


def dictionary() -> Iterator[tuple[str, list[str]]]:
    """Its words and one pronunciation after the other."""
    from rlseq.envs.g2p import the_dictionary

    for line in the_dictionary().read_text("utf-8").splitlines():
        word, *phonemes = line.split("#")[0].split() or [""]
        yield word.split("(")[0], phonemes


def main() -> None:
    """Write the files of one of the tasks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    told = {"vowels": without_vowels, "sounds": consonant_sounds}
    parser.add_argument("--told", choices=told, default="vowels", help="what is left out of the words")
    options = parser.parse_args()
    print(write(options.folder, told[options.told]))


if __name__ == "__main__":
    main()
