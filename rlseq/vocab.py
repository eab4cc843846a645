"""Words and their ids, with the special ids of a task decided once and for all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Vocab:
    """V words with ids 0 … V−1: the action space is exactly what can be written.

    By default id 0 is the one special word: it starts a sequence, ends it, and pads it. Any of the
    three may be another id; `eos=None` makes a task of fixed length, in which 0 is an ordinary word.
    """

    words: tuple[str, ...]
    eos: int | None = 0
    bos: int = 0
    pad: int = 0
    separator: str = " "  # what stands between words in a text: "" for characters

    def __post_init__(self) -> None:
        if not self.words:
            raise ValueError("a vocabulary needs at least one word, got none")
        if len(set(self.words)) < len(self):
            twice = next(word for i, word in enumerate(self.words) if word in self.words[:i])
            raise ValueError(f"words must differ, got {twice!r} more than once")
        if self.eos is not None and not 0 <= self.eos < len(self):
            raise ValueError(f"eos must be a word that can be written, 0 … {len(self) - 1}, got {self.eos}")
        if self.bos < 0 or self.pad < 0:
            raise ValueError(f"bos and pad must be ids ≥ 0, got bos={self.bos}, pad={self.pad}")

    @classmethod
    def numbered(cls, size: int, eos: int | None = 0, bos: int = 0, pad: int = 0) -> Vocab:
        """Letters while they suffice, else the ids themselves; the word that ends is `<eos>`."""
        letters = iter("abcdefghijklmnopqrstuvwxyz")
        name = (lambda i: next(letters)) if size <= 26 else str
        return cls(tuple("<eos>" if i == eos else name(i) for i in range(size)), eos, bos, pad)

    def __len__(self) -> int:
        return len(self.words)

    @property
    def num_ids(self) -> int:
        """Rows an embedding needs: BOS and PAD may be ids that can be read but never written."""
        return max(len(self), self.bos + 1, self.pad + 1)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}

    def encode(self, text: str) -> list[int]:
        """Ids of a text's words, without EOS; an unknown word is an error."""
        words = text.split(self.separator) if self.separator else list(text)
        unknown = [word for word in words if word and word not in self._ids]
        if unknown:
            raise ValueError(f"unknown words {unknown[:5]}; the vocabulary has {len(self)} words")
        return [self._ids[word] for word in words if word]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of a sequence of ids, up to and without the first EOS."""
        words: list[str] = []
        for i in ids:
            if i == self.eos:
                break
            if not 0 <= i < len(self):
                raise ValueError(f"ids must be 0 … {len(self) - 1}, got {i}")
            words.append(self.words[i])
        return self.separator.join(words)

    def decode_batch(self, tokens: Sequence[Sequence[int]], lengths: Sequence[int]) -> list[str]:
        """Texts of padded rows."""
        return [self.decode(row[:n]) for row, n in zip(tokens, lengths, strict=True)]
