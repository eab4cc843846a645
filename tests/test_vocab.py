"""Words, ids, and texts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlseq.vocab import Vocab

WORDS = Vocab(("<eos>", "the", "cat"))


def test_ids_are_places_and_texts_end_before_eos() -> None:
    assert len(WORDS) == 3
    assert WORDS.encode("the cat the") == [1, 2, 1]
    assert WORDS.encode("") == []
    assert WORDS.decode([1, 2, 0, 1]) == "the cat"
    assert WORDS.decode([]) == ""
    assert WORDS.decode_batch([[1, 0, 0], [2, 2, 2], [1, 1, 1]], [2, 3, 1]) == ["the", "cat cat cat", "the"]


def test_characters_need_no_separator() -> None:
    poem = Vocab(("<eos>", *"床前明月光"), separator="")
    assert poem.encode("明月") == [3, 4]
    assert poem.decode([3, 4, 0]) == "明月"


def test_without_eos_every_id_is_a_word() -> None:
    words = Vocab(("zero", "one"), eos=None)
    assert words.decode([1, 0, 0]) == "one zero zero"
    assert words.encode("one zero") == [1, 0]


def test_special_ids_may_lie_beyond_the_words() -> None:
    assert WORDS.num_ids == 3
    assert Vocab(("a", "b"), eos=1, bos=5, pad=2).num_ids == 6
    assert Vocab(("a", "b"), eos=1, bos=0, pad=2).num_ids == 3


@given(st.integers(1, 60), st.data())
def test_numbered_words_can_be_written_and_read_back(size: int, data: st.DataObject) -> None:
    eos = data.draw(st.none() | st.integers(0, size - 1))
    vocab = Vocab.numbered(size, eos)
    assert len(set(vocab.words)) == len(vocab) == size
    ids = data.draw(st.lists(st.integers(0, size - 1).filter(lambda i: i != eos)))
    assert vocab.encode(vocab.decode(ids)) == ids


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no words": ({"words": ()}, "at least one word, got none"),
    "eos beyond the words": ({"words": ("a", "b"), "eos": 2}, r"eos must be a word .* 0 … 1, got 2"),
    "negative eos": ({"words": ("a", "b"), "eos": -1}, r"eos must be a word .* 0 … 1, got -1"),
    "negative pad": ({"words": ("a", "b"), "pad": -1}, r"≥ 0, got bos=0, pad=-1"),
    "negative bos": ({"words": ("a", "b"), "bos": -2}, r"≥ 0, got bos=-2, pad=0"),
    "a word twice": ({"words": ("a", "b", "a")}, "words must differ, got 'a' more than once"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_vocabulary_that_makes_no_sense_is_refused(name: str) -> None:
    options, says = BAD[name]
    with pytest.raises(ValueError, match=says):
        Vocab(**options)


def test_unknown_words_are_named() -> None:
    with pytest.raises(ValueError, match=r"unknown words \['dog', 'bird'\]; the vocabulary has 3 words"):
        WORDS.encode("the dog cat bird")


@pytest.mark.parametrize("id", [-1, 3])
def test_ids_that_are_no_words_are_refused(id: int) -> None:
    with pytest.raises(ValueError, match=f"ids must be 0 … 2, got {id}"):
        WORDS.decode([1, id])
