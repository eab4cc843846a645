"""Encoding of references and hypotheses, texts or token ids, as padded integers; checks of both."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlseq.metrics.ngrams import PAD
from rlseq.metrics.tokenize import Tokenize
from rlseq.metrics.words_of_texts import WordsOfTexts, words_of_texts
from rlseq.vocab import ids_of

Line = str | Sequence[int] | Tensor  # one sequence: a text, or the ids of its tokens
References = Sequence[Sequence[Line]]  # references[i]: the list of the references of item i


@dataclass(frozen=True, eq=False)
class RefTable:
    """All references in one table: row s is reference number `slot[s]` of item `item[s]`."""

    ids: Tensor  # [S, L], padded with PAD
    lengths: Tensor  # [S]
    item: Tensor  # [S]
    slot: Tensor  # [S]
    items: int
    width: int  # the largest number of references of an item

    def spread(self, values: Tensor, fill: float = 0) -> Tensor:
        """Return one value a reference, [S, …] → [items, width, …], `fill` where an item has fewer."""
        table = values.new_full((self.items, self.width, *values.shape[1:]), fill)
        table[self.item, self.slot] = values
        return table

    def fingerprint(self, words: Iterable[str]) -> str:
        """Return a hash of all references, in order, and of the words of their ids."""
        digest = hashlib.sha256("\n".join(words).encode())
        for part in (self.ids, self.lengths, self.item):
            digest.update(np.ascontiguousarray(part.numpy()).tobytes())
        return digest.hexdigest()[:16]


def table_of(references: Tensor, lengths: Tensor) -> RefTable:
    """Return the table of references `[B, R, T]` with lengths `[B, R]`, on which a metric is fitted."""
    item, slot = (lengths > 0).nonzero(as_tuple=True)
    ids, long = references[item, slot], lengths[item, slot]
    ids = ids.masked_fill(torch.arange(ids.shape[1], device=ids.device) >= long.unsqueeze(1), PAD)
    return RefTable(ids, long, item, slot, len(lengths), lengths.shape[1])


def table_of_rows(rows: Sequence[Sequence[int]], counts: Sequence[int]) -> RefTable:
    """Return the table of references as ids in order, of which item i has the next `counts[i]`."""
    item = torch.repeat_interleave(torch.tensor(counts))
    slot = torch.cat([torch.arange(count) for count in counts])
    return RefTable(*pad(rows), item, slot, len(counts), max(counts))


@dataclass(eq=False)
class Encoder:
    """Encoder of lines as ids: words by a vocabulary that grows with the references, ids as they are.

    With `eos`, finished lines end in it: references and texts always, a hypothesis given as ids
    only if it does so already, since a policy may have been cut off before it stopped.
    """

    tokenize: Tokenize
    eos: int | None = None
    vocab_size: int | None = None
    words: dict[str, int] = field(default_factory=dict)
    integral: bool | None = None  # whether lines are token ids; settled by the first reference

    def references(self, references: References) -> RefTable:
        """Encode all references of all items; unseen words join the vocabulary."""
        check_references(references)
        rows = [self._close(self._line(line, self.words)) for item in references for line in item]
        return table_of_rows(rows, [len(item) for item in references])

    def hypotheses(self, hypotheses: Sequence[Line]) -> Tensor:
        """Return ids [N, T]; words that no reference has get ids of their own."""
        if self._reader is not None and isinstance(hypotheses, list) and set(map(type, hypotheses)) == {str}:
            ids, _ = self._reader(hypotheses, PAD)
            return ids if ids.shape[1] else ids.new_full((len(ids), 1), PAD)
        check_lines(hypotheses, "hypotheses")
        unseen: dict[str, int] = {}
        rows = []
        for line in hypotheses:
            row = self._line(line, unseen)
            rows.append(self._close(row) if isinstance(line, str) else self._cut(row))
        return pad(rows)[0]

    @cached_property
    def _reader(self) -> WordsOfTexts | None:
        """The reader of many texts at a time, where lines are words and blanks part them."""
        return (
            words_of_texts(self.tokenize, self.words) if self.integral is False and self.eos is None else None
        )

    def _line(self, line: Line, fresh: dict[str, int]) -> list[int]:
        """Return the ids of one line; new words enter `fresh`."""
        tokens = self.tokenize(line) if isinstance(line, str) else _listed(line)
        if not len(tokens):
            return []
        integral = not isinstance(tokens[0], str)
        if self.integral is None:
            self.integral = integral
        if integral != self.integral:
            raise TypeError(
                f"lines must be all texts or all token ids, got {'ids' if integral else 'words'} "
                f"after {'ids' if self.integral else 'words'}: {line!r:.80}"
            )
        return self._ids(tokens) if integral else self._words(tokens, fresh)

    def _words(self, tokens: Sequence[Any], fresh: dict[str, int]) -> list[int]:
        """Return ids of known words by the vocabulary, of others in order of appearance after it."""
        if self.eos is not None:
            raise TypeError(
                f"eos={self.eos} is a token id, but the lines are words; give token ids, or a "
                "tokenize= that returns them"
            )
        return ids_of(tokens, self.words, fresh, 0 if fresh is self.words else len(self.words))

    def _ids(self, tokens: Sequence[Any]) -> list[int]:
        """Return ids as they are, within the vocabulary."""
        ids = [int(token) for token in tokens]
        check_range(min(ids), max(ids), self.vocab_size)
        return ids

    def _cut(self, row: list[int]) -> list[int]:
        """Return a row up to the first EOS, which counts."""
        if self.eos is None or self.eos not in row:
            return row
        return row[: row.index(self.eos) + 1]

    def _close(self, row: list[int]) -> list[int]:
        """Return a row up to the first EOS, which is added where there is none."""
        row = self._cut(row)
        return row if self.eos is None or row[-1:] == [self.eos] else [*row, self.eos]


def _listed(line: Sequence[int] | Tensor) -> list[int]:
    """Return a list, tuple, array or tensor of ids as a list of Python integers."""
    values = line.tolist() if hasattr(line, "tolist") else list(line)
    if any(isinstance(v, bool) or not isinstance(v, (int, np.integer)) for v in values):
        raise TypeError(f"a sequence must be a text or a list of token ids, got {values!r:.80}")
    return values


def pad(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return rows of any length as ids [N, T] filled up with PAD, and their lengths [N]."""
    lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
    table = np.full((len(rows), max(1, int(lengths.max(initial=0)))), PAD, dtype=np.int64)
    table[np.arange(table.shape[1]) < lengths[:, None]] = np.fromiter(
        (token for row in rows for token in row), dtype=np.int64, count=int(lengths.sum())
    )
    return torch.from_numpy(table), torch.from_numpy(lengths)


