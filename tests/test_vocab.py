"""Words, ids, and texts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlseq.vocab import LEVELS, Subwords, Vocab, from_json, single_characters, subwords, whole_words

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
    "negative eos": ({"words": ("a", "b"), "eos": -1}, "eos must be an integer ≥ 0 or None, got -1"),
    "negative pad": ({"words": ("a", "b"), "pad": -1}, "pad must be an integer ≥ 0, got -1"),
    "negative bos": ({"words": ("a", "b"), "bos": -2}, "bos must be an integer ≥ 0, got -2"),
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


# ── vocabularies of texts ────────────────────────────────────────────────────────────────────────────

TEXTS = ["the cat sat", "the cat", "a dog <eos> sat"]


def test_special_ids_are_the_same_at_every_level() -> None:
    for make in LEVELS.values():
        vocab = make(TEXTS, 1, None)
        assert (vocab.words[:2], vocab.eos, vocab.bos, vocab.pad, vocab.unk) == (
            ("<eos>", "<unk>"),
            0,
            0,
            0,
            1,
        )


def test_words_come_by_count_then_by_name() -> None:
    assert whole_words(TEXTS).words == ("<eos>", "<unk>", "cat", "sat", "the", "a", "dog")
    assert single_characters(["bab", "c"]).words == ("<eos>", "<unk>", "b", "a", "c")


def test_rare_words_are_unknown() -> None:
    vocab = whole_words(TEXTS, min_count=2)
    assert vocab.words[2:] == ("cat", "sat", "the")
    assert vocab.encode("the dog sat") == [4, 1, 3]
    assert whole_words(TEXTS, size=4).words == ("<eos>", "<unk>", "cat", "sat")


@pytest.mark.parametrize("level", sorted(LEVELS))
@pytest.mark.parametrize(
    ("min_count", "size", "message"),
    [
        (0, None, "min_count must be an integer ≥ 1, got 0"),
        (-1, None, "min_count must be an integer ≥ 1, got -1"),
        (1.5, None, "min_count must be an integer ≥ 1, got 1.5"),
        (True, None, "min_count must be an integer ≥ 1, got True"),
        (1, 0, "vocab_size must be None or an integer ≥ 3, as <eos> and <unk> are words of it, got 0"),
        (1, 2, "vocab_size must be .* got 2"),
        (1, -3, "vocab_size must be .* got -3"),
        (1, 10.0, "vocab_size must be .* got 10.0"),
    ],
)
def test_numbers_that_no_vocabulary_has(level: str, min_count: Any, size: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LEVELS[level](TEXTS, min_count, size)


def test_what_leaves_nothing_to_write_is_named() -> None:
    message = "min_count=1000000 leaves no word .* 'the', is there 2 times: wanted min_count ≤ 2"
    with pytest.raises(ValueError, match=message):
        whole_words(TEXTS, min_count=10**6)
    for make in LEVELS.values():
        with pytest.raises(ValueError, match="the training texts have no word besides <eos> and <unk>"):
            make([], 1, None)


def test_a_size_below_the_alphabet_is_refused() -> None:
    texts = ["low lower"]  # l o w e r and the blank
    with pytest.raises(ValueError, match=r"vocab_size=7 is less than .* the 6 letters .* vocab_size ≥ 8"):
        subwords(texts, size=7)
    assert len(subwords(texts, size=8)) == 8


def test_special_words_cannot_be_spelled_by_a_text() -> None:
    vocab = whole_words(TEXTS)
    assert vocab.encode("cat <eos> <unk>") == [2, 1, 1]


def test_unknown_words_apart_equal_themselves_and_nothing_known() -> None:
    vocab, oov_words = whole_words(TEXTS), dict[str, int]()
    assert vocab.encode_apart("the bird saw the worm", oov_words) == [4, 7, 8, 4, 9]
    assert vocab.encode_apart("worm bird cat", oov_words) == [9, 7, 2]
    assert oov_words == {"bird": 7, "saw": 8, "worm": 9}


@pytest.mark.parametrize("level", sorted(LEVELS))
def test_what_is_encoded_can_be_read_again(level: str) -> None:
    vocab = LEVELS[level](TEXTS, 1, None)
    again = from_json(json.loads(json.dumps(vocab.to_json())))
    assert again == vocab
    assert type(again) is type(vocab)
    for text in ("the cat sat", "a dog sat", "sat"):
        assert again.decode(vocab.encode(text)) == text
        assert again.decode([*vocab.encode(text), 0, 5]) == text, "up to the end"


def test_subwords_merge_what_is_frequent_and_keep_unknown_letters() -> None:
    vocab = subwords(["low low low lower lowest"] * 5, size=14)
    assert isinstance(vocab, Subwords)
    assert len(vocab) <= 14
    assert vocab.split("low") == ["▁low"]
    assert vocab.split("low") != vocab.split("lowz")
    assert vocab.split("lowz")[-1] == "z"
    assert vocab.encode("lowz")[-1] == vocab.unk


def test_a_missing_library_is_named_with_its_extra(monkeypatch: Any) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"tokenizers is not installed here; pip install 'rlseq\[bpe\]'"):
        subwords(TEXTS)


def test_unk_must_be_a_word() -> None:
    with pytest.raises(ValueError, match="unk must be a word that can be written, 0 … 1, got 5"):
        Vocab(("a", "b"), unk=5)
