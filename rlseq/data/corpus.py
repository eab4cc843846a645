"""A corpus: items with a source and any number of references, as flat arrays of ids.

Token arrays may lie on a device, or in a file that is mapped into memory and read where a batch needs it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np
import torch
from torch import Tensor

from rlseq.data import cache
from rlseq.metrics.encode import RefTable, table_of
from rlseq.metrics.fitting import HasReferences
from rlseq.metrics.ngrams import PAD
from rlseq.utils.files import Damaged
from rlseq.utils.memory import check_fits
from rlseq.utils.modules import Movable
from rlseq.vocab import UNK, TokenizerVocab, Vocab, pair_from_json

ID_BYTES = 8  # bytes of a token in a table


class Vocabularies(Protocol):
    """Vocabularies that are given: those of a trained policy, say, or of a tokenizer."""

    @property
    def vocab(self) -> Vocab:
        """The words of references."""

    @property
    def source_vocab(self) -> Vocab | None:
        """The words of sources."""


COLUMNS = {  # the files of a part, and what they hold
    "sources": torch.int32,
    "source_ends": torch.int64,
    "references": torch.int32,
    "reference_ends": torch.int64,
    "order": torch.int64,
    "starts": torch.int64,
    "texts": torch.uint8,  # the references as they were read, where tokens are those of a tokenizer
    "text_ends": torch.int64,
}


@dataclass(eq=False)
class Ragged(Movable):
    """Sequences of ids end to end: number n is `ids[ends[n] : ends[n + 1]]`."""

    ids: Tensor
    ends: Tensor

    @cached_property
    def lengths(self) -> Tensor:
        """The length of each sequence."""
        return self.ends.diff()

    def take(self, index: Tensor, width: int, pad: int, kept: int = 0) -> Tensor:
        """Return the sequences of numbers `index` `[…]`, as int64 `[…, width]`.

        Longer sequences are cut; their last `kept` ids stay.
        """
        if not len(self.ids):
            return torch.full((*index.shape, width), pad, device=index.device)
        start, end = self.ends[index].unsqueeze(-1), self.ends[index + 1].unsqueeze(-1)
        column = torch.arange(width, device=index.device)
        place = start + column
        if kept:
            place = torch.where((column >= width - kept) & (end - start > width), end - width + column, place)
        inside = place < end
        return self.ids[place.clamp(max=len(self.ids) - 1)].long().where(inside, pad)


class StoredTexts(Sequence[str]):
    """Texts end to end as UTF-8, in memory or in a file that is mapped; they stay where they are."""

    def __init__(self, data: Tensor, ends: Tensor) -> None:
        self.data, self.ends = data.numpy(), ends.numpy()

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[str]: ...
    def __getitem__(self, number: int | slice) -> str | Sequence[str]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        return bytes(self.data[self.ends[number] : self.ends[number + 1]]).decode()


@dataclass(eq=False)
class Corpus(HasReferences, Movable):
    """The items of one part, encoded."""

    vocab: Vocab
    source_vocab: Vocab | None
    sources: Ragged | None
    references: Ragged  # EOS included; unknown words have ids V, V + 1, …
    order: Tensor  # [M] references sorted by item
    starts: Tensor  # [N + 1] item i has references order[starts[i] : starts[i + 1]]
    oov_words: tuple[str, ...] = ()  # the words of ids V, V + 1, …
    notes: dict[str, Any] = field(default_factory=dict)  # what was counted when it was read
    stream: bool = False  # metrics are fitted on the references of each batch, as all are too many to hold
    originals: Sequence[str] | None = None  # the references as they were read, where ids do not tell them

    @classmethod
    def open(cls, folder: Path, part: str, mapped: bool, words: Vocabularies | None = None) -> Corpus | None:
        """Read a part of what `rlseq.data` wrote, None if empty.

        Args:
            folder: of the files.
            part: "train", "dev" or "test".
            mapped: leave arrays in their files.
            words: the vocabularies with which it was encoded, where they were not made from its texts.
        """
        try:
            notes = json.loads((folder / "notes.json").read_text("utf-8"))
            if not notes["parts"][part]["items"]:
                return None
            names = [name for name in COLUMNS if notes["originals"] or name not in ("texts", "text_ends")]
            arrays = {name: cache.mapped(folder / f"{part}.{name}", COLUMNS[name]) for name in names}
            made = notes.pop("words")
        except (FileNotFoundError, json.JSONDecodeError, KeyError) as error:
            raise Damaged(f"{folder} is damaged ({error})") from error
        arrays = arrays if mapped else {name: array.clone() for name, array in arrays.items()}
        vocab, source_vocab = pair_from_json(made) if words is None else (words.vocab, words.source_vocab)
        return cls(
            vocab=vocab,
            source_vocab=source_vocab,
            sources=Ragged(arrays["sources"], arrays["source_ends"]) if source_vocab else None,
            references=Ragged(arrays["references"], arrays["reference_ends"]),
            order=arrays["order"],
            starts=arrays["starts"],
            oov_words=tuple(notes.pop("oov_words")),
            notes=notes,
            originals=StoredTexts(arrays["texts"], arrays["text_ends"]) if notes["originals"] else None,
        )

    @classmethod
    def of_texts(cls, vocab: Vocab, items: Sequence[Sequence[str]], longest: int) -> Corpus:
        """Make a corpus without sources of texts in memory: the references of each item.

        Args:
            vocab: the words that can be written.
            items: references by item.
            longest: tokens that contexts show of a text, EOS included; metrics see all of it.
        """
        oov_words: dict[str, int] = {}
        texts = [text for references in items for text in references]
        rows = vocab.encode_batch_apart(texts, oov_words)
        if oov_words and vocab.unk is None:
            raise ValueError(f"the vocabulary has neither {next(iter(oov_words))!r} nor {UNK!r} for it")
        closed = [row if vocab.eos is None else [*row, vocab.eos] for row in rows]
        lengths = torch.tensor([0, *map(len, closed)])
        counts = torch.tensor([0, *map(len, items)])
        return cls(
            *(vocab, None, None),
            references=Ragged(torch.tensor([id for row in closed for id in row]), lengths.cumsum(0)),
            order=torch.arange(len(closed)),
            starts=counts.cumsum(0),
            oov_words=tuple(oov_words),
            notes={"parts": {"all": {"longest": longest, "longest_source": 0}}},
            originals=texts if isinstance(vocab, TokenizerVocab) else None,
        )

    def __len__(self) -> int:
        return len(self.starts) - 1

    def arrays(self) -> dict[str, Tensor]:
        """Return all arrays by name."""
        texts = {"reference": self.references} | ({"source": self.sources} if self.sources else {})
        ids = {f"{name}s": held.ids for name, held in texts.items()}
        ends = {f"{name}_ends": held.ends for name, held in texts.items()}
        return {**ids, **ends, "order": self.order, "starts": self.starts}

    @cached_property
    def width(self) -> int:
        """R, the most references of an item."""
        return int(self.starts.diff().max())

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest reference of this part."""
        return int(self.references.lengths[self.order].max())

    def without_longer_than(self, max_len: int) -> Corpus:
        """Leave out references of more than `max_len` tokens, and items that then have none."""
        fits = self.references.lengths[self.order] <= max_len
        left = torch.cat([fits.new_zeros(1, dtype=torch.int64), fits.cumsum(0)])[self.starts].diff()
        items = left > 0
        sources = self.sources
        if sources is not None:
            which = items.nonzero().flatten()
            lengths = sources.lengths[which]
            ends = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
            at = torch.arange(int(ends[-1])) + (sources.ends[which] - ends[:-1]).repeat_interleave(lengths)
            sources = Ragged(sources.ids[at], ends)
        starts = torch.cat([left.new_zeros(1), left[items].cumsum(0)])
        return replace(self, sources=sources, order=self.order[fits], starts=starts)

    def contexts(self, index: Tensor, source_width: int, width: int) -> dict[str, Tensor]:
        """Return sources `[B, S]`, references `[B, R, T]` and their lengths `[B, R]` of items `index`."""
        rows = index.to(self.starts.device)
        found, lengths = self._take(rows, width, self.vocab.pad)
        if self.vocab.unk is not None:
            found = found.masked_fill(found >= len(self.vocab), self.vocab.unk)
        context = {"references": found, "reference_lengths": lengths.clamp(max=width)}
        if self.sources is not None and self.source_vocab is not None:
            read, kept = self.source_vocab, min(self.source_vocab.kept, source_width)
            context["source"] = self.sources.take(rows, source_width, read.pad, kept)
        return {name: value.to(index.device) for name, value in context.items()}

    def _take(self, rows: Tensor, width: int, pad: int) -> tuple[Tensor, Tensor]:
        """Return references `[B, R, width]` and lengths `[B, R]`, 0 where there is none."""
        place = self.starts[rows].unsqueeze(1) + torch.arange(self.width, device=rows.device)
        there = place < self.starts[rows + 1].unsqueeze(1)
        which = self.order[place.clamp(max=len(self.order) - 1)]
        lengths = (self.references.ends[which + 1] - self.references.ends[which]).where(there, 0)
        return self.references.take(which, width, pad), lengths

    def texts(self, index: Tensor | None = None) -> list[list[str]]:
        """Return the references as texts, a list for each item: as they were read, where that is kept."""
        if self.originals is None:
            return super().texts(index)
        order, starts = self.order.tolist(), self.starts.tolist()
        rows = range(len(self)) if index is None else index.tolist()
        return [[self.originals[n] for n in order[starts[row] : starts[row + 1]]] for row in rows]

    def table(self, index: Tensor | None = None) -> RefTable:
        """Return the references of items `[B]`, of all when not given; unknown words have ids beyond V."""
        if index is None:
            item = torch.arange(len(self), device=self.starts.device).repeat_interleave(self.starts.diff())
            slot = torch.arange(len(item), device=item.device) - self.starts[item]
            lengths = self.references.lengths[self.order]
            check_fits(ID_BYTES * len(lengths) * self.longest, references=len(lengths), max_len=self.longest)
            ids = self.references.take(self.order, self.longest, PAD)
            return RefTable(ids.cpu(), lengths.cpu(), item.cpu(), slot.cpu(), len(self), self.width)
        found, lengths = (part.cpu() for part in self._take(index.to(self.starts.device), self.longest, PAD))
        return table_of(found, lengths)


