"""Words of whole batches of pieces are those of the decoded texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import rlseq
from rlseq.metrics import pieces
from rlseq.metrics.fitting import ReadWords
from rlseq.metrics.tokenize import characters, whitespace
from tests.pretrained.tiny import TEXTS

Folder = Callable[[str], Path]
KINDS = ["t5", "pegasus", "gpt2", "bart", "llama", "nllb", "qwen", "bpe"]


@pytest.fixture(scope="module", params=KINDS)
def env(folder: Folder, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("texts") / "pairs.tsv"
    path.write_text(
        "".join(f"s{n}\t{text} ({n})\n" for n, text in enumerate(sorted(set(TEXTS)) * 3)), "utf-8"
    )
    options: dict[str, Any] = (
        {"level": "bpe"} if request.param == "bpe" else {"tokenizer": folder(request.param)}
    )
    if request.param == "nllb":
        options["languages"] = ("eng_Latn", "spa_Latn")
    return rlseq.make("rlseq/Parallel-v0", path={"train": path}, num_envs=4, **options)


def batch(env: Any, seed: int) -> tuple[Tensor, Tensor]:
    """Texts of the corpus, of other words, random tokens, an end in the middle, and no token at all."""
    draw = torch.Generator().manual_seed(seed)
    rows = [[*env.vocab.encode(text), env.vocab.eos] for item in env.corpus.texts() for text in item]
    rows += [env.vocab.encode("a blue-green 3.5% dog's &quot;x&quot; ... it ,b"), [], [env.vocab.eos]]
    for n in torch.randint(1, 40, (30,), generator=draw).tolist():
        row = torch.randint(len(env.vocab), (n,), generator=draw).tolist()
        rows.append([*row, *([env.vocab.eos, 7, 8] if n % 3 == 0 else [])])
    width = max(map(len, rows))
    tokens = torch.tensor([row + [env.vocab.pad] * (width - len(row)) for row in rows])
    return tokens, torch.arange(width) < torch.tensor([[len(row)] for row in rows])


def read(env: Any, tokenize: Any, ends: bool, by_runs: bool) -> ReadWords:
    reader = ReadWords(env.corpus, tokenize, ends)
    reader.references(None)
    if not by_runs:
        vars(reader)["runs"] = vars(reader)["_reader"] = None  # text by text
    return reader


def same(fast: tuple[Tensor, Tensor], slow: tuple[Tensor, Tensor], known: int) -> None:
    """Known words have the same ids; others are the same where the others are."""
    (ids, real), (wanted, wanted_real) = fast, slow
    lengths = real.sum(1)
    assert lengths.tolist() == wanted_real.sum(1).tolist()
    names: dict[int, int] = {}
    for row, wanted_row, n in zip(ids.tolist(), wanted.tolist(), lengths.tolist(), strict=True):
        for id, wanted_id in zip(row[:n], wanted_row[:n], strict=True):
            if min(id, wanted_id) <= known:
                assert id == wanted_id
            assert names.setdefault(id, wanted_id) == wanted_id
    assert len(set(names.values())) == len(names)


@pytest.mark.parametrize("tokenize", pieces.BY_WORD, ids=lambda function: function.__name__)
@pytest.mark.parametrize("ends", [True, False])
def test_the_words_are_those_of_the_decoded_texts(env: Any, tokenize: Any, ends: bool) -> None:
    fast, slow = (read(env, tokenize, ends, by_runs) for by_runs in (True, False))
    assert fast.runs is not None
    for seed in (0, 1):
        tokens, mask = batch(env, seed)
        same(fast.written(tokens, mask), slow.written(tokens, mask), len(fast.ids))
    assert fast.runs(tokens[:10], mask[:10] & (tokens[:10] != env.vocab.eos)) is not None


def test_texts_of_several_lines(env: Any) -> None:
    """Which 13a joins, where a line ends with a hyphen."""
    texts = ["a well-\nknown dog", "the dog-\n", "the dog-\n sees", "  two  blanks ", "a\n\nb", "a\tb", ""]
    rows = [env.vocab.encode(text) or [env.vocab.eos] for text in texts]
    tokens = torch.tensor([row + [env.vocab.eos] * (30 - len(row)) for row in rows])
    mask = torch.ones_like(tokens, dtype=torch.bool)
    for tokenize in pieces.BY_WORD:
        fast, slow = (read(env, tokenize, False, by_runs) for by_runs in (True, False))
        same(fast.written(tokens, mask), slow.written(tokens, mask), len(fast.ids))


def test_new_runs_are_decoded_where_they_are_most(env: Any) -> None:
    fast = read(env, whitespace, True, True)
    assert fast.runs is not None
    tokens, mask = batch(env, 0)
    assert fast.runs(tokens[:10], mask[:10]) is not None
    known = len(fast.runs.keys)
    assert fast.runs(tokens[-20:], mask[-20:]) is None
    assert len(fast.runs.keys) == known


def test_runs_are_forgotten_where_they_are_too_many(env: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "MOST_RUNS", 5)
    fast, slow = (read(env, whitespace, True, by_runs) for by_runs in (True, False))
    for seed in (0, 1):
        tokens, mask = batch(env, seed)
        for rows in (slice(10), slice(5, 15)):
            same(
                fast.written(tokens[rows], mask[rows]), slow.written(tokens[rows], mask[rows]), len(fast.ids)
            )


def test_references_may_come_later(env: Any) -> None:
    """A metric that is fitted on every batch meets their words when runs are known already."""
    fast, slow = (ReadWords(env.corpus, whitespace, True) for _ in range(2))
    vars(slow)["runs"] = vars(slow)["_reader"] = None
    tokens, mask = batch(env, 0)
    for index in (torch.tensor([0]), torch.tensor([1, 2]), torch.arange(6)):
        fast.references(index)
        slow.references(index)
        same(fast.written(tokens, mask), slow.written(tokens, mask), len(fast.ids))


def test_blanks_are_characters_so_that_texts_are_decoded(env: Any) -> None:
    assert read(env, characters, True, True).runs is None


@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
@pytest.mark.parametrize("name", ["bert", "marian"])
def test_texts_that_are_no_concatenation_are_decoded(folder: Folder, name: str) -> None:
    from rlseq.vocab.pretrained import tokenizer_pair

    assert tokenizer_pair(folder(name), reads=True).vocab.pieces is None
