"""From the pieces of texts to their words, for a whole batch on its device.

A run of pieces, from one blank to the next, makes the same words wherever it stands. So the words of a run
are computed once, and found again by a key of its pieces: a random linear function of them modulo 2⁶⁴, by
which two of a million different runs are confused with a chance below 10⁻⁶. Only runs that were not met
before come to the host. Where most of them are new, or texts are no concatenation of pieces, `ReadWords`
decodes texts instead, to the same words.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

import torch
from torch import Tensor, is_tensor

from rlseq.metrics.tokenize import BETWEEN_BLANKS, Tokenize, mteval_13a, single_space
from rlseq.vocab import Pieces, Run, ids_of

BY_WORD = (*BETWEEN_BLANKS, single_space)  # blanks part what they read
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
        self.keys, self.entry, self.flat, self.begins, self.lengths = (
            torch.zeros(0, dtype=torch.int64, device=self.value.device) for _ in range(5)
        )

    def __call__(self, tokens: Tensor, written: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the words `[B, L]` and their numbers `[B]`; None where most runs are new.

        Args:
            tokens: `[B, T]`.
            written: where they count, before EOS.
        """
        if self.fitted != len(self.known) or len(self.keys) > MOST_RUNS:  # references may have more words now
            self._forget()
        if self.value.device != tokens.device:
            vars(self).update(
                (n, part.to(tokens.device)) for n, part in vars(self).items() if is_tensor(part)
            )
        ids = tokens.where(written, 0)
        real = written & ~self.silent[ids]
        whole = (self.odd[ids] & real).any(1, keepdim=True)  # a text that is one run
        place = real.cumsum(1) - 1
        begins = real & (self.starts[ids] & ~whole | (place == 0))
        run = (begins.cumsum(1) - 1).clamp(min=0)
        place = place - place.where(begins, 0).cummax(1).values  # of a piece in its run
        powers = self._powers(tokens.shape[1])
        shares = (self.value[ids] * powers[place.clamp(min=0)]).where(real, 0)
        keys = torch.zeros_like(tokens).scatter_add_(1, run, shares)
        keys[:, 0] ^= FIRST
        there = torch.arange(tokens.shape[1], device=tokens.device) < begins.sum(1, keepdim=True).clamp(min=1)
        return self._look_up(keys, there) or self._learned(ids, real, run, keys, there)

    def _look_up(self, keys: Tensor, there: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the words of runs `[B, T]` and their numbers; None where some are not known."""
        if not len(self.keys):
            return None
        entry, known = self._entries(keys)
        lengths = self.lengths[entry].where(there, 0)
        numbers = lengths.sum(1)
        counts = (there & ~known).any(), numbers.sum(), numbers.max()
        strange, total, longest = torch.stack([count.long() for count in counts]).tolist()  # one transfer
        if strange:
            return None
        each = lengths.flatten()
        place = torch.arange(total, device=keys.device)
        first = self.begins[entry].flatten() - each.cumsum(0) + each
        words = self.flat[first.repeat_interleave(each, output_size=total) + place]
        rows = torch.arange(len(keys), device=keys.device).repeat_interleave(numbers, output_size=total)
        out = keys.new_zeros(len(keys), longest)
        out[rows, place - (numbers.cumsum(0) - numbers)[rows]] = words
        return out, numbers

    def _entries(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Return the entry of every key, and whether it is known."""
        at = torch.searchsorted(self.keys, keys).clamp(max=len(self.keys) - 1)
        return self.entry[at], self.keys[at] == keys

    def _learned(
        self, ids: Tensor, real: Tensor, run: Tensor, keys: Tensor, there: Tensor
    ) -> tuple[Tensor, Tensor] | None:
        """Read runs that were not met before, on the host, and look again; None where these are most."""
        strange = there & ~self._entries(keys)[1] if len(self.keys) else there
        parts = ids, real, run, keys, there, strange
        seen = torch.stack([part.long() for part in parts]).cpu()  # one transfer
        return self._look_up(keys, there) if self._learns(*seen) else None

    def _learns(
        self, ids: Tensor, real: Tensor, run: Tensor, keys: Tensor, there: Tensor, strange: Tensor
    ) -> bool:
        """Read the strange runs of a batch on the host; return False where they are too many."""
        if len(self.keys) and strange.sum() > MOST_NEW * there.sum():
            return False
        real, strange = real.bool(), strange.bool()
        pieces = real & strange.gather(1, run)
        belongs = torch.arange(len(ids)).unsqueeze(1) * ids.shape[1] + run
        first, key = (run == 0)[pieces], keys.gather(1, run)[pieces]
        new: dict[int, Run] = {}
        silent = strange[:, 0] & ~real.any(1)
        if silent.any():
            new[FIRST] = True, []
        columns = (column.tolist() for column in (ids[pieces], belongs[pieces], first, key))
        last, seen = -1, list[int]()
        for id, of, begins, number in zip(*columns, strict=True):
            if of != last:
                last, seen = of, []
                new.setdefault(number, (begins, seen))
            seen.append(id)
        self._add(new)
        return True

    def _add(self, new: Mapping[int, Run]) -> None:
        """Add the words of runs by their keys."""
        texts = self.pieces.read([*new.values()])
        words = [[str(word) for word in self.tokenize(text)] for text in texts]
        ids = ids_of(chain.from_iterable(words), self.known, self.others, self.fitted + 1)
        device, lengths = self.keys.device, torch.tensor([*map(len, words)])
        ends = lengths.cumsum(0)
        grown = (
            ("begins", ends - lengths + len(self.flat)),
            ("lengths", lengths),
            ("flat", torch.tensor(ids, dtype=torch.int64)),
        )
        for name, more in grown:
            setattr(self, name, torch.cat([getattr(self, name), more.to(device, non_blocking=True)]))
        keys = torch.cat([self.keys, torch.tensor([*new]).to(device, non_blocking=True)])
        entries = torch.arange(len(self.keys), len(keys), device=device)
        self.keys, order = keys.sort()
        self.entry = torch.cat([self.entry, entries])[order]

    def _powers(self, width: int) -> Tensor:
        """Return an odd multiplier for each place in a run."""
        draw = torch.Generator().manual_seed(1)
        powers = torch.randint(1 << 62, (width,), generator=draw) * 2 + 1
        return powers.to(self.value.device, non_blocking=True)


def run_words(pieces: Pieces | None, tokenize: Tokenize, known: dict[str, int]) -> RunWords | None:
    """Return the reader of runs; None where texts or words are no concatenations."""
    return RunWords(pieces, tokenize, known) if pieces is not None and tokenize in BY_WORD else None
