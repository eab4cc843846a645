"""From many texts to the ids of their words in one pass.

What stands between two blanks makes the same words in every text. So it is cut into words once, and found
again in a dictionary: no function of Python is called for a text, but for what was not met before.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from rlseq.metrics.tokenize import BETWEEN_BLANKS, Tokenize, mteval_13a
from rlseq.vocab import ids_of

END = "\0"  # of a text, among the parts of all texts
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
        """Start without any part of a text but the end."""
        self._fitted, self._others = len(self._known), dict[str, int]()
        self._entries = _Entries(self._learn)
        self._entries[END] = 0
        self._flat, self._begins, self._lengths = array("q"), array("q", [0]), array("q", [0])

    def _learn(self, part: str) -> int:
        """Cut a part of a text into words; return its entry."""
        words = map(str, self._tokenize(part.replace(2 * END, END)))
        ids = ids_of(words, self._known, self._others, self._first + self._fitted)
        self._begins.append(len(self._flat))
        self._lengths.append(len(ids))
        self._flat.extend(ids)
        return len(self._begins) - 1

    def __call__(self, texts: Sequence[str], fill: int = 0) -> tuple[Tensor, Tensor]:
        """Return the ids of the words of texts `[B, L]`, `fill` behind them, and their numbers `[B]`."""
        if self._fitted != len(self._known) or len(self._entries) > MOST_PARTS:
            self._forget()
        parts = self._parts(texts)
        entry = np.fromiter(map(self._entries.__getitem__, parts), np.int64, len(parts))
        lengths = np.array(self._lengths)[entry]
        ends = lengths.cumsum()
        numbers = np.diff(ends[entry == 0], prepend=0)
        place = np.arange(int(ends[-1]) if len(ends) else 0)
        words = np.array(self._flat)[(np.array(self._begins)[entry] - ends + lengths).repeat(lengths) + place]
        table = np.full((len(texts), int(numbers.max(initial=0))), fill)
        table[np.arange(table.shape[1]) < numbers[:, None]] = words
        return torch.from_numpy(table), torch.from_numpy(numbers)

    def _parts(self, texts: Sequence[str]) -> list[str]:
        """Return what stands between blanks, and `END` behind each text; an `END` in a text is doubled.

        A text whose ends of lines may join words is one part.
        """
        whole = f" {END} ".join([*texts, ""])
        if whole.count(END) > len(texts):
            texts = [text.replace(END, 2 * END) for text in texts]
            whole = f" {END} ".join([*texts, ""])
        if self._tokenize is not mteval_13a or "\n" not in whole:
            return whole.split()
        return [part for text in texts for part in (*([text] if "\n" in text else text.split()), END)]


class _Entries(dict[str, int]):
    """The entries of parts of texts; one that is missing is learned."""

    def __init__(self, learn: Callable[[str], int]) -> None:
        self._learn = learn

    def __missing__(self, part: str) -> int:
        return self.setdefault(part, self._learn(part))


def words_of_texts(tokenize: Tokenize, known: dict[str, int], first: int = 0) -> WordsOfTexts | None:
    """Return a reader of many texts; None for a tokeniser that may join words over blanks."""
    return WordsOfTexts(tokenize, known, first) if tokenize in BETWEEN_BLANKS else None
