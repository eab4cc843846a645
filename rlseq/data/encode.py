"""From texts to a corpus: read, divide, count words, encode; once, and then from the cache.

Large files go line by line, four times, or five where the level is to be chosen: what memory holds meanwhile
is 24 bytes a reference, to know which sources are alike, and the words of the vocabulary; ids go to a file as
they come.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from hashlib import blake2b
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlseq.data import cache, limits
from rlseq.data.corpus import COLUMNS, Corpus, CorpusWriter, Vocabularies
from rlseq.data.formats import DataError, Pair, Problem
from rlseq.data.level import LEAST_PAIR, Levels, choose, count_words
from rlseq.data.locate import PARTS, Assign, Origin, by_seed
from rlseq.utils.errors import pick
from rlseq.utils.files import Damaged
from rlseq.utils.version import __version__
from rlseq.vocab import LEVELS, TokenizerVocab, Vocab, check_vocab_size, level_of, pair_to_json

MOST_REFERENCES = 32  # of an item; further ones make another item, so that tables stay narrow
PROBLEMS_LISTED = 5  # problems that a message names
TEXT_BYTES_IN_MEMORY = 1 << 26  # up to which pairs are held, where more would be read several times
CACHE_VERSION = 7  # of what the cache holds
ENCODED_TOGETHER = 1024  # pairs that are encoded together
TRIES = 3  # to read from the cache, which other processes may repair at the same time
Level = str | Levels | None
PlacedPair = tuple[Pair, int, int, bool]  # a pair, its part, its item, and whether it is the first of that


@dataclass(frozen=True)
class Reading:
    """The settings by which texts become ids.

    Args:
        level: "char", "word" or "bpe", or one for sources and one for references; when not given, words
            where training knows those of dev, else characters or subwords (`rlseq.data.level.choose`).
        min_count: words that training has less often are unknown.
        vocab_size: the most frequent words that are kept.
        seed: divides what files do not divide.
        skip_bad: pass over lines that cannot be used; they are counted, and a warning says so.
        words: vocabularies in place of those of the training part.
    """

    level: Level = None
    min_count: int = 1
    vocab_size: int | None = None
    seed: int = 0
    skip_bad: bool = False
    words: Vocabularies | None = None

    def __post_init__(self) -> None:
        given: Any = self.level
        names = [] if given is None else [given] if isinstance(given, str) else given
        known = ", ".join(LEVELS)
        if not isinstance(names, (tuple, list)) or (names is given and len(names) != 2):
            raise ValueError(
                f"level must be {known}, or a pair of these, of sources and references; got {given!r}"
            )
        for name in names:
            pick(LEVELS, name, "level")
        check_vocab_size(self.min_count, self.vocab_size)


@dataclass
class Problems:
    """Lines that cannot be used: how many there are, and the first of them.

    No more of them are held: those of a file of line ends alone would take a hundred times its size.
    """

    count: int = 0
    first: list[Problem] = field(default_factory=list)
    fatal: list[Problem] = field(default_factory=list)  # no more than one of each file

    def add(self, problem: Problem) -> None:
        """Count a problem, and hold it if it is among the first."""
        self.count += 1
        if len(self.first) < PROBLEMS_LISTED:
            self.first.append(problem)
        if problem.fatal:
            self.fatal.append(problem)


class Survey(NamedTuple):
    """The facts about an origin that one pass over its pairs finds."""

    sources: NDArray[np.uint64]  # a key of each pair's source, or of its text where there is no source
    items: NDArray[np.uint64]  # a key of what shares references: the source, or the line
    pairs: NDArray[np.uint64]  # a key of each reference of an item
    blanks: tuple[int, int]  # in sources and in references
    conditional: bool


class Place(NamedTuple):
    """The part and the item that each pair of an origin belongs to."""

    part: NDArray[np.int64]  # number in PARTS
    item: NDArray[np.int64]  # number of the item in its part
    first: NDArray[np.bool_]  # is it the first pair of its item?
    kept: NDArray[np.bool_]  # is it not a repetition?


def load(
    origins: Mapping[str, Origin], part: str = "train", reading: Reading = Reading(), assign: Assign = by_seed
) -> Corpus:
    """Return one part of what there is to read, encoded by the vocabulary of its training part.

    Args:
        origins: by part, or under "all", as `rlseq.data.locate.find` gives them.
        part: "train", "dev" or "test".
        reading: how texts become ids.
        assign: divides what files do not divide.
    """
    pick(dict.fromkeys(PARTS if "all" in origins else origins), part, "split")
    files = [file for origin in origins.values() for file in origin.files]
    large = sum(file.stat().st_size for file in files) >= cache.WORTH
    known = _is_ours(assign) and all(_is_reader(origin.read) for origin in origins.values())
    key = cache.key_of(files, _settings(origins, reading, assign)) if large and known else None
    build = partial(_build, origins, reading, assign)
    corpus = _opened(key, build, part, reading.words)
    if corpus is None:
        raise DataError(f"{_named(origins)}: too few sources for a part {part!r}; give files of its own")
    first = (Problem(files[file], line, what) for file, line, what in corpus.notes["first_skipped"])
    warn_of_skipped(corpus.notes["skipped"], first)
    return corpus


def _opened(
    key: str | None, build: Callable[[Path], None], part: str, words: Vocabularies | None
) -> Corpus | None:
    """Read a part from the cache; what is damaged is made again, and after some trials without the cache."""
    for _ in range(TRIES if key is not None else 0):
        try:
            with cache.kept(key, build) as (folder, stays):
                if stays:
                    cache.check_files(folder, ("notes.json", *(f"{part}.{name}" for name in COLUMNS)))
                return Corpus.open(folder, part, mapped=stays, words=words)
        except Damaged as error:
            warnings.warn(f"{error}; it is removed, and made again", stacklevel=3)
            cache.forget(str(key))
    with cache.kept(None, build) as (folder, _):
        return Corpus.open(folder, part, mapped=False, words=words)


def _is_reader(read: Callable[[], Any]) -> bool:
    """Whether it is a reader of this package: only then its name and the version say all that it does."""
    return isinstance(read, partial) and _is_ours(read.func)


def _is_ours(function: Callable[..., Any]) -> bool:
    return str(getattr(function, "__module__", "")).startswith("rlseq.")


def _settings(origins: Mapping[str, Origin], reading: Reading, assign: Assign) -> dict[str, Any]:
    """Everything besides the content of the files that decides what the cache holds."""
    words = reading.words
    readers = {
        part: (origin.read.func.__name__, origin.read.keywords, len(origin.files))  # type: ignore[attr-defined]
        for part, origin in origins.items()
    }
    return {
        "version": f"{__version__}/{CACHE_VERSION}/{sys.byteorder}",
        "longest": limits.limit(limits.LINE_BYTES),  # what is longer may be skipped
        "reading": asdict(replace(reading, words=None)),
        "words": words and pair_to_json(words.vocab, words.source_vocab),
        "subwords": find_spec("tokenizers") is not None,  # which decides the level, too
        "readers": readers,
        "assign": assign.__name__,
    }


def _named(origins: Mapping[str, Origin]) -> str:
    return ", ".join(str(origin.files[0]) for origin in origins.values() if origin.files) or "generated texts"


def _build(origins: Mapping[str, Origin], reading: Reading, assign: Assign, folder: Path) -> None:
    """Read everything, and write the arrays of each part, and notes, into a folder."""
    files = [file for origin in origins.values() for file in origin.files]
    hold = sum(file.stat().st_size for file in files) < TEXT_BYTES_IN_MEMORY
    problems = Problems()
    looked = {name: _look(origin, reading.seed, problems, hold) for name, origin in origins.items()}
    surveys = {name: seen for name, (seen, _) in looked.items()}
    origins = {name: again for name, (_, again) in looked.items()}
    refuse_problems(problems, reading.skip_bad)
    if not len(surveys["all" if "all" in surveys else "train"].pairs):
        some = f"; skipped {problems.count:,}, the first: " if problems.count else ""
        skipped = some + "".join(map(str, problems.first[:1]))
        raise DataError(f"{_named(origins)}: expected items to train on, got none{skipped}")
    places = {name: assign_parts(name, seen, assign) for name, seen in surveys.items()}
    rows = partial(rows_of, origins, places)
    words = partial(_words, reading=reading, name=_named(origins))
    conditional = any(seen.conditional for seen in surveys.values())
    why = ""
    if reading.words is not None:
        vocab, source_vocab = reading.words.vocab, reading.words.source_vocab
        level = level_of(source_vocab or vocab), level_of(vocab)
    else:
        level, why = chosen_levels(reading.level, surveys, rows(), conditional)
        sources = (str(p.source) for p, part, _, first in rows() if part == 0 and first)
        source_vocab = words(level[0], sources) if conditional else None
        vocab = words(level[1], (pair.target for pair, part, *_ in rows() if part == 0))
    oov_words: dict[str, int] = {}
    originals = isinstance(vocab, TokenizerVocab)
    writers = [CorpusWriter(folder, name, originals) for name in PARTS]
    for batch in _batches(rows()):
        written = vocab.encode_batch_apart([pair.target for pair, *_ in batch], oov_words)
        for (pair, part, item, _), ids in zip(batch, written, strict=True):
            writers[part].add(item, ids, vocab.eos, pair.target)
        if source_vocab is not None:
            firsts = [(str(pair.source), part) for pair, part, _, first in batch if first]
            read = source_vocab.encode_batch([source for source, _ in firsts])
            for (_, part), ids in zip(firsts, read, strict=True):
                writers[part].sources(ids)
    notes = {
        "level": level,
        "why": why,
        "words": None if reading.words is not None else pair_to_json(vocab, source_vocab),
        "originals": originals,
        "oov_words": list(oov_words),
        "skipped": problems.count,
        "first_skipped": [(files.index(p.file), p.line, p.what) for p in problems.first],
        "repeated": int(sum((~place.kept).sum() for place in places.values())),
        "parts": {writer.name: writer.close() for writer in writers},
    }
    (folder / "notes.json").write_text(json.dumps(notes), "utf-8")


def _batches(rows: Iterator[PlacedPair]) -> Iterator[list[PlacedPair]]:
    """Yield rows in lists, which a tokenizer reads faster than one by one."""
    while batch := list(islice(rows, ENCODED_TOGETHER)):
        yield batch


def _words(level: str, texts: Iterator[str], reading: Reading, name: str) -> Vocab:
    """Make the vocabulary of texts; where there can be none, the error names their files."""
    chosen = level == "bpe" and reading.level is None and reading.vocab_size is None
    least = max(reading.min_count, LEAST_PAIR) if chosen else reading.min_count
    try:
        return LEVELS[level](texts, least, reading.vocab_size)
    except ValueError as error:
        raise DataError(f"{name}: {error}") from error


def _look(origin: Origin, seed: int, problems: Problems, hold: bool) -> tuple[Survey, Origin]:
    """Scan an origin, and return it for further readings; its pairs may be held, to read files once."""
    pairs: list[Pair] = []

    def watched() -> Iterator[Pair | Problem]:
        for row in origin.read():
            if isinstance(row, Pair):
                pairs.append(row)
            yield row

    if hold:
        return scan(Origin(watched), seed, problems), Origin(pairs.__iter__, origin.files)
    return scan(origin, seed, problems), origin


def scan(origin: Origin, seed: int, problems: Problems) -> Survey:
    """Read all pairs once, and return their keys; lines that cannot be used join the problems."""
    sources: list[bytes] = []
    items: list[bytes] = []
    pairs: list[bytes] = []
    source_blanks = target_blanks = 0
    conditional, salt = False, seed.to_bytes(8, "little", signed=True)
    for row in origin.read():
        if isinstance(row, Problem):
            problems.add(row)
            continue
        target = row.target.encode()
        source = target if row.source is None else row.source.encode()
        conditional = conditional or row.source is not None
        # Of a billion different texts, two have the same 64 bits with a chance of 3 %.
        key = blake2b(source, digest_size=8, salt=salt).digest()
        number = b"" if row.item is None else row.item.to_bytes(8, "little")
        item = blake2b(key + number, digest_size=8).digest() if number else key
        sources.append(key)
        items.append(item)
        pairs.append(blake2b(item + target, digest_size=8).digest())
        source_blanks += source.count(b" ")
        target_blanks += target.count(b" ")
    keys = [np.frombuffer(b"".join(texts), dtype=np.uint64) for texts in (sources, items, pairs)]
    return Survey(keys[0], keys[1], keys[2], (source_blanks, target_blanks), conditional)


def refuse_problems(problems: Problems, skip_bad: bool) -> None:
    """Refuse problems, unless they are to be skipped and can be."""
    refused = problems.fatal if skip_bad else problems.first
    if refused:
        count = len(refused) if skip_bad else problems.count
        more = f"\nand {count - PROBLEMS_LISTED:,} more" if count > PROBLEMS_LISTED else ""
        may_skip = not skip_bad and not refused[0].fatal
        mend = "\nmend the file, or pass over such lines: skip_bad=True" if may_skip else ""
        raise DataError("\n".join(map(str, refused[:PROBLEMS_LISTED])) + more + mend)


def warn_of_skipped(count: int, first: Iterable[Problem]) -> None:
    """Warn of lines that are passed over, with the first of them."""
    if count:
        lines = f"{count:,} line" + ("s" if count > 1 else "")
        warnings.warn(f"skipped {lines}: {'; '.join(map(str, first))}", stacklevel=3)


def assign_parts(name: str, seen: Survey, assign: Assign) -> Place:
    """Assign a part and an item to every pair; a source is in one part, however many items it makes."""
    kept = _first(seen.pairs)
    item = _numbered(seen.items)
    rank = np.zeros_like(item)
    rank[kept] = _ranks(item[kept])
    item = _numbered(item * (len(item) + 1) + rank // MOST_REFERENCES)
    first = _first(item)
    if name != "all":
        return Place(np.full(len(item), PARTS.index(name)), item, first, kept)
    part = assign(seen.sources[_first(seen.sources)])[_numbered(seen.sources)]
    return Place(part, _ranks(part[first])[item], first, kept)


def _first(keys: NDArray[Any]) -> NDArray[np.bool_]:
    """True where a key comes for the first time."""
    first = np.zeros(len(keys), dtype=bool)
    first[np.unique(keys, return_index=True)[1]] = True
    return first


def _numbered(keys: NDArray[Any]) -> NDArray[np.int64]:
    """Number keys 0, 1, … in the order in which they first come."""
    _, at, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(at))[inverse]


def _ranks(item: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count how often the value of each entry has come before it."""
    order = np.argsort(item, kind="stable")
    start = np.bincount(item).cumsum() - np.bincount(item)
    ranks = np.empty_like(item)
    ranks[order] = np.arange(len(item)) - start[item[order]]
    return ranks


