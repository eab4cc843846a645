"""Words and their ids, with the special ids of a task decided once and for all."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple

from rlseq.utils.arguments import NonNegativeInt, PositiveInt, check_fields, checked_arguments
from rlseq.utils.errors import need
from rlseq.utils.memory import check_fits

EOS, UNK = "<eos>", "<unk>"  # ids 0 and 1 of every vocabulary that is made from texts
WORD = 150  # bytes of a word and its places in a vocabulary
BLANK = "▁"  # stands for a blank inside a subword


def ids_of(words: Iterable[str], known: Mapping[str, int], new: dict[str, int], first: int) -> list[int]:
    """Return ids of words, as `known` has them; other words join `new`, with ids from `first` on."""
    return [known[word] if word in known else new.setdefault(word, first + len(new)) for word in words]


Run = tuple[bool, list[int]]  # whether a text begins with it, and its ids


class Pieces(NamedTuple):
    """How texts are made of pieces: of runs of them, of which all but the first begin with a blank.

    Args:
        starts: by id: its text begins with a blank.
        odd: by id: it has the end of a line.
        silent: by id: it is left out of texts.
        read: the texts of runs, without the blank that one behind others begins with.
    """

    starts: list[bool]
    odd: list[bool]
    silent: list[bool]
    read: Callable[[Sequence[Run]], list[str]]


@dataclass(frozen=True)
class Vocab:
    """V words with ids 0 … V−1: the action space is exactly what can be written.

    By default id 0 is the one special word: it starts a sequence, ends it, and pads it. Any of the
    three may be another id; `eos=None` makes a task of fixed length, in which 0 is an ordinary word.
    """

    words: tuple[str, ...]
    eos: NonNegativeInt | None = 0
    bos: NonNegativeInt = 0
    pad: NonNegativeInt = 0
    separator: str = " "  # what stands between words in a text: "" for characters
    unk: NonNegativeInt | None = None  # what an unknown word is read as; None makes it an error

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.words:
            raise ValueError("words must hold at least one word, got none")
        if len(set(self.words)) < len(self):
            twice = next(word for i, word in enumerate(self.words) if word in self.words[:i])
            raise ValueError(f"words must differ, got {twice!r} more than once")
        for name, id in (("eos", self.eos), ("unk", self.unk)):
            if id is not None and id >= len(self):
                raise ValueError(f"{name} must be a word that can be written, 0 … {len(self) - 1}, got {id}")

    @classmethod
    @checked_arguments
    def numbered(cls, size: PositiveInt, eos: int | None = 0, bos: int = 0, pad: int = 0) -> Vocab:
        """Letters while they suffice, else the ids themselves; the word that ends is `<eos>`."""
        check_fits(WORD * size, size=size)
        letters = iter("abcdefghijklmnopqrstuvwxyz")
        name = (lambda i: next(letters)) if size <= 26 else str
        return cls(tuple(EOS if i == eos else name(i) for i in range(size)), eos, bos, pad)

    def __len__(self) -> int:
        return len(self.words)

    @property
    def num_ids(self) -> int:
        """Rows an embedding needs: BOS and PAD may be ids that can be read but never written."""
        return max(len(self), self.bos + 1, self.pad + 1)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}

    @cached_property
    def _readable(self) -> dict[str, int]:
        """Without the special words, which a text cannot spell."""
        return {word: i for word, i in self._ids.items() if i not in (self.eos, self.unk)}

    @cached_property
    def _parts(self) -> re.Pattern[str] | None:
        """A pattern of characters and of longer words, such as a tag; None where no word is longer."""
        long = sorted((word for word in self._readable if len(word) > 1), key=len, reverse=True)
        return re.compile("|".join([*map(re.escape, long), "."]), re.DOTALL) if long else None

    def split(self, text: str) -> list[str]:
        """A text's words."""
        if self.separator:
            return [word for word in text.split(self.separator) if word]
        return self._parts.findall(text) if self._parts else list(text)

    def join(self, words: Iterable[str]) -> str:
        """The text of words."""
        return self.separator.join(words)

    def encode(self, text: str) -> list[int]:
        """Ids of a text's words, without EOS; an unknown word is `unk`, or an error where there is none."""
        words = self.split(text)
        if self.unk is not None:
            return [self._readable.get(word, self.unk) for word in words]
        unknown = [word for word in words if word not in self._ids]
        if unknown:
            raise ValueError(f"unknown words {unknown[:5]}; the vocabulary has {len(self)} words")
        return [self._ids[word] for word in words]

    def encode_apart(self, text: str, oov_words: dict[str, int]) -> list[int]:
        """As `encode`, but unknown words get ids V, V+1, … as `oov_words` meets them.

        Such an id equals itself and nothing that can be written: a metric on ids is then one on words.
        """
        return ids_of(self.split(text), self._readable, oov_words, len(self))

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of several texts, as `encode`."""
        return [self.encode(text) for text in texts]

    def encode_batch_apart(self, texts: Sequence[str], oov_words: dict[str, int]) -> list[list[int]]:
        """Ids of several texts, as `encode_apart`."""
        return [self.encode_apart(text, oov_words) for text in texts]

    @property
    def pieces(self) -> Pieces | None:
        """How texts are made of words or characters, for metrics that read batches; None where neither."""
        if self.separator not in ("", " "):
            return None
        starts, odd = blanks_of([self.separator + word for word in self.words])

        def read(runs: Sequence[Run]) -> list[str]:
            texts = [self.decode(ids) for _, ids in runs]
            if self.separator:  # which is the blank between runs
                return texts
            return [text if begins else text[1:] for (begins, _), text in zip(runs, texts, strict=True)]

        return Pieces(starts, odd, [False] * len(self), read)

    @property
    def kept(self) -> int:
        """The number of last ids that stay where a source is cut: those that close it."""
        return 0

    def cut(self, ids: Sequence[int], width: int) -> list[int]:
        """Ids of a source, at most `width` of them; its closing ids stay."""
        kept = min(self.kept, width)
        return [*ids] if len(ids) <= width else [*ids[: width - kept], *ids[len(ids) - kept :]]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of a sequence of ids, up to and without the first EOS."""
        read, words = list(ids), self.words
        if self.eos in read:
            read = read[: read.index(self.eos)]
        if read and not 0 <= min(read) <= max(read) < len(words):
            wrong = next(i for i in read if not 0 <= i < len(words))
            raise ValueError(f"ids must be 0 … {len(words) - 1}, got {wrong}")
        return self.join([words[i] for i in read])

    def decode_batch(self, tokens: Sequence[Sequence[int]], lengths: Sequence[int]) -> list[str]:
        """Texts of padded rows."""
        return [self.decode(row[:n]) for row, n in zip(tokens, lengths, strict=True)]

    def to_json(self) -> dict[str, Any]:
        """All that `from_json` needs."""
        return asdict(self)


