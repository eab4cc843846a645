"""Exact n-grams on integer tokens: a hash table that verifies, a trie of references, repeats.

An n-gram is never one hashed number. It is a path in a trie: its key is the pair (node of its
first n−1 tokens, last token), which always fits 64 bits, and every key found is compared with the
key looked for. So no collision can ever change a count, whatever the vocabulary or the order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from rlseq.utils.modules import Movable

PAD = -1  # fills rows after their last token; equal to no token, not even to another PAD
_LOAD = 2.2  # slots per key; two choices per key settle quickly below a load of one half
_ROUNDS = 200
CELLS = 2**22  # pairs of tokens compared at a time: a few megabytes, however many rows there are


class HashTable(Movable):
    """A fixed map from distinct keys in [0, 2⁶³) to values, read in bulk by two probes a key.

    Cuckoo hashing (Pagh & Rodler 2004), filled in parallel rounds (Alcantara et al. 2009): every
    key lies in one of its two slots, so that a look-up is two gathers and a comparison.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        """Place all keys; draw new multipliers, and more room, until every key has a slot."""
        self.size = math.ceil(_LOAD * len(keys)) + 8
        seeds = torch.Generator().manual_seed(0)
        placed: Tensor | None = None
        while placed is None:
            draws = torch.randint(2**62, (3,), generator=seeds)
            self.multipliers = [int(draw) * 2 + 1 for draw in draws]
            placed = _place(torch.stack(self._slots(keys)), self.size)
            self.size += 0 if placed is not None else self.size // 16
        self.keys = torch.full((self.size,), -1, dtype=torch.int64)
        self.values = torch.zeros(self.size, dtype=torch.int32)
        taken = placed >= 0
        self.keys[taken] = keys[placed[taken]]
        self.values[taken] = values[placed[taken]].to(torch.int32)

    def _slots(self, keys: Tensor) -> list[Tensor]:
        """Return the two slots of each key: wrapping products, folded once, scaled to the table's size."""
        first, *others = self.multipliers
        mixed = keys * first
        mixed ^= (mixed >> 32).bitwise_and_(2**32 - 1)
        products = [mixed * other for other in others]
        return [
            product.bitwise_right_shift_(33).bitwise_and_(2**31 - 1).mul_(self.size) >> 31
            for product in products
        ]

    def find(self, keys: Tensor) -> Tensor:
        """Return the value of each key, 0 where the key is absent."""
        first, second = self._slots(keys)
        in_second = take(self.keys, second) == keys
        found = in_second | (take(self.keys, first) == keys)
        return take(self.values, torch.where(in_second, second, first)).mul_(found).long()


def take(table: Tensor, index: Tensor) -> Tensor:
    """Return `table[index]`, by the operation that is fastest for many scattered rows."""
    return table.index_select(0, index.reshape(-1)).view(*index.shape, *table.shape[1:])


def _place(choices: Tensor, size: int) -> Tensor | None:
    """Return the key in each slot, [size] (−1: none), of keys with two slots each, [2, N]; None if stuck."""
    slots = torch.full((size,), -1, dtype=torch.int64)
    turn = torch.zeros(choices.shape[1], dtype=torch.int64)
    homeless = torch.arange(choices.shape[1])
    for _ in range(_ROUNDS):
        if not len(homeless):
            return slots
        target = choices[turn[homeless], homeless]
        before = slots[target]
        slots[target] = homeless  # of several keys for one slot, one stays
        stayed = slots[target] == homeless
        homeless = torch.cat([homeless[~stayed], before[stayed & (before >= 0)]])
        turn[homeless] ^= 1
    return None


