"""Vocabularies: words and their ids, made from texts, given, or those of a pretrained model's tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlseq.vocab.tokenizers import KINDS
from rlseq.vocab.tokenizers import TokenizerVocab as TokenizerVocab
from rlseq.vocab.words import EOS as EOS
from rlseq.vocab.words import LEVELS as LEVELS
from rlseq.vocab.words import UNK as UNK
from rlseq.vocab.words import WORD as WORD
from rlseq.vocab.words import Pieces as Pieces
from rlseq.vocab.words import Run as Run
from rlseq.vocab.words import Subwords as Subwords
from rlseq.vocab.words import Vocab as Vocab
from rlseq.vocab.words import VocabFactory as VocabFactory
from rlseq.vocab.words import check_vocab_size as check_vocab_size
from rlseq.vocab.words import ids_of as ids_of
from rlseq.vocab.words import single_characters as single_characters
from rlseq.vocab.words import subwords as subwords
from rlseq.vocab.words import whole_words as whole_words

SHARED = ("words", "files")  # what two vocabularies of one tokenizer have in common


def level_of(vocab: Vocab) -> str:
    """The level of a vocabulary that was made from texts, or "tokenizer"."""
    if isinstance(vocab, TokenizerVocab):
        return "tokenizer"
    return "bpe" if isinstance(vocab, Subwords) else "word" if vocab.separator else "char"


def from_json(stored: Mapping[str, Any]) -> Vocab:
    """A vocabulary from what `to_json` gave."""
    if "kind" in stored:
        return KINDS[stored["kind"]].of_json(stored)
    words = {**stored, "words": tuple(stored["words"])}
    return Subwords(**words) if "merges" in words else Vocab(**words)


def pair_to_json(vocab: Vocab, source_vocab: Vocab | None) -> dict[str, Any]:
    """The vocabularies of a task as plain values; of one tokenizer, its files and words stand there once."""
    written, read = vocab.to_json(), source_vocab and source_vocab.to_json()
    if read and "files" in read and all(read[name] == written.get(name) for name in SHARED):
        read = {name: value for name, value in read.items() if name not in SHARED}
    return {"vocab": written, "source_vocab": read}


def pair_from_json(stored: Mapping[str, Any]) -> tuple[Vocab, Vocab | None]:
    """The vocabularies of a task from what `pair_to_json` gave."""
    vocab, read = from_json(stored["vocab"]), stored["source_vocab"]
    if read and "kind" in read and isinstance(vocab, TokenizerVocab):
        read = {**{name: getattr(vocab, name) for name in SHARED}, **read}
    return vocab, read and from_json(read)
