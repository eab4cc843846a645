"""From texts to a corpus."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tracemalloc
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from rlseq.data import cache
from rlseq.data import encode as data
from rlseq.data.corpus import Corpus
from rlseq.data.encode import MOST_REFERENCES, Problems, Reading, assign_parts, load, scan
from rlseq.data.formats import DataError, Pair
from rlseq.data.locate import Origin, by_seed, find
from rlseq.utils.files import Damaged


def origin(*pairs: tuple[str | None, str], line: bool = False) -> Origin:
    rows = [Pair(source, target, n if line else None) for n, (source, target) in enumerate(pairs)]
    return Origin(lambda: iter(rows))


def items(corpus: Corpus) -> list[tuple[str, list[str]]]:
    every = torch.arange(len(corpus))
    assert corpus.source_vocab
    sources = map(corpus.source_vocab.decode, corpus.contexts(every, 99, 1)["source"].tolist())
    return list(zip(sources, corpus.texts(every), strict=True))


def test_repeated_sources_are_several_references() -> None:
    pairs = ("a", "1"), ("b", "2"), ("a", "3"), ("b", "2")
    corpus = load({"train": origin(*pairs)})
    assert items(corpus) == [("a", ["1", "3"]), ("b", ["2"])]
    assert corpus.notes["repeated"] == 1


def test_a_line_that_has_all_its_references_is_an_item() -> None:
    corpus = load({"train": origin(("a", "1"), ("a", "3"), line=True)})
    assert items(corpus) == [("a", ["1"]), ("a", ["3"])]


def test_a_source_with_very_many_references_makes_more_items() -> None:
    pairs = [("a", f"{n}") for n in range(2 * MOST_REFERENCES + 5)]
    corpus = load({"train": origin(*pairs, ("b", "x"))})
    assert [(source, len(texts)) for source, texts in items(corpus)] == [
        *(("a", MOST_REFERENCES), ("a", MOST_REFERENCES), ("a", 5), ("b", 1))
    ]
    assert corpus.width == MOST_REFERENCES
    assert {text for _, texts in items(corpus)[:3] for text in texts} == {target for _, target in pairs}


def many(n: int) -> list[tuple[str | None, str]]:
    draw = np.random.default_rng(0)
    return [(f"s{draw.integers(n // 3)}", f"t{k}") for k in range(n)]


def test_no_source_is_in_two_parts_and_nothing_is_lost() -> None:
    found = defaultdict(set)
    for part in ("train", "dev", "test"):
        for source, texts in items(load({"all": origin(*many(300))}, part)):
            found[source, part].update(texts)
    sources = [source for source, _ in found]
    assert len(sources) == len(set(sources))
    wanted = defaultdict(set)
    for text, target in many(300):
        wanted[str(text)].add(target)
    assert {source: texts for (source, _), texts in found.items()} == wanted


def test_the_seed_divides() -> None:
    parts = [
        [source for source, _ in items(load({"all": origin(*many(300))}, "test", Reading(seed=seed)))]
        for seed in (0, 0, 1)
    ]
    assert parts[0] == parts[1]
    assert set(parts[0]) != set(parts[2])


def test_the_vocabulary_is_that_of_training() -> None:
    origins = {"train": origin(("a b", "x y"), ("a c", "x z")), "test": origin(("a d", "x q"))}
    train, test = (load(origins, part, Reading("word")) for part in ("train", "test"))
    assert train.vocab == test.vocab
    assert train.vocab.words == ("<eos>", "<unk>", "x", "y", "z")
    context = test.contexts(torch.tensor([0]), 3, 4)
    assert context["source"].tolist() == [[2, 1, 0]], "a, unknown, padding"
    assert context["references"].tolist() == [[[2, 1, 0, 0]]]
    assert context["reference_lengths"].tolist() == [[3]]
    assert test.table().ids.tolist() == [[2, 5, 0]], "apart from all that can be written"
    assert test.texts() == [["x q"]]


@pytest.mark.parametrize(
    ("pairs", "level"),
    [
        ([("word", "drow")] * 2, ["char", "char"]),
        ([("word", "W ER D")] * 2, ["char", "word"]),
        ([("a b c", "d e")] * 2, ["word", "word"]),
        ([(None, "d e")] * 2, ["word", "word"]),
    ],
)
def test_the_level_is_found_in_the_texts(pairs: Any, level: list[str]) -> None:
    assert load({"train": origin(*pairs)}).notes["level"] == level


def write(tmp_path: Path, text: str, name: str = "x.tsv") -> Path:
    path = tmp_path / name
    path.write_text(text, "utf-8")
    return path


def test_all_bad_lines_are_told_together_and_skipped_only_when_asked(tmp_path: Path) -> None:
    path = write(tmp_path, "a\tb\n" + "bad\n" * 7 + "c\td\n")
    with pytest.raises(DataError, match=r"x.tsv:2: .*\n.*x.tsv:3: (.|\n)*and 2 more\n.*skip_bad=True"):
        load(find(path))
    with pytest.warns(UserWarning, match=r"skipped 7 lines: .*x.tsv:2: expected source TAB reference"):
        corpus = load(find(path), "train", Reading(skip_bad=True))
    assert [source for source, _ in items(corpus)] == ["a", "c"]


def test_a_short_file_is_not_skipped(tmp_path: Path) -> None:
    source, reference = write(tmp_path, "a\nb\n", "x.src"), write(tmp_path, "a\n", "x.ref")
    with pytest.raises(DataError, match=r"x\.ref:2: expected line 2") as error:
        load(find([source, reference]), "train", Reading(skip_bad=True))
    assert "skip_bad" not in str(error.value)


def test_nothing_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x.tsv: expected items to train on, got none"):
        load(find(write(tmp_path, "")))
    with pytest.raises(DataError, match=r"got none; skipped 2, the first: .*x.tsv:1: expected source TAB"):
        load(find(write(tmp_path, "a\nb\n")), "train", Reading(skip_bad=True))
    with pytest.raises(DataError, match=r"x.tsv: too few sources for a part 'test'"):
        load(find(write(tmp_path, "a\tb\n")), "test")
    with pytest.raises(ValueError, match="unknown split 'tset'; did you mean 'test'"):
        load(find(write(tmp_path, "a\tb\n")), "tset")
    with pytest.raises(ValueError, match="unknown level 'chars'; did you mean 'char'"):
        load(find(write(tmp_path, "a\tb\n")), "train", Reading("chars"))


@pytest.mark.parametrize("level", [(), ("word",), ("word", "char", "bpe"), 3])
def test_a_level_is_one_or_two_names(level: Any) -> None:
    with pytest.raises(ValueError, match=r"level must be char, word, bpe, or a pair of these, .* got "):
        Reading(level)


@pytest.fixture
def small_cache(tmp_path: Path, monkeypatch: Any) -> Path:
    monkeypatch.setenv("RLSEQ_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "WORTH", 1)
    return tmp_path / "cache"


def test_the_cache_gives_the_same_and_knows_every_setting(small_cache: Path, tmp_path: Path) -> None:
    path = write(tmp_path, "".join(f"{s}\t{t} z\n" for s, t in many(60)))
    readings = [Reading(), Reading("char"), Reading(min_count=2), Reading(vocab_size=5), Reading(seed=1)]
    first = [load(find(path), "train", reading) for reading in readings]
    assert len(list(small_cache.iterdir())) == len(readings)
    again = [load(find(path), "train", reading) for reading in readings]
    assert len(list(small_cache.iterdir())) == len(readings)
    for one, two in zip(first, again, strict=True):
        assert items(one) == items(two)
        assert one.vocab == two.vocab
    moved = write(tmp_path, path.read_text(), "other.tsv")
    load(find(moved))
    assert len(list(small_cache.iterdir())) == len(readings), "content counts, not names"
    write(tmp_path, path.read_text() + "new\tline\n")
    load(find(path))
    assert len(list(small_cache.iterdir())) == len(readings) + 1


def test_an_error_leaves_no_trace(small_cache: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        load(find(write(tmp_path, "a\tb\nbad\n")))
    assert not list(small_cache.iterdir())


def test_what_is_said_is_said_again_of_the_file_that_is_read(small_cache: Path, tmp_path: Path) -> None:
    for name in ("x.tsv", "x.tsv", "copy.tsv"):
        path = write(tmp_path, "a\tb\nbad\n", name)
        with pytest.warns(UserWarning, match=rf"skipped 1 line: .*/{name}:2: expected"):
            load(find(path), "train", Reading(skip_bad=True))
    assert len(list(small_cache.iterdir())) == 1


def test_the_cache_knows_which_file_is_of_which_part(small_cache: Path, tmp_path: Path) -> None:
    a, b, c, d, e = (write(tmp_path, f"{name}1\n{name}2\n", name) for name in "abcde")
    load(find({"train": [a, b, c], "test": [d, e]}), "test")
    corpus = load(find({"train": [a, b], "test": [c, d, e]}), "test")
    assert corpus.texts(torch.arange(2)) == [["d1", "e1"], ["d2", "e2"]]


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 1
    path.write_bytes(content)


def other_shape(path: Path) -> None:
    """A file of whole numbers, with other ones."""
    path.write_bytes(torch.zeros(3, dtype=torch.int64).numpy().tobytes())


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("nothing")


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "removed": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b" "),
    "flipped": flipped,
    "other shape": other_shape,
    "nested": lambda path: path.write_bytes(b"[" * 100_000),
    "a folder": a_folder,
    "a link to nothing": a_link_to_nothing,
}


@pytest.mark.parametrize("file", ["train.references", "train.order", "notes.json", "checksums.txt"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_said_and_made_again(
    small_cache: Path, tmp_path: Path, file: str, damage: str
) -> None:
    path = write(tmp_path, "a\tb\nc\td\n")
    first = items(load(find(path)))
    (folder,) = small_cache.iterdir()
    DAMAGES[damage](folder / file)
    with pytest.warns(UserWarning, match=rf"{folder} is damaged \(.*\); it is removed, and made again"):
        assert items(load(find(path))) == first
    assert items(load(find(path))) == first
    assert [other.name for other in small_cache.iterdir()] == [folder.name]


def test_no_changed_byte_of_the_cache_is_read(small_cache: Path, tmp_path: Path) -> None:
    path = write(tmp_path, "".join(f"{s}\t{t}\n" for s, t in many(20)))
    first = items(load(find(path)))
    (folder,) = small_cache.iterdir()
    files = [(file, file.read_bytes()) for file in sorted(folder.iterdir()) if "dev" not in file.name]
    draw = Random(0)
    for trial in range(60):
        file, content = files[trial % len(files)]
        at = draw.randrange(len(content))
        changed = content[:at] + bytes([content[at] ^ (1 << draw.randrange(8))]) + content[at + 1 :]
        file.write_bytes(changed)
        if file.name.startswith("test."):
            assert items(load(find(path))) == first, "the part that is read is whole"
            file.write_bytes(content)
            continue
        with pytest.warns(UserWarning, match="is damaged"):
            assert items(load(find(path))) == first
        assert file.read_bytes() == content, "it was made again"


def test_a_file_that_has_not_changed_is_checked_once(
    small_cache: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    path = write(tmp_path, "a\tb\nc\td\n")
    load(find(path))
    load(find(path))
    read: list[Path] = []
    monkeypatch.setattr(cache, "_digest", read.append)
    load(find(path))
    assert not read


def test_links_in_the_cache_lead_nowhere(small_cache: Path, tmp_path: Path) -> None:
    """Neither a folder nor a file behind a link that somebody has put there is read, written or removed."""
    path = write(tmp_path, "a\tb\nc\td\n")
    first = items(load(find(path)))
    (folder,) = small_cache.iterdir()
    outside = folder.rename(tmp_path / "outside")
    before = {file.name: file.read_bytes() for file in outside.iterdir()}
    for target in (outside, outside / "notes.json", tmp_path / "nothing"):
        folder.symlink_to(target)
        with pytest.warns(UserWarning, match=r"is damaged \(wanted a folder, got a file or a link\)"):
            assert items(load(find(path))) == first
        assert folder.is_dir()
        assert not folder.is_symlink()
        shutil.rmtree(folder)
    assert {file.name: file.read_bytes() for file in outside.iterdir()} == before


def test_what_another_version_has_written_is_not_read(
    small_cache: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    path = write(tmp_path, "a\tb\nc\td\n")
    first = items(load(find(path)))
    (folder,) = small_cache.iterdir()
    (folder / "notes.json").write_text("of another version")
    monkeypatch.setattr("rlseq.data.encode.__version__", "0.0.1")
    assert items(load(find(path))) == first
    assert len(list(small_cache.iterdir())) == 2


def test_a_cache_that_is_damaged_again_and_again_is_left_alone(
    small_cache: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    path = write(tmp_path, "a\tb\nc\td\n")

    def refuse(folder: Path, names: Any) -> None:
        raise Damaged(f"{folder} is damaged")

    monkeypatch.setattr(cache, "check_files", refuse)
    with pytest.warns(UserWarning, match="it is removed, and made again") as said:
        assert len(load(find(path))) == 2
    assert len(said) == data.TRIES


def test_processes_that_write_at_the_same_time_do_not_disturb_each_other(
    small_cache: Path, tmp_path: Path
) -> None:
    path = write(tmp_path, "".join(f"{s}\t{t}\n" for s, t in many(200)))
    read = (
        "import sys, warnings; from rlseq import data; from rlseq.data import cache; "
        "from rlseq.data.locate import find; cache.WORTH = 1;"
        "warnings.simplefilter('error');"
        "print(hash(tuple(map(tuple, data.load(find(sys.argv[1])).texts()))))"
    )
    command = [sys.executable, "-c", read, str(path)]
    env = {**os.environ, "PYTHONHASHSEED": "0"}
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, env=env) for _ in range(3)]
    said = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0] * 3
    assert len(set(said)) == 1
    assert len(list(small_cache.iterdir())) == 1


def test_what_passes_by_itself_is_no_damage(small_cache: Path, tmp_path: Path, monkeypatch: Any) -> None:
    path = write(tmp_path, "a\tb\nc\td\n")
    load(find(path))
    (folder,) = small_cache.iterdir()

    def busy(*arguments: Any) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(cache, "mapped", busy)
    with pytest.raises(OSError, match="Too many open files"):
        load(find(path))
    assert list(small_cache.iterdir()) == [folder]


def test_reading_line_by_line_gives_the_same(tmp_path: Path, monkeypatch: Any) -> None:
    path = write(tmp_path, "".join(f"{s}\t{t}\n" for s, t in many(60)))
    held = load(find(path))
    monkeypatch.setattr(data, "TEXT_BYTES_IN_MEMORY", 0)
    assert items(load(find(path))) == items(held)


def test_places_by_a_slow_loop() -> None:
    pairs = many(200)
    seen = scan(origin(*pairs), 0, Problems())
    place = assign_parts("all", seen, by_seed)
    part_of: dict[str, int] = {}
    numbers: dict[tuple[str, int], int] = {}
    found: set[tuple[str, str]] = set()
    counts = [0, 0, 0]
    for k, (text, target) in enumerate(pairs):
        source = str(text)
        part_of.setdefault(source, int(place.part[k]))
        assert place.part[k] == part_of[source]
        key = (source, part_of[source])
        assert place.first[k] == (key not in numbers)
        if key not in numbers:
            numbers[key] = counts[part_of[source]]
            counts[part_of[source]] += 1
        assert place.item[k] == numbers[key]
        assert place.kept[k] == ((source, target) not in found)
        found.add((source, target))


def test_an_own_reader_of_a_large_file_is_asked_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No name says what it reads, so that nothing is kept under one."""
    monkeypatch.setattr(cache, "WORTH", 1)
    monkeypatch.setenv("RLSEQ_CACHE", str(tmp_path / "cache"))
    (tmp_path / "file").write_text("a b", "utf-8")

    def rows(target: str) -> Iterator[Pair]:
        yield from (Pair(source, target) for source in "abc")

    for target in ("x", "y"):
        own = (lambda: rows(target), partial(rows, target))  # noqa: B023
        for read in own:
            corpus = load({"train": Origin(read, (tmp_path / "file",))})
            assert items(corpus) == [(source, [target]) for source in "abc"]
    assert not (tmp_path / "cache").exists()