def chosen_levels(
    level: Level, surveys: Mapping[str, Survey], rows: Iterable[PlacedPair], conditional: bool
) -> tuple[Levels, str]:
    """Return the level of sources, and that of references; and why, where they are not given.

    Args:
        level: as it was given.
        surveys: of every origin.
        rows: all pairs, with their parts; they are read where no level is given.
        conditional: whether there are sources.
    """
    if level is not None:
        return ((level, level) if isinstance(level, str) else level), ""
    pairs = sum(len(seen.pairs) for seen in surveys.values())
    blanks = np.sum([seen.blanks for seen in surveys.values()], axis=0) / max(1, pairs)
    counted = ((pair.source, pair.target, part, first) for pair, part, _, first in rows)
    return choose(count_words(counted, blanks.tolist()), conditional)


def rows_of(origins: Mapping[str, Origin], places: Mapping[str, Place]) -> Iterator[PlacedPair]:
    """Yield every pair that is no repetition, its part, its item, and whether it is the first of its item."""
    for name, origin in origins.items():
        columns = (column.tolist() for column in places[name])
        for pair, part, item, first, kept in zip(pairs_of(origin), *columns, strict=True):
            if kept:
                yield pair, part, item, first


def pairs_of(origin: Origin) -> Iterator[Pair]:
    """Yield the pairs of an origin, without its problems."""
    return (row for row in origin.read() if isinstance(row, Pair))