@dataclass(frozen=True)
class Subwords(Vocab):
    """Pieces of words, by byte-pair encoding (Sennrich et al. 2016); needs `pip install 'rlseq[bpe]'`."""

    merges: str = ""  # Hugging Face's JSON of a tokenizer

    @cached_property
    def _tokenizer(self) -> Any:
        return need("tokenizers", "bpe").Tokenizer.from_str(self.merges)

    def split(self, text: str) -> list[str]:
        """A text's pieces; a character that no piece has stays as it is."""
        read = self._tokenizer.encode(text)
        return [
            text[a:b] if id == self.unk else piece
            for id, piece, (a, b) in zip(read.ids, read.tokens, read.offsets, strict=True)
        ]

    def join(self, words: Iterable[str]) -> str:
        """The text of pieces."""
        return "".join(words).replace(BLANK, " ").removeprefix(" ")

    @cached_property
    def pieces(self) -> Pieces:
        """How texts are made of pieces."""
        starts, odd = blanks_of([word.replace(BLANK, " ") for word in self.words])
        return Pieces(starts, odd, [False] * len(self), lambda runs: [self.decode(ids) for _, ids in runs])


def blanks_of(texts: Sequence[str]) -> tuple[list[bool], list[bool]]:
    """Return which texts begin with a blank, and which have the end of a line."""
    return [text.startswith(" ") for text in texts], ["\n" in text for text in texts]