def test_an_own_division_of_a_large_file_is_made_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "WORTH", 1)
    path = tmp_path / "pairs.tsv"
    path.write_text("a\t1\nb\t2\n", "utf-8")
    for part in (0, 2):
        first = np.array([0, part])
        corpus = load(find(path), assign=lambda keys, first=first: first)  # type: ignore[misc]
        assert len(corpus) == (2 if part == 0 else 1)


@pytest.mark.parametrize(
    ("text", "reading", "message"),
    [
        ("<unk>\t<eos>\n" * 3, Reading("word"), "the training texts have no word besides"),
        ("a\tb\n", Reading(min_count=9), "min_count=9 leaves no word of the training texts"),
        (
            "abcdefgh\tijklmnop\n",
            Reading("bpe", vocab_size=3),
            "vocab_size=3 is less than byte-pair encoding",
        ),
    ],
)
def test_texts_without_a_vocabulary_are_refused_by_their_file(
    tmp_path: Path, text: str, reading: Reading, message: str
) -> None:
    if "bpe" in str(reading.level):
        pytest.importorskip("tokenizers")
    with pytest.raises(DataError, match=rf"x.tsv: {message}"):
        load(find(write(tmp_path, text)), "train", reading)


def test_the_limit_of_a_line_can_be_raised(small_cache: Path, tmp_path: Path, monkeypatch: Any) -> None:
    path = write(tmp_path, f"a\tb\n{'x' * 100_000}\ty\n")
    with pytest.raises(
        DataError, match=r"x.tsv:2: expected lines below 100,000 bytes; .* RLSEQ_MAX_LINE_BYTES"
    ):
        load(find(path))
    with pytest.warns(UserWarning, match="skipped 1 line"):
        assert len(load(find(path), "train", Reading(skip_bad=True))) == 1
    monkeypatch.setenv("RLSEQ_MAX_LINE_BYTES", "200000")
    assert len(load(find(path), "train", Reading(skip_bad=True))) == 2, (
        "not what the cache has of the lower limit"
    )
    assert len(load(find(path))) == 2


@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_file_of_line_ends_does_not_fill_memory(tmp_path: Path, skip_bad: bool) -> None:
    path = write(tmp_path, "\n" * 300_000)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"x.tsv:1: expected source TAB reference, got an empty line") as told:
        load(find(path), "train", Reading(skip_bad=skip_bad))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 5_000_000
    assert ("skipped 300,000, the first: " if skip_bad else "\nand 299,995 more") in str(told.value)