class CorpusWriter:
    """The arrays of one part, while they are written."""

    def __init__(self, folder: Path, name: str, originals: bool = False) -> None:
        """Begin empty files; `originals` keeps references also as texts."""
        self.folder, self.name, self.items, self.originals = folder, name, 0, originals
        ends = ["source_ends", "reference_ends", *["text_ends"] * originals]
        written = [*ends, "sources", "references", "item", *["texts"] * originals]
        self.columns = {
            column: cache.ArrayWriter(folder / f"{name}.{column}", COLUMNS.get(column, torch.int64))
            for column in written
        }
        for column in ends:
            self.columns[column].extend([0])

    def sources(self, ids: list[int]) -> None:
        """Add the source of the next item."""
        self._add("sources", "source_ends", ids)

    def add(self, item: int, ids: list[int], eos: int | None, text: str) -> None:
        """Add a reference of an item."""
        self._add("references", "reference_ends", ids if eos is None else [*ids, eos])
        if self.originals:
            self._add("texts", "text_ends", text.encode())
        self.columns["item"].extend([item])
        self.items = max(self.items, item + 1)

    def _add(self, column: str, ends: str, ids: Sequence[int]) -> None:
        self.columns[column].extend(ids)
        self.columns[ends].extend([self.columns[column].length])

    def close(self) -> dict[str, int]:
        """Complete the files of the part, none if it is empty, and return what they hold, in numbers."""
        closed = {name: column.close().numpy() for name, column in self.columns.items()}
        item = closed["item"]
        made = {"order": np.argsort(item, kind="stable"), "starts": np.append(0, np.bincount(item).cumsum())}
        for name, numbers in made.items():
            (self.folder / f"{self.name}.{name}").write_bytes(numbers.astype(np.int64).data)
        for name in ["item"] if self.items else ["item", *COLUMNS]:
            (self.folder / f"{self.name}.{name}").unlink(missing_ok=name in ("texts", "text_ends"))
        return {
            "items": self.items,
            "references": len(item),
            "longest": int(np.diff(closed["reference_ends"]).max(initial=0)),
            "longest_source": int(np.diff(closed["source_ends"]).max(initial=0)),
        }
