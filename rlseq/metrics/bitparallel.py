"""Edit distance and longest common subsequence by bit-parallel dynamic programming.

Both dynamic programmes move along the hypothesis; one column holds a cell for every token of a
reference. Neighbouring cells differ by −1, 0 or +1, so that a column is two bit vectors and a step
a handful of integer operations (Myers 1999; Hyyrö 2004) on [B, R] words for the whole batch.
References of up to 32 tokens take one word of 32 bits, longer ones as many of 64 as they need,
with carries handed from one to the next. Beyond `_LONGEST` tokens these hand-made carries cost more
than the arithmetic, and one long integer of Python for each pair of texts is quicker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce

import torch
from torch import Tensor

from rlseq.metrics.base import WholeTexts
from rlseq.metrics.encode import RefTable
from rlseq.metrics.ngrams import Trie, take
from rlseq.utils.modules import Movable

_LONGEST = 512  # tokens of a reference that words of 64 bits are the quicker way for
Column = Callable[[list[int], list[int]], list[int]]  # (text, reference) -> a figure after each token
BitVectors = list[Tensor]  # a long integer in words of 32 or 64 bits, the lowest first


class Patterns(Movable):
    """The references of each item as bit vectors: the positions of each token."""

    def __init__(self, table: RefTable) -> None:
        """Make one bit vector [width, words] for every distinct token of an item."""
        longest = table.ids.shape[1]
        self.bits, dtype = (32, torch.int32) if longest <= 32 else (64, torch.int64)
        self.trie, (level,) = Trie.grow(table.ids, table.item, table.items, 1)
        words = (longest + self.bits - 1) // self.bits
        self.where = torch.zeros(self.trie.nodes, table.width, words, dtype=dtype)
        row, position = (table.ids >= 0).nonzero(as_tuple=True)
        at = (level[row, position], table.slot[row], position // self.bits)
        self.where.index_put_(at, _bit(position % self.bits).to(dtype), accumulate=True)
        self.lengths = table.spread(table.lengths, fill=-1)
        start = torch.arange(words) * self.bits
        inside = (self.lengths[..., None] - start).clamp(0, self.bits)
        low = torch.where(inside == self.bits, -1, _bit(inside % self.bits) - 1)
        self.ones = low.to(dtype)  # [items, width, words] as many low bits as there are tokens

    def matches(self, ids: Tensor, rows: Tensor) -> Iterator[BitVectors]:
        """Yield, for each position of ids [B, T], where the references have its token, words [B, R]."""
        node = next(self.trie.walk(ids, rows))
        for step in take(self.where, node.t().contiguous()):
            yield list(step.unbind(-1))

    def distances(self, batch: WholeTexts) -> Tensor:
        """Return the edit distance to each reference, [B, P, R]."""
        ones = self.ones.index_select(0, batch.rows).unbind(-1)
        ids = batch.feed()
        state = batch.last(edit_states(self.matches(ids, batch.rows), ids >= 0, list(ones)))
        words = zip(state[: len(ones)], state[len(ones) :], [word[:, None] for word in ones], strict=True)
        climb = [bit_count(rises & inside) - bit_count(falls & inside) for rises, falls, inside in words]
        return torch.stack(climb).sum(0) + batch.lengths[..., None]

    def common(self, batch: WholeTexts) -> Tensor:
        """Return the length of the longest common subsequence with each reference, [B, P, R]."""
        ones = self.ones.index_select(0, batch.rows).unbind(-1)
        states = common_states(self.matches(batch.feed(), batch.rows), list(ones))
        closed = zip(ones, batch.last(states), strict=True)
        return torch.stack([bit_count(word[:, None] & ~open_) for word, open_ in closed]).sum(0)

    def cells(self, width: int) -> int:
        """Return the memory cells of a row: a few words for each position and reference."""
        return 4 * (width + 1) * self.where[0].numel()


class LongPatterns(Movable):
    """The same for long references, one pair of texts at a time, on the processor."""

    def __init__(self, table: RefTable) -> None:
        self.refs = table.spread(table.ids, fill=-1)
        self.lengths = table.spread(table.lengths, fill=-1)

    def distances(self, batch: WholeTexts) -> Tensor:
        """Return the edit distance to each reference, [B, P, R]."""
        return self._each(edit_column, batch)

    def common(self, batch: WholeTexts) -> Tensor:
        """Return the length of the longest common subsequence with each reference, [B, P, R]."""
        return self._each(common_column, batch)

    def _each(self, column: Column, batch: WholeTexts) -> Tensor:
        """Return the values of `column` for every pair of a text and a reference of its item."""
        refs = [[line[line >= 0].tolist() for line in item] for item in self.refs[batch.rows].cpu()]
        pairs = zip(batch.feed().tolist(), refs, strict=True)
        found = torch.tensor([[column(text, ref) for ref in item] for text, item in pairs])
        (kept,) = batch.last([step] for step in found.to(batch.ids.device).unbind(-1))
        return kept

    def cells(self, width: int) -> int:
        """Return the memory cells of a row: one number for each position and reference."""
        return (width + 1 + self.refs.shape[2]) * self.refs.shape[1]


def patterns(table: RefTable) -> Patterns | LongPatterns:
    """Return the patterns of references, in the form that is the quickest for their length."""
    return Patterns(table) if table.ids.shape[1] <= _LONGEST else LongPatterns(table)


def edit_column(text: list[int], ref: list[int]) -> list[int]:
    """Return the edit distance to `ref` after each token of `text`; PAD changes nothing."""
    where, full = _positions(ref), (1 << len(ref)) - 1
    rises, falls, read, found = full, 0, 0, []
    for token in text:
        if token >= 0:
            match, read = where.get(token, 0), read + 1
            diagonal = (((match & rises) + rises) ^ rises) | match | falls
            right = (falls | ~(diagonal | rises)) << 1 | 1
            left = (rises & diagonal) << 1
            rises = (left | ~(diagonal | right)) & full
            falls = right & diagonal & full
        found.append(read + rises.bit_count() - falls.bit_count())
    return found


def common_column(text: list[int], ref: list[int]) -> list[int]:
    """Return the length of the longest common subsequence with `ref` after each token of `text`."""
    where, full = _positions(ref), (1 << len(ref)) - 1
    open_, found = full, []
    for token in text:
        match = where.get(token, 0)
        open_ = ((open_ + (open_ & match)) | (open_ & ~match)) & full
        found.append(len(ref) - open_.bit_count())
    return found


def _positions(ref: list[int]) -> dict[int, int]:
    """Return each token of a reference with a bit set for every position of it."""
    at: dict[int, bytearray] = {}
    for position, token in enumerate(ref):
        bits = at.setdefault(token, bytearray(len(ref) // 8 + 1))
        bits[position // 8] |= 1 << position % 8
    return {token: int.from_bytes(bits, "little") for token, bits in at.items()}


def edit_states(matches: Iterator[BitVectors], real: Tensor, ones: BitVectors) -> Iterator[BitVectors]:
    """Yield after each token the bits where the column rises, then those where it falls.

    `real` [B, T] is True for tokens; padding leaves a fresh column as it is.
    """
    rises, falls = [torch.full_like(word, -1) for word in ones], [torch.zeros_like(w) for w in ones]
    for match, first in zip(matches, real.t()[..., None].to(ones[0].dtype), strict=True):
        # in place where a word is new; what was yielded stays as it is
        sums = _add([m & r for m, r in zip(match, rises, strict=True)], rises)
        steps = zip(sums, rises, falls, match, strict=True)
        diagonal = [s.bitwise_xor_(r).bitwise_or_(m).bitwise_or_(f) for s, r, f, m in steps]
        below = zip(diagonal, rises, falls, strict=True)
        right = _double([(d | r).bitwise_not_().bitwise_or_(f) for d, r, f in below], first)
        left = _double([r & d for r, d in zip(rises, diagonal, strict=True)], None)
        beside = zip(diagonal, right, left, strict=True)
        rises = [(d | h).bitwise_not_().bitwise_or_(x) for d, h, x in beside]
        falls = [h.bitwise_and_(d) for h, d in zip(right, diagonal, strict=True)]
        yield [*rises, *falls]


def common_states(matches: Iterator[BitVectors], ones: BitVectors) -> Iterator[BitVectors]:
    """Yield after each token bits that are 0 where the longest common subsequence grew."""
    open_ = ones
    for match in matches:
        hit = [o & m for o, m in zip(open_, match, strict=True)]
        sums = _add(open_, hit)
        open_ = [s | (o & ~m) for s, o, m in zip(sums, open_, match, strict=True)]
        yield open_


def _add(a: BitVectors, b: BitVectors) -> BitVectors:
    """Return the sum over all words."""
    total = [a[0] + b[0]]
    for k in range(1, len(a)):
        carry = _top((a[k - 1] & b[k - 1]) | ((a[k - 1] | b[k - 1]) & ~total[-1]))
        total.append(a[k] + b[k] + carry)
    return total


def _double(a: BitVectors, low: Tensor | None) -> BitVectors:
    """Return twice a, plus low, over all words, in place."""
    carries = [low, *(_top(word) for word in a[:-1])]
    for word, carry in zip(a, carries, strict=True):
        word.bitwise_left_shift_(1)
        if carry is not None:
            word.bitwise_or_(carry)
    return a


def _top(word: Tensor) -> Tensor:
    """Return the highest bit of each word of 64 (words of 32 have no successor), 0 or 1."""
    return (word >> 63) & 1


def _bit(position: Tensor) -> Tensor:
    """Return 1 << position, also for the sign bit."""
    return torch.ones_like(position) << position


def bit_count(words: Tensor) -> Tensor:
    """Count the bits that are set in each word, by summing neighbours in parallel."""
    x = words.long() & (0xFFFFFFFF if words.dtype == torch.int32 else -1)
    x = x - ((x >> 1) & 0x5555555555555555)
    x = (x & 0x3333333333333333) + ((x >> 2) & 0x3333333333333333)
    x = (x + (x >> 4)) & 0x0F0F0F0F0F0F0F0F
    return (x * 0x0101010101010101) >> 56 & 0xFF


def least(x: Tensor) -> Tensor:
    """Return the minimum over a short last dimension, many times faster than `amin`."""
    return reduce(torch.minimum, x.unbind(-1))


def greatest(x: Tensor) -> Tensor:
    """Return the maximum over a short last dimension."""
    return reduce(torch.maximum, x.unbind(-1))


def added(x: Tensor) -> Tensor:
    """Return the sum over a short last dimension, from left to right whatever its length."""
    return reduce(torch.add, x.unbind(-1))