class Trie(Movable):
    """All n-grams, n ≤ order, of a set of rows, each row below its own root.

    Node 0 is "nowhere"; nodes 1 … roots are the roots. Rows that share a root share nodes, so that
    one root for all rows gives the n-grams of a corpus, one root an item those of its references.
    """

    def __init__(self, table: HashTable, order: int, stride: int, nodes: int) -> None:
        self.table, self.order, self.stride, self.nodes = table, order, stride, nodes

    @classmethod
    def grow(cls, ids: Tensor, rows: Tensor, roots: int, order: int) -> tuple[Trie, list[Tensor]]:
        """Make the trie of `ids` [S, L], padded with PAD, row s below root `rows[s]` in [0, roots).

        Returns:
            The trie, and for n = 1 … order the node [S, L] of the n-gram ending at each position.
        """
        stride = int(ids.max().clamp(min=0)) + 2 if ids.numel() else 2
        parent, keys, levels, offset = (rows + 1)[:, None].expand_as(ids), [], [], roots + 1
        for _ in range(order):
            here = (ids >= 0) & (parent > 0)
            level, inverse = torch.unique((parent * stride + ids)[here], return_inverse=True)
            levels.append(torch.zeros_like(ids).masked_scatter_(here, inverse + offset))
            keys.append(level)
            offset += len(level)
            parent = _shift(levels[-1])
        table = HashTable(torch.cat(keys), torch.arange(roots + 1, offset))
        return cls(table, order, stride, offset), levels

    def walk(self, ids: Tensor, rows: Tensor) -> Iterator[Tensor]:
        """Yield for n = 1 … order the node [B, T] of the n-gram ending at each position, 0 if none."""
        # Tokens above all of the references become one id, stride − 1, that is in no key. PAD needs no care:
        # parent · stride − 1 is that id below the node before.
        tokens, parent = ids.clamp(max=self.stride - 1), (rows + 1)[:, None].expand_as(ids)
        for _ in range(self.order):
            node = self._child(parent, tokens)
            parent = _shift(node)
            yield node

    def _child(self, parent: Tensor, tokens: Tensor) -> Tensor:
        """Return the nodes below nodes, 0 if there are none."""
        keys = parent * self.stride + tokens
        if keys.device.type != "cpu":
            return self.table.find(keys)
        # "Nowhere", where most longer n-grams of a text are, has nothing below it.
        somewhere = ((parent > 0) & (tokens >= 0)).view(-1).nonzero().squeeze(1)
        found = self.table.find(take(keys.view(-1), somewhere))
        return torch.zeros_like(tokens).view(-1).index_copy_(0, somewhere, found).view_as(tokens)


def _shift(nodes: Tensor) -> Tensor:
    """Return nodes one position later, [B, T], node 0 at the start."""
    return torch.nn.functional.pad(nodes[:, :-1], (1, 0))


def repeats(ids: Tensor, order: int) -> Iterator[Tensor]:
    """Yield for n = 1 … order how often the n-gram ending at t has ended before t, [B, T].

    With it a clipped count is a sum over positions, Σₜ 1[repeats(t) < count in the reference], so
    that the sum up to t is that of the prefix, and all prefixes cost one cumulative sum.
    """
    batch, width = ids.shape
    compare = _compared if batch * (width + 1) ** 2 <= CELLS else _ranked
    yield from compare(ids, order)


def _compared(ids: Tensor, order: int) -> Iterator[Tensor]:
    """Yield the repeats by comparing all pairs of positions of a row, the fastest way for short rows."""
    batch, width = ids.shape
    side = width + 1  # a column that matches nothing, so that no diagonal runs into the next row
    left = torch.nn.functional.pad(ids, (1, 0), value=PAD)
    right = torch.where(left < 0, PAD - 1, left)
    earlier = torch.ones(side, side, dtype=torch.bool, device=ids.device).tril(-1)
    same = ((left[:, :, None] == right[:, None, :]) & earlier).view(-1)
    for n in range(order):
        # a row has at most √CELLS positions, which an int16 holds
        yield same.view(batch, side, side)[:, 1:].sum(-1, dtype=torch.int16)
        if n + 1 < order:
            # the same n tokens end at (i, j) iff the same n−1 do there and one step earlier
            longer = torch.zeros_like(same)
            torch.logical_and(same[side + 1 :], same[: -side - 1], out=longer[side + 1 :])
            same = longer


def _ranked(ids: Tensor, order: int) -> Iterator[Tensor]:
    """Yield the repeats by sorting, in memory that grows with the length of a row, not with its square."""
    whole = ids >= 0
    stride = int(ids.max().clamp(min=0)) + 1 if ids.numel() else 1
    group = torch.arange(len(ids), device=ids.device)[:, None].expand_as(ids)  # one n-gram of one row
    position = torch.arange(ids.numel(), device=ids.device)
    for _ in range(order):
        key = torch.where(whole, group * stride + ids, -1)
        group = torch.unique(key, return_inverse=True)[1]
        ordered, place = group.reshape(-1).sort(stable=True)
        rank = torch.empty_like(place).scatter_(0, place, position - torch.searchsorted(ordered, ordered))
        yield torch.where(whole, rank.view_as(ids), 0)
        group, whole = _shift(group), whole & torch.nn.functional.pad(whole[:, :-1], (1, 0))
