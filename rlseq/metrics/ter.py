"""Translation edit rate (Snover et al. 2006): edits after the best shifts of phrases, over length.

    TER = 100 · min_r (shifts + edits to r) / mean reference length

Finding the best shifts is hard, so Tercom searches greedily by rules of its own, and sacreBLEU
follows Tercom. This module follows the same rules, for all pairs of sentence and reference of a
batch at once: all candidate shifts of all pairs form one flat list, which one dynamic programme
prices. The list's length depends on the data, so that texts on a GPU are copied to the host first:
every look at a length there would wait for the GPU.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from rlseq.metrics.base import Metric, WholeTexts, on_host
from rlseq.metrics.encode import Line, RefTable
from rlseq.metrics.ngrams import PAD
from rlseq.metrics.tokenize import Tokenize, lowercase
from rlseq.types import Context

_LONGEST = 10  # words in a shifted phrase
_FARTHEST = 50  # positions between a phrase and its match
_BEAM = 25  # cells on either side of the diagonal
_CANDIDATES = 1000  # shifts tried for a pair, over all rounds
_FAR = 2**28
_AT_ONCE = 2**21  # cells of the tables priced at a time


class Pairs(NamedTuple):
    """P pairs of a hypothesis and a reference."""

    hyp: Tensor  # [P, H]
    hyp_length: Tensor  # [P]
    ref: Tensor  # [P, L]
    ref_length: Tensor  # [P]

    def take(self, index: Tensor) -> Pairs:
        """Return a selection of pairs."""
        return Pairs(*(part[index] for part in self))


@dataclass(eq=False)
class TER(Metric):
    """TER against the reference with the fewest edits, 0–100 and above; reward 1 − TER/100.

    sacreBLEU's options are those of its tokenizer: `TER(references, tokenize=tercom(normalized=True))`.
    """

    name: ClassVar[str] = "ter"
    words: ClassVar[Tokenize] = staticmethod(lowercase)

    def fit(self, table: RefTable) -> None:
        """Keep the references, and their mean length."""
        self.refs = table.spread(table.ids, fill=PAD)
        self.ref_lengths = table.spread(table.lengths, fill=-1)
        total = self.ref_lengths.clamp(min=0).sum(1)
        self.mean_length = total.double() / torch.tensor(self.counts)

    def __call__(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the reward, [B], computed on the host."""
        return on_host(super().__call__, tokens, mask, context)

    def value(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the rate, [B], computed on the host."""
        return on_host(super().value, tokens, mask, context)

    def judge(self, batch: WholeTexts) -> Tensor:
        """Return the rate, [B, 1]."""
        edits, length = self.edits(batch).unbind(1)
        return _rate(edits, length)[:, None]

    def reward(self, batch: WholeTexts) -> Tensor:
        """Return 1 − TER/100."""
        return 1 - self.judge(batch) / 100

    def corpus(self, hypotheses: Sequence[Line]) -> float:
        """Return all edits over all mean reference lengths."""
        return float(_rate(*self.pooled(self.edits, hypotheses)))

    def increments(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Refuse: a shift looks at the whole sentence."""
        raise TypeError("TER has no increments; EditDistance has them and differs only by the shifts")

    def edits(self, batch: WholeTexts) -> Tensor:
        """Return the fewest edits to a reference, and the mean reference length, [B, 2]."""
        refs, lengths = self.refs[batch.rows], self.ref_lengths[batch.rows]
        row, slot = (lengths >= 0).nonzero(as_tuple=True)
        pairs = Pairs(batch.ids[row], batch.lengths[row, 0], refs[row, slot], lengths[row, slot])
        found = torch.full_like(lengths, _FAR)
        found[row, slot] = shifted_edits(pairs)
        return torch.stack([found.amin(1).double(), self.mean_length[batch.rows]], 1)

    def cells(self, width: int) -> int:
        """Return the memory cells of a row: the table of every reference."""
        return (width + 1) * (self.refs.shape[2] + 1) * self.refs.shape[1]


def _rate(edits: Tensor, length: Tensor) -> Tensor:
    """Return 100 · edits / length; against empty references 100 for any words, 0 for none."""
    return 100 * torch.where(length > 0, edits / length.clamp(min=1e-9), (edits > 0).double())


def shifted_edits(pairs: Pairs) -> Tensor:
    """Return the number of shifts and edits that turn each hypothesis into its reference, [P]."""
    shifts = torch.zeros_like(pairs.hyp_length)
    tried = torch.zeros_like(pairs.hyp_length)
    hyp, active = pairs.hyp.clone(), torch.arange(len(shifts), device=shifts.device)
    while len(active):
        now = Pairs(hyp[active], *(part[active] for part in pairs[1:]))
        better, moved, count = _best_shift(now, tried[active])
        tried[active] += count
        hyp[active[better]] = moved
        shifts[active[better]] += 1
        active = active[better]
    final = _distance(Pairs(hyp, *pairs[1:]))
    return torch.where(pairs.ref_length > 0, shifts + final, pairs.hyp_length)


def edit_rows(pairs: Pairs) -> Iterator[Tensor]:
    """Yield rows 0 … H of the edit-distance table, [P, L + 1]; shorter hypotheses repeat their last."""
    hyp, hyp_length, ref, ref_length = pairs
    column = torch.arange(ref.shape[1] + 1, device=ref.device)
    slope = ref_length.double() / hyp_length.clamp(min=1)
    beam = torch.where(slope > 2 * _BEAM, torch.ceil(slope / 2 + _BEAM), _BEAM)
    above = column.expand(len(hyp), -1)
    yield above
    for i in range(1, hyp.shape[1] + 1):
        row = above + 1
        row[:, 1:] = torch.minimum(row[:, 1:], above[:, :-1] + (ref != hyp[:, i - 1 : i]))
        middle = torch.floor(i * slope)
        below = column < (middle - beam)[:, None]
        beyond = (column >= (middle + beam)[:, None]) & (i < hyp_length)[:, None]
        row = torch.where(below, _FAR, row)
        row = torch.cummin(row - column, 1).values + column  # insertions run along the row
        row = torch.where(below | beyond, _FAR, row)
        above = torch.where((i <= hyp_length)[:, None], row, above)
        yield above


def _distance(pairs: Pairs) -> Tensor:
    """Return edit distances, [P], from the last row of the table, the only one that is kept."""
    (last,) = deque(edit_rows(pairs), maxlen=1)
    return last.gather(1, pairs.ref_length[:, None])[:, 0]


def _price(pairs: Pairs) -> Tensor:
    """Return edit distances, [P], from a bounded number of tables at a time."""
    size = max(1, _AT_ONCE // (pairs.ref.shape[1] + 1))
    parts = zip(*(torch.split(p, size) for p in pairs), strict=True)
    return torch.cat([_distance(Pairs(*part)) for part in parts])


def align(pairs: Pairs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Trace the cheapest edits back: replacing before deleting before inserting.

    Returns:
        The distance [P]; for each reference position the number of hypothesis words used up to it
        [P, L + 1], from 0 before the first; wrong words of the reference [P, L] and of the
        hypothesis [P, H].
    """
    table = torch.stack(list(edit_rows(pairs)), 1)  # [P, H + 1, L + 1]
    each = torch.arange(len(table), device=table.device)
    i, j = pairs.hyp_length.clone(), pairs.ref_length.clone()
    distance = table[each, i, j]
    used = torch.zeros(len(table), pairs.ref.shape[1] + 1, dtype=torch.int64, device=table.device)
    wrong_ref = torch.zeros_like(pairs.ref, dtype=torch.bool)
    wrong_hyp = torch.zeros_like(pairs.hyp, dtype=torch.bool)
    for _ in range(pairs.hyp.shape[1] + pairs.ref.shape[1]):
        up, left = (i - 1).clamp(min=0), (j - 1).clamp(min=0)
        cost = (pairs.hyp[each, up] != pairs.ref[each, left]).long()
        here = table[each, i, j]
        both = (i > 0) & (j > 0) & (here == table[each, up, left] + cost)
        delete = ~both & (i > 0) & (here == table[each, up, j] + 1)
        insert = ~both & ~delete & (j > 0)
        wrong = delete | insert | (both & (cost > 0))
        takes_ref, takes_hyp = both | insert, both | delete
        used[each, j] = torch.where(takes_ref, i, used[each, j])
        wrong_ref[each, left] |= takes_ref & wrong
        wrong_hyp[each, up] |= takes_hyp & wrong
        i, j = torch.where(takes_hyp, up, i), torch.where(takes_ref, left, j)
    return distance, used, wrong_ref, wrong_hyp


class Shifts(NamedTuple):
    """C candidate shifts: of pair `pair`, `length` words from `start` to before position `to`."""

    pair: Tensor
    start: Tensor
    length: Tensor
    to: Tensor


def _best_shift(pairs: Pairs, tried: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Try one round of shifts: the pairs that improve [P], their new words, and candidates [P]."""
    before, used, wrong_ref, wrong_hyp = align(pairs)
    shifts = _candidates(pairs, used, wrong_ref, wrong_hyp)
    count = torch.bincount(shifts.pair, minlength=len(before))
    allowed = (tried + count < _CANDIDATES)[shifts.pair]
    shifts = _distinct(Shifts(*(part[allowed] for part in shifts)), pairs.hyp.shape[1] + _LONGEST)
    chosen = pairs.take(shifts.pair)
    moved = _move(chosen, shifts)
    gain = before[shifts.pair] - _price(chosen._replace(hyp=moved))
    # the largest gain, then the longest phrase, then the earliest start, then the earliest target
    side = pairs.hyp.shape[1] + _LONGEST + 1
    rank = ((gain * side + shifts.length) * side + side - 1 - shifts.start) * side + side - 1 - shifts.to
    rank = torch.where(gain > 0, rank, -1)
    best = torch.full_like(before, -1).scatter_reduce(0, shifts.pair, rank, "amax")
    winner = ((rank == best[shifts.pair]) & (rank >= 0)).nonzero()[:, 0]  # in order of the pairs
    return best >= 0, moved[winner], count


def _distinct(shifts: Shifts, side: int) -> Shifts:
    """Return equal shifts, found from several reference positions, once."""
    pair, start, length, to = shifts
    key = torch.unique(((pair * side + start) * (_LONGEST + 1) + length) * (side + 1) + to)
    rest, to = key // (side + 1), key % (side + 1)
    rest, length = rest // (_LONGEST + 1), rest % (_LONGEST + 1)
    return Shifts(rest // side, rest % side, length, to)


def _candidates(pairs: Pairs, used: Tensor, wrong_ref: Tensor, wrong_hyp: Tensor) -> Shifts:
    """Find phrases that the reference has elsewhere, with an error on both sides, and their targets."""
    run = _nearby_matches(pairs)
    hyp_errors, ref_errors = _running(wrong_hyp), _running(wrong_ref)
    found = []
    same = run
    for length in range(1, _LONGEST + 1):
        if length > 1:
            same = same[:, :-1, :-1] & run[:, length - 1 :, length - 1 :]
        pair, start, at = same.nonzero(as_tuple=True)
        errors = hyp_errors[pair, start + length] > hyp_errors[pair, start]
        errors &= ref_errors[pair, at + length] > ref_errors[pair, at]
        target = used[pair, at + 1] - 1  # the hypothesis word beside the reference word `at`
        keep = errors & ~((start <= target) & (target < start + length))
        found.append(_targets(used, pair[keep], start[keep], at[keep], length))
        if min(same.shape[1:]) <= 1:
            break
    return Shifts(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def _nearby_matches(pairs: Pairs) -> Tensor:
    """Return where equal words are not too far apart, [P, H, L]."""
    h = torch.arange(pairs.hyp.shape[1], device=pairs.hyp.device)
    r = torch.arange(pairs.ref.shape[1], device=pairs.hyp.device)
    near = (h[:, None] - r).abs() <= _FARTHEST
    real = (h < pairs.hyp_length[:, None])[:, :, None] & (r < pairs.ref_length[:, None])[:, None]
    return (pairs.hyp[:, :, None] == pairs.ref[:, None, :]) & near & real


def _targets(used: Tensor, pair: Tensor, start: Tensor, at: Tensor, length: int) -> Shifts:
    """List the targets of a phrase: beside the word before its match, and beside each word of it."""
    offset = torch.arange(length + 1, device=used.device)
    to = used[pair[:, None], at[:, None] + offset]
    fresh = torch.ones_like(to, dtype=torch.bool)
    fresh[:, 1:] = to[:, 1:] != to[:, :-1]
    row, column = fresh.nonzero(as_tuple=True)
    return Shifts(pair[row], start[row], torch.full_like(row, length), to[row, column])


def _move(pairs: Pairs, shifts: Shifts) -> Tensor:
    """Return the words after each shift, [C, H]."""
    _, start, length, to = (part[:, None] for part in shifts)
    end = start + length
    # a target inside the phrase means as many words to the right of the phrase
    to = torch.where((to >= start) & (to <= end), to + length, to)
    to = torch.minimum(to, pairs.hyp_length[:, None])
    k = torch.arange(pairs.hyp.shape[1], device=to.device)
    left = torch.where(k < to + length, start + k - to, k - length)
    left = torch.where((k < to) | (k >= end), k, left)
    right = torch.where(k < to - length, k + length, start + k - (to - length))
    right = torch.where((k < start) | (k >= to), k, right)
    return pairs.hyp.gather(1, torch.where(to < start, left, right))


def _running(flags: Tensor) -> Tensor:
    """Count the flags that are set before each position, [P, T] → [P, T + 1]."""
    return torch.nn.functional.pad(flags.cumsum(1), (1, 0))
