from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlseq.metrics.bitparallel import bit_count
from rlseq.metrics.ngrams import PAD, HashTable, Trie, repeats


@given(st.sets(st.integers(0, 2**63 - 1), max_size=200), st.lists(st.integers(0, 2**63 - 1)))
def test_a_table_finds_what_is_there_and_nothing_else(keys: set[int], others: list[int]) -> None:
    ordered = sorted(keys)
    table = HashTable(torch.tensor(ordered, dtype=torch.int64), torch.arange(1, len(ordered) + 1))
    asked = torch.tensor(ordered + others, dtype=torch.int64)
    wanted = [ordered.index(key) + 1 if key in keys else 0 for key in asked.tolist()]
    assert table.find(asked).tolist() == wanted


@pytest.mark.parametrize("step", [1, 2**20, 2**31, 2**32, 2**40])
def test_a_table_of_regular_keys_fills(step: int) -> None:
    keys = torch.arange(20_000) * step
    table = HashTable(keys, torch.arange(1, 20_001))
    assert torch.equal(table.find(keys), torch.arange(1, 20_001))
    assert not table.find(keys + 20_001 * step).any()


def test_a_large_trie_takes_little_more_room_than_its_keys() -> None:
    """Characters make dense, regular keys, which a plain multiplication spreads badly over a larger table."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 15, (2_000, 60), generator=draw)
    trie, levels = Trie.grow(ids, torch.arange(2_000) // 5, 400, 6)
    assert len(trie.table.keys) < 2.5 * trie.nodes
    for level, found in zip(levels, trie.walk(ids, torch.arange(2_000) // 5), strict=True):
        assert torch.equal(level, found)


def test_keys_that_share_a_slot_are_told_apart() -> None:
    """The check against the key itself is what makes the table exact."""
    keys = torch.arange(5_000)
    table = HashTable(keys, keys + 1)
    oov_words = torch.arange(5_000, 200_000)
    probes = table.keys[table._slots(oov_words)[0]]
    assert (probes >= 0).sum() > 10_000  # many strangers meet a key in their slot
    assert not table.find(oov_words).any()


def pad(lists: list[list[int]]) -> torch.Tensor:
    width = max(1, *map(len, lists))
    return torch.tensor([line + [PAD] * (width - len(line)) for line in lists])


rows = st.lists(st.lists(st.integers(0, 4), max_size=9), min_size=2, max_size=5)


@given(refs=rows, hyps=rows, shared=st.booleans())
def test_equal_ngrams_meet_in_a_node(refs: Any, hyps: Any, shared: bool) -> None:
    """Two n-grams below one root have the same node iff they are equal; unknown ones have none."""
    roots = [0] * len(refs) if shared else list(range(len(refs)))
    trie, levels = Trie.grow(pad(refs), torch.tensor(roots), len(refs), 3)
    known: dict[Any, int] = {}
    for n, level in enumerate(levels, 1):
        for row, line in enumerate(refs):
            for end in range(level.shape[1]):
                node = int(level[row, end])
                if end >= len(line) or end + 1 < n:
                    assert node == 0
                else:
                    key = (roots[row], *line[end + 1 - n : end + 1])
                    assert known.setdefault(key, node) == node > 0
    assert len(set(known.values())) == len(known)
    ask = [0] * len(hyps)
    for n, level in enumerate(trie.walk(pad(hyps), torch.tensor(ask)), 1):
        for row, line in enumerate(hyps):
            for end in range(len(line)):
                key = (0, *line[end + 1 - n : end + 1]) if end + 1 >= n else None
                assert int(level[row, end]) == known.get(key, 0)


def test_ids_near_two_to_the_thirty_first() -> None:
    top = 2**31 - 1
    ids = torch.tensor([[top, top - 1, top], [0, top, 0]])
    trie, levels = Trie.grow(ids, torch.arange(2), 2, 3)
    for level, found in zip(levels, trie.walk(ids, torch.arange(2)), strict=True):
        assert torch.equal(level, found)


@given(rows)
def test_repeats_count_earlier_occurrences(lists: list[list[int]]) -> None:
    for n, seen in enumerate(repeats(pad(lists), 4), 1):
        for row, line in enumerate(lists):
            before: Counter[Any] = Counter()
            for end in range(n - 1, len(line)):
                gram = tuple(line[end + 1 - n : end + 1])
                assert int(seen[row, end]) == before[gram]
                before[gram] += 1
            assert not seen[row, len(line) :].any()


def test_bits_are_counted_up_to_the_sign_bit() -> None:
    draw = random.Random(0)
    words = [0, 1, -1, 2**63 - 1, -(2**63), *(draw.randrange(-(2**63), 2**63) for _ in range(100))]
    wanted = [(word & (2**64 - 1)).bit_count() for word in words]
    assert bit_count(torch.tensor(words)).tolist() == wanted
    short = [0, 1, -1, 2**31 - 1, -(2**31), 12345]
    wanted = [(word & (2**32 - 1)).bit_count() for word in short]
    assert bit_count(torch.tensor(short, dtype=torch.int32)).tolist() == wanted