def check_settings(metric: Any) -> None:
    """Refuse settings with which no score would be a number."""
    if not metric.dtype.is_floating_point:
        raise ValueError(f"dtype must be a type of fractions, such as torch.float32, got {metric.dtype}")
    words = getattr(metric, "vocab_size", None)
    if metric.eos is not None and not 0 <= metric.eos < (2**31 if words is None else words):
        raise ValueError(
            f"eos must be a token id of the vocabulary, got eos={metric.eos}, vocab_size={words}"
        )


def check_range(low: int, high: int, vocab_size: int | None) -> None:
    """Refuse token ids beyond [0, vocab_size), or beyond 2³¹ in any case."""
    limit = 2**31 if vocab_size is None else vocab_size
    if low < 0 or high >= limit:
        raise ValueError(
            f"token ids must lie in [0, {limit}), got {low if low < 0 else high}; "
            "is this sequence encoded with another vocabulary?"
        )


def check_lines(lines: Iterable[object], name: str) -> None:
    """Refuse all but a list of sequences, such as one text or a single sequence of ids."""
    if isinstance(lines, str) or not isinstance(lines, Sequence):
        raise TypeError(f"{name} must be a list of texts or of id lists, got {type(lines).__name__}")
    for line in lines:
        if not isinstance(line, (str, Sequence, np.ndarray, Tensor)):
            raise TypeError(
                f"{name} must be a list of texts or of id lists, got a list with a "
                f"{type(line).__name__}: {line!r:.60}"
            )


def check_references(references: References) -> None:
    """Refuse all but a list with one non-empty list of lines for every item."""
    if isinstance(references, str) or not isinstance(references, Sequence):
        raise TypeError(f"references must be a list per item, got {type(references).__name__}")
    if not references:
        raise ValueError("references is empty; give one list of references for every item")
    texts = sum(isinstance(item, str) for item in references)
    if texts:
        raise TypeError(
            f"references must be a list per item, got {texts} strings for {len(references)} items; "
            "wrap each in a list: [[text] for text in references]"
        )
    for i, item in enumerate(references):
        if not isinstance(item, Sequence):
            raise TypeError(
                f"references[{i}] must be a list of references, got {type(item).__name__} "
                f"{item!r:.60}; wrap it in a list"
            )
        if not len(item):
            raise ValueError(f"references[{i}] is empty; every item needs at least one reference")
        if isinstance(item[0], int):
            raise TypeError(
                f"references[{i}] must be a list of references, got a list of numbers, which is "
                "one reference; wrap it in a list: [[ids] for ids in references]"
            )
        check_lines(item, f"references[{i}]")


def check_count(hypotheses: int, counts: Sequence[int]) -> None:
    """Refuse another number of hypotheses than of items; say where references look transposed."""
    if hypotheses == len(counts):
        return
    hint = (
        "; they look transposed: pass [list(r) for r in zip(*references)]"
        if set(counts) == {hypotheses}
        else "; references[i] must hold all references of hypothesis i"
    )
    raise ValueError(f"got {hypotheses} hypotheses for {len(counts)} items of references{hint}")