# ── vocabularies of texts ────────────────────────────────────────────────────────────────────────────

Texts = Iterable[str]
VocabFactory = Callable[[Texts, int, int | None], Vocab]  # texts, least count, largest V -> vocabulary


def single_characters(texts: Texts, min_count: int = 1, size: int | None = None) -> Vocab:
    """Every character."""
    return _frequent(texts, "", min_count, size)


def whole_words(texts: Texts, min_count: int = 1, size: int | None = None) -> Vocab:
    """Return the vocabulary of the words between blanks."""
    return _frequent(texts, " ", min_count, size)


def subwords(texts: Texts, min_count: int = 1, size: int | None = None) -> Subwords:
    """Byte-pair encoding; 8,000 pieces when no size is given, or what letters alone need."""
    check_vocab_size(min_count, size)
    library = need("tokenizers", "bpe")
    tokenizer = library.Tokenizer(library.models.BPE(unk_token=UNK))
    tokenizer.pre_tokenizer = library.pre_tokenizers.Metaspace(replacement=BLANK)
    trainer = library.trainers.BpeTrainer(
        vocab_size=size or 8000, min_frequency=min_count, special_tokens=[EOS, UNK], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    ids = tokenizer.get_vocab()
    _check_left(ids, min_count, Counter())
    if size is not None and len(ids) > size:
        raise ValueError(
            f"vocab_size={size} is less than byte-pair encoding begins with: {EOS}, {UNK} and the "
            f"{len(ids) - 2} letters of the training texts; wanted vocab_size ≥ {len(ids)}"
        )
    return Subwords(tuple(sorted(ids, key=ids.__getitem__)), separator="", unk=1, merges=tokenizer.to_str())


LEVELS: dict[str, VocabFactory] = {"char": single_characters, "word": whole_words, "bpe": subwords}


def _frequent(texts: Texts, separator: str, min_count: int, size: int | None) -> Vocab:
    """Words by falling count, those of a count by name, after the special ones."""
    check_vocab_size(min_count, size)
    split = Vocab((EOS,), separator=separator).split
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(split(text))
    for special in (EOS, UNK):
        counts.pop(special, None)
    words = sorted((word for word, n in counts.items() if n >= min_count), key=lambda w: (-counts[w], w))
    kept = (EOS, UNK, *words[: None if size is None else size - 2])
    _check_left(kept, min_count, counts)
    return Vocab(kept, separator=separator, unk=1)


def check_vocab_size(min_count: Any, size: Any) -> None:
    """Refuse numbers that no vocabulary has."""
    if type(min_count) is not int or min_count < 1:
        raise ValueError(f"min_count must be an integer ≥ 1, got {min_count!r}")
    if size is not None and (type(size) is not int or size < 3):
        raise ValueError(
            f"vocab_size must be None or an integer ≥ 3, as {EOS} and {UNK} are words of it, got {size!r}"
        )


def _check_left(words: Collection[str], min_count: int, counts: Counter[str]) -> None:
    """Refuse a vocabulary in which there is nothing to write."""
    if set(words) <= {EOS, UNK}:
        if not counts:
            raise ValueError(f"the training texts have no word besides {EOS} and {UNK}")
        word, most = counts.most_common(1)[0]
        raise ValueError(
            f"min_count={min_count} leaves no word of the training texts, only {EOS} and {UNK}; the most "
            f"frequent, {word!r}, is there {most:,} times: wanted min_count ≤ {most}"
        )
