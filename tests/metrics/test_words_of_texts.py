"""Words of many texts in one pass are those of each text, whatever stands in it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rlseq.metrics import BLEU, words_of_texts
from rlseq.metrics.encode import Encoder
from rlseq.metrics.fitting import HasReferences, ReadWords
from rlseq.metrics.pieces import BY_WORD
from rlseq.metrics.tokenize import BETWEEN_BLANKS, characters, mteval_13a, whitespace
from rlseq.metrics.words_of_texts import WordsOfTexts
from rlseq.vocab import Vocab

LETTERS = ["a", "B", "Σ", "7", ".", ",", "-", "'", "("]
PARTS = [*LETTERS, " ", "  ", "\n", "\t", "\u3000", "\x1c", "\0", "<skipped>", "&quot;"]
texts = st.lists(st.lists(st.sampled_from(PARTS), max_size=9).map("".join), min_size=1, max_size=5)


def words_of(ids: torch.Tensor, numbers: torch.Tensor, names: dict[int, str]) -> list[list[str]]:
    rows = zip(ids.tolist(), numbers.tolist(), strict=True)
    return [[names[id] for id in row[:n]] for row, n in rows]


@pytest.mark.parametrize("tokenize", BETWEEN_BLANKS, ids=lambda function: function.__name__)
@settings(max_examples=60, deadline=None)
@given(lines=texts)
@example(lines=["a-\nB", "a.\u3000.B", "ΑΣ Σ", ".,-", ""])
@example(lines=["-<skipped>\na", "1.5-2 -\n", "<skip-\nped>"])
@example(lines=["\0", "\0\0 a\0", " \0 a"])
def test_the_words_are_those_of_each_text(tokenize: Any, lines: list[str]) -> None:
    known = {word: n for n, word in enumerate(["a", "B", "."])}
    read = WordsOfTexts(tokenize, known)
    for _ in range(2):  # met for the first time, and again
        found = read(lines)
        names = {id: word for word, id in {**known, **read._others}.items()}
        assert words_of(*found, names) == [[*map(str, tokenize(line))] for line in lines]


@pytest.mark.parametrize("tokenize", [mteval_13a, whitespace])
def test_an_encoder_gives_the_ids_that_it_gives_text_by_text(tokenize: Any) -> None:
    references = [["the cat, the mat.", "a 3.5% dog"], ["two dogs"]]
    fast, slow = Encoder(tokenize), Encoder(tokenize)
    for encoder in (fast, slow):
        encoder.references(references)
    vars(slow)["_reader"] = None
    for lines in (["the dog's mat", "", "zebra dog-\nhouse, zebra"], ["", ""], ["a new-\nline"]):
        ids, wanted = fast.hypotheses(lines), slow.hypotheses(lines)
        assert ids.shape == wanted.shape
        assert torch.equal(ids >= 0, wanted >= 0)
        known = wanted < len(slow.words)
        assert torch.equal(ids[known], wanted[known])
        assert len(torch.unique(ids)) == len(torch.unique(wanted))


def test_mixed_lines_are_refused_as_before() -> None:
    bleu = BLEU([["a b"], ["c"]])
    with pytest.raises(TypeError, match="all texts or all token ids"):
        bleu.score(["a b", [1, 2]])


def test_new_words_are_forgotten_where_they_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words_of_texts, "MOST_PARTS", 3)
    known = {"a": 0}
    read = WordsOfTexts(whitespace, known)
    read(["a b c d"])
    ids, _ = read(["d b"])
    assert ids.tolist() == [[1, 2]]
    known["e"] = 1  # a reference that came later
    assert read(["e d"])[0].tolist() == [[1, 2]]


class Lines(HasReferences):
    """References as texts."""

    def __init__(self, vocab: Vocab, lines: list[str]) -> None:
        self.vocab, self.lines = vocab, lines

    def table(self, index: torch.Tensor | None = None) -> Any:
        raise NotImplementedError

    def texts(self, index: torch.Tensor | None = None) -> list[list[str]]:
        return [[line] for line in self.lines]


VOCABULARIES = {
    "characters": Vocab(("<eos>", *"ab,.-' \n"), separator=""),
    "words": Vocab(("<eos>", "a", "b.", "a,b", "-", "\n", "it's", "-\n", ""), separator=" "),
}


@pytest.mark.parametrize("tokenize", BY_WORD, ids=lambda function: function.__name__)
@pytest.mark.parametrize("vocab", VOCABULARIES.values(), ids=VOCABULARIES.keys())
@pytest.mark.parametrize("ends", [True, False])
def test_words_of_characters_and_of_words_are_those_of_the_texts(
    vocab: Vocab, tokenize: Any, ends: bool
) -> None:
    corpus = Lines(vocab, ["a b, ab", "a. b-"])
    by_runs, by_pass, slow = (ReadWords(corpus, tokenize, ends) for _ in range(3))
    vars(by_pass)["runs"] = vars(slow)["runs"] = vars(slow)["_reader"] = None
    draw = torch.Generator().manual_seed(0)
    for _ in range(3):
        tokens = torch.randint(len(vocab), (40, 12), generator=draw)
        mask = torch.arange(12) < torch.randint(13, (40, 1), generator=draw)
        wanted = [reader for reader in (by_runs, by_pass, slow) if reader.references(None)]
        found = [reader.written(tokens, mask) for reader in wanted]
        ids = [pad_of(*each) for each in found]
        for other in ids[:2]:
            assert [len(row) for row in other] == [len(row) for row in ids[2]]
            pairs = {
                (a, b)
                for left, right in zip(other, ids[2], strict=True)
                for a, b in zip(left, right, strict=True)
            }
            assert len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)
            assert all(a == b for a, b in pairs if min(a, b) <= len(slow.ids))
    assert by_runs.runs is not None


def pad_of(words: torch.Tensor, real: torch.Tensor) -> list[list[int]]:
    """The words of each row, as a list."""
    return [row[: int(n)] for row, n in zip(words.tolist(), real.sum(1), strict=True)]


def test_a_tokeniser_that_keeps_blanks_reads_text_by_text() -> None:
    assert words_of_texts.words_of_texts(characters, {}) is None
