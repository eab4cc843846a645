"""The level at which texts are read where none is given."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path
from random import Random

import pytest

import rlseq
from rlseq.data import level
from rlseq.data.inspection import inspect


def write(path: Path, pairs: Iterable[tuple[str, str]]) -> Path:
    path.write_text("".join(f"{source}\t{target}\n" for source, target in pairs), "utf-8")
    return path


def names(draw: Random) -> str:
    return "".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=6))


def closed(draw: Random, words: int) -> str:
    return " ".join(draw.choices(("red", "blue", "green", "small", "large"), k=words))


def numbers(draw: Random) -> str:
    return " ".join(draw.choices(("one", "two", "three", "four", "five", "six"), k=3))


def dates(draw: Random) -> tuple[str, str]:
    day = date(1900, 1, 1) + timedelta(days=draw.randrange(40_000))
    return f"{day:%A} {day.day} {day:%B} {day.year}", day.isoformat()


def test_closed_vocabularies_are_read_by_words(tmp_path: Path) -> None:
    draw = Random(0)
    path = write(tmp_path / "x.tsv", [(f"{closed(draw, 4)}", closed(draw, 3)) for _ in range(400)])
    notes = rlseq.make("rlseq/Parallel-v0", path=path).corpus.notes  # type: ignore[attr-defined]
    assert notes["level"] == ["word", "word"]
    assert "because 0.0% of the words of dev are unknown to training" in notes["why"]


def test_dates_are_read_by_characters_though_no_word_of_dev_is_unknown(tmp_path: Path) -> None:
    """The letters of a year, which occurs a few times only, say more than the word does."""
    draw = Random(0)
    path = write(tmp_path / "x.tsv", [dates(draw) for _ in range(3000)])
    notes = rlseq.make("rlseq/Parallel-v0", path=path).corpus.notes  # type: ignore[attr-defined]
    assert notes["level"] == ["char", "char"]
    assert "occur fewer than 50 times" in notes["why"]


def test_frequent_words_beside_characters_stay_words(tmp_path: Path) -> None:
    draw = Random(0)
    path = write(tmp_path / "x.tsv", [(numbers(draw), str(draw.random())) for _ in range(1000)])
    assert rlseq.make("rlseq/Parallel-v0", path=path).corpus.notes["level"] == ["word", "char"]  # type: ignore[attr-defined]


def test_open_vocabularies_are_read_by_characters_where_short_and_by_subwords_where_long(
    tmp_path: Path,
) -> None:
    pytest.importorskip("tokenizers")
    draw = Random(0)
    pairs = [(f"{closed(draw, 2)} {names(draw)}", f"{names(draw)} {closed(draw, 9)}") for _ in range(600)]
    env = rlseq.make("rlseq/Parallel-v0", path=write(tmp_path / "x.tsv", pairs))
    assert env.corpus.notes["level"] == ["char", "bpe"]  # type: ignore[attr-defined]
    longest = max(len(word) for word in env.vocab.words)
    assert longest > 3, "frequent words are pieces"
    assert len(env.vocab) < 300, "names are not: pairs of pieces that are met ten times are joined"


def test_without_subwords_long_texts_are_read_by_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(level, "find_spec", lambda name: None)
    side = level.WordCounts(9.0)
    side.train.update(["a"] * 1000)
    side.dev.update(["b"] * 100)
    levels, why = level.choose((side, side), conditional=True)
    assert levels == ("char", "char")
    assert "pip install 'rlseq[bpe]'" in why


def test_where_there_is_no_dev_words_that_occur_once_are_counted(tmp_path: Path) -> None:
    draw = Random(0)
    pairs = [(f"{names(draw)} {names(draw)}", f"{closed(draw, 3)}") for _ in range(700)]
    path = write(tmp_path / "x.tsv", pairs)
    env = rlseq.make("rlseq/Parallel-v0", path={"train": path})
    assert env.corpus.notes["level"] == ["char", "word"]  # type: ignore[attr-defined]


def test_embedded_texts_keep_their_level() -> None:
    for id in ("rlseq/Parallel-v0", "rlseq/Text-v0"):
        env = rlseq.make(id)
        assert set(env.corpus.notes["level"]) == {"word"}  # type: ignore[attr-defined]


def test_a_level_that_is_given_is_taken(tmp_path: Path) -> None:
    draw = Random(0)
    path = write(tmp_path / "x.tsv", [dates(draw) for _ in range(300)])
    notes = rlseq.make("rlseq/Parallel-v0", path=path, level="word").corpus.notes  # type: ignore[attr-defined]
    assert (notes["level"], notes["why"]) == (["word", "word"], "")


def test_inspection_recommends_what_the_task_takes(tmp_path: Path) -> None:
    draw = Random(0)
    path = write(tmp_path / "x.tsv", [dates(draw) for _ in range(1000)])
    seen = inspect(path)
    env = rlseq.make("rlseq/Parallel-v0", path=path)
    assert seen.recommended == env.corpus.notes["why"]  # type: ignore[attr-defined]
    assert "recommended: sources are read by characters" in str(seen)
    assert inspect(path, level="word").recommended == ""


def test_the_command_says_the_level_before_it_trains(tmp_path: Path) -> None:
    draw = Random(0)
    path = write(tmp_path / "x.tsv", [dates(draw) for _ in range(1000)])
    command = ["train", "mle", "--env", "rlseq/Parallel-v0", "--option", f"path={path}", "split=train"]
    sizes = ["--policy", "seq2seq", "hidden=8", "embedding=8", "--budget-tokens", "1000", "--texts", "10"]
    done = subprocess.run(
        [sys.executable, "-m", "rlseq", *command, *sizes, "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("rlseq: sources are read by characters, because ")
