"""From many texts to the ids of their words in one pass.

What stands between two blanks makes the same words in every text. So it is cut into words once, and found
again in a dictionary: no function of Python is called for a text, but for what was not met before.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from rlseq.metrics.tokenize import BETWEEN_BLANKS, Tokenize, mteval_13a
from rlseq.vocab import ids_of

MOST_PARTS = 1 << 18  # that are remembered; a policy near random writes new ones all the time


class WordsOfTexts:
    """The words of texts, by a tokeniser to which blanks are bounds (`BETWEEN_BLANKS`).

    Args:
        tokenize: from a text to words.
        known: ids of the words of references, which may become more; other words get ids behind these.
        first: the id of the first other word, when nothing more is known.
    """

    def __init__(self, tokenize: Tokenize, known: dict[str, int], first: int = 0) -> None:
        self._tokenize, self._known, self._first = tokenize, known, first
        self._forget()

    def _forget(self) -> None:
        """Start without any part of a text."""
        self._fitted, self._others = len(self._known), dict[str, int]()
        self._entries = _Entries(self._learn)
        self._flat, self._begins, self._lengths = array("q"), array("q"), array("q")

    def _learn(self, part: str) -> int:
        """Cut a part of a text into words; return its entry."""
        words = map(str, self._tokenize(part))
        ids = ids_of(words, self._known, self._others, self._first + self._fitted)
        self._begins.append(len(self._flat))
        self._lengths.append(len(ids))
        self._flat.extend(ids)
        return len(self._begins) - 1

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the ids of the words of texts `[B, L]`, 0 behind them, and their numbers `[B]`."""
        if self._fitted != len(self._known) or len(self._entries) > MOST_PARTS:
            self._forget()
        parts = [self._parts(text) for text in texts]
        counts = np.fromiter(map(len, parts), np.int64, len(parts))
        found = map(self._entries.__getitem__, chain.from_iterable(parts))
        entry = np.fromiter(found, np.int64, int(counts.sum()))
        lengths, row = np.array(self._lengths)[entry], np.arange(len(parts)).repeat(counts)
        numbers = np.bincount(row, lengths, len(parts)).astype(np.int64)
        ends = lengths.cumsum()
        place = np.arange(int(lengths.sum()))
        words = np.array(self._flat)[(np.array(self._begins)[entry] - ends + lengths).repeat(lengths) + place]
        table = np.zeros((len(parts), int(numbers.max(initial=0))), np.int64)
        table[np.arange(table.shape[1]) < numbers[:, None]] = words
        return torch.from_numpy(table), torch.from_numpy(numbers)

    def _parts(self, text: str) -> list[str]:
        """Return what stands between blanks; a text whose ends of lines may join words is one part."""
        return [text] if self._tokenize is mteval_13a and "\n" in text else text.split()


class _Entries(dict[str, int]):
    """The entries of parts of texts; one that is missing is learned."""

    def __init__(self, learn: Callable[[str], int]) -> None:
        self._learn = learn

    def __missing__(self, part: str) -> int:
        return self.setdefault(part, self._learn(part))


def words_of_texts(tokenize: Tokenize, known: dict[str, int], first: int = 0) -> WordsOfTexts | None:
    """Return a reader of many texts; None for a tokeniser that may join words over blanks."""
    return WordsOfTexts(tokenize, known, first) if tokenize in BETWEEN_BLANKS else None
