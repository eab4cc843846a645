"""From the pieces of texts to their words, for a whole batch on its device.

A run of pieces, from one blank to the next, makes the same words wherever it stands. So the words of a run
are computed once, and found again by a key of its pieces: a random linear function of them modulo 2⁶⁴, by
which two of a million different runs are confused with a chance below 10⁻⁶. Only runs that were not met
before come to the host. Where most of them are new, or texts are no concatenation of pieces, `ReadWords`
decodes texts instead, to the same words.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlseq.metrics.encode import pad
from rlseq.metrics.tokenize import (
    Tokenize,
    end_marks,
    letters,
    lowercase,
    mteval_13a,
    single_space,
    whitespace,
)
from rlseq.vocab import Pieces, Run, ids_of

BY_WORD = (whitespace, single_space, lowercase, end_marks, letters, mteval_13a)  # blanks part what they read
FIRST = 0x5DEECE66D  # changes the key of a run that begins a text
MOST_NEW = 0.5  # share of runs that are new, above which decoding is faster
MOST_RUNS = 1 << 18  # that are kept; a policy near random writes new ones all the time


class RunWords:
    """The words of runs of pieces.

    Args:
        pieces: what is known of the pieces of a vocabulary.
        tokenize: from a text to words, one of `BY_WORD`.
        known: ids of the words of references; other words get ids behind these.
    """

    def __init__(self, pieces: Pieces, tokenize: Tokenize, known: dict[str, int]) -> None:
        self.pieces, self.tokenize, self.known = pieces, tokenize, known
        draw = torch.Generator().manual_seed(0)
        low, high = torch.iinfo(torch.int64).min, torch.iinfo(torch.int64).max
        self.value = torch.randint(low, high, (len(pieces.starts),), generator=draw)
        odd = pieces.odd if tokenize is mteval_13a else [False] * len(pieces.odd)  # which joins lines
        self.starts, self.odd, self.silent = map(torch.tensor, (pieces.starts, odd, pieces.silent))
        self._forget()

    def _forget(self) -> None:
        """Start without any run."""
        self.fitted = len(self.known)
        self.others: dict[str, int] = {}
        self.found: dict[int, list[int]] = {}
        self._arrange()

    def _arrange(self) -> None:
        """Put the words of all runs into tables, in the order of their keys."""
        keys = torch.tensor([*self.found], dtype=torch.int64)
        self.keys, order = keys.sort()
        words, lengths = pad([*self.found.values()])
        self.words, self.lengths = words[order].clamp(min=0), lengths[order]

    def __call__(self, tokens: Tensor, written: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the words `[B, L]` and their numbers `[B]`; None where most runs are new.

        Args:
            tokens: `[B, T]`.
            written: where they count, before EOS.
        """
        self._move(tokens.device)
        ids = tokens.where(written, 0)
        real = written & ~self.silent[ids]
        whole = (self.odd[ids] & real).any(1, keepdim=True)  # a text that is one run
        begins = real & (self.starts[ids] & ~whole | (real.cumsum(1) == 1))
        run = begins.cumsum(1) - 1
        place = (real.cumsum(1) - 1).where(begins, 0).cummax(1).values
        place = real.cumsum(1) - 1 - place  # of a piece in its run
        width = tokens.shape[1]
        multiplier = self._powers(width, tokens.device)
        shares = (self.value[ids] * multiplier[place.clamp(min=0)]).where(real, 0)
        keys = torch.zeros_like(tokens).scatter_add_(1, run.clamp(min=0), shares)
        keys[:, 0] ^= FIRST
        there = torch.arange(width, device=tokens.device) < begins.sum(1, keepdim=True).clamp(min=1)
        at = torch.searchsorted(self.keys, keys).clamp(max=max(len(self.keys) - 1, 0))
        known = self.keys[at] == keys if len(self.keys) else torch.zeros_like(there)
        strange = there & ~known
        new, every = torch.stack([strange.sum(), there.sum()]).tolist()
        if new > MOST_NEW * every and self.found:
            return None
        if new:
            self._learn(ids, real, run, keys, strange)
            return self(tokens, written)
        lengths = self.lengths[at].where(there, 0)
        ends = lengths.cumsum(1)
        numbers = ends[:, -1]
        longest = int(torch.stack([numbers.max(), lengths.max()]).max())
        out = tokens.new_zeros(len(tokens), longest + 1)  # with a column that nothing reads
        for k in range(self.words.shape[1]):
            inside = k < lengths
            column = (ends - lengths + k).where(inside, longest)
            out.scatter_(1, column, self.words[at, k].where(inside, 0))
        return out[:, :longest], numbers

    def _learn(self, ids: Tensor, real: Tensor, run: Tensor, keys: Tensor, strange: Tensor) -> None:
        """Read runs that were not met before, on the host."""
        if len(self.found) > MOST_RUNS:
            self._forget()
            strange = torch.ones_like(strange)
        rows = strange.any(1).nonzero().flatten()
        parts = (part[rows].tolist() for part in (ids, real, run, keys, strange))
        new: dict[int, Run] = {}
        for row_ids, row_real, row_run, row_keys, row_strange in zip(*parts, strict=True):
            runs: dict[int, list[int]] = {0: []}
            for id, counts, number in zip(row_ids, row_real, row_run, strict=True):
                if counts:
                    runs.setdefault(number, []).append(id)
            for number, pieces in runs.items():
                if row_strange[number] and row_keys[number] not in self.found:
                    new[row_keys[number]] = number == 0, pieces
        first = self.fitted + 1
        for (key, _), text in zip(new.items(), self.pieces.read([*new.values()]), strict=True):
            words = [str(word) for word in self.tokenize(text)]
            self.found[key] = ids_of(words, self.known, self.others, first)
        self._arrange()

    def _powers(self, width: int, device: torch.device) -> Tensor:
        """Return the odd multiplier of each place in a run."""
        draw = torch.Generator().manual_seed(1)
        return (torch.randint(1 << 62, (width,), generator=draw) * 2 + 1).to(device)

    def _move(self, device: torch.device) -> None:
        """Have tables on a device; forget what was read before references had more words."""
        if self.fitted != len(self.known):
            self._forget()
        for name in ("value", "starts", "odd", "silent", "keys", "words", "lengths"):
            setattr(self, name, getattr(self, name).to(device))


def run_words(pieces: Pieces | None, tokenize: Tokenize, known: dict[str, int]) -> RunWords | None:
    """Return the reader of runs; None where texts or words are no concatenations."""
    return RunWords(pieces, tokenize, known) if pieces is not None and tokenize in BY_WORD else None
