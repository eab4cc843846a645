"""Flat arrays against nested lists."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rlseq.data import cache
from rlseq.data.corpus import Corpus, Ragged
from rlseq.data.encode import load
from rlseq.data.formats import Pair
from rlseq.data.locate import Origin, find
from rlseq.metrics.encode import table_of
from rlseq.metrics.fitting import WithoutFirst

draw = random.Random(0)
ITEMS = [
    (
        f"s{i}",
        [" ".join(draw.choices("abcd", k=draw.randint(1, 6))) + f" r{k}" for k in range(draw.randint(1, 4))],
    )
    for i in range(30)
]


def corpus() -> Corpus:
    rows = [Pair(source, text) for source, texts in ITEMS for text in texts]
    draw.shuffle(rows)
    return load({"train": Origin(lambda: iter(rows))})


def found(made: Corpus) -> dict[str, list[str]]:
    every = torch.arange(len(made))
    assert made.source_vocab
    sources = map(made.source_vocab.decode, made.contexts(every, 99, 1)["source"].tolist())
    return {s: sorted(texts) for s, texts in zip(sources, made.texts(every), strict=True)}


WANTED = {source: sorted(texts) for source, texts in ITEMS}


def test_items_wherever_their_lines_are() -> None:
    assert found(corpus()) == WANTED


def test_contexts_are_padded_rows() -> None:
    made = corpus()
    index = torch.tensor([3, 0, 3, 29])
    context = made.contexts(index, 4, made.longest)
    texts = made.texts(index)
    lengths = context["reference_lengths"]
    assert lengths.shape == (4, made.width)
    for row, item in enumerate(texts):
        assert (lengths[row] > 0).tolist() == [True] * len(item) + [False] * (made.width - len(item))
        for slot, text in enumerate(item):
            ids = context["references"][row, slot]
            assert made.vocab.decode(ids[: lengths[row, slot]].tolist()) == text
            assert ids[lengths[row, slot] - 1] == made.vocab.eos
            assert (ids[lengths[row, slot] :] == made.vocab.pad).all()
    assert context["source"].shape == (4, 4)
    assert context["source"].dtype == context["references"].dtype == torch.int64


def same(a: Tensor, b: Tensor) -> bool:
    width = min(a.shape[1], b.shape[1])
    return torch.equal(a[:, :width], b[:, :width])


def test_tables_of_all_and_of_some() -> None:
    made = corpus()
    whole, some = made.table(), made.table(torch.arange(len(made)))
    for name in ("lengths", "item", "slot"):
        assert torch.equal(getattr(whole, name), getattr(some, name)), name
    assert same(whole.ids, some.ids)
    context = made.contexts(torch.arange(len(made)), 4, made.longest)
    assert same(table_of(context["references"], context["reference_lengths"]).ids, whole.ids)


def test_what_is_too_long_is_left_out() -> None:
    made = corpus()
    for limit in range(3, made.longest + 1):
        less = made.without_longer_than(limit)
        wanted = {s: [t for t in texts if len(t.split()) < limit] for s, texts in WANTED.items()}
        assert found(less) == {s: texts for s, texts in wanted.items() if texts}
        assert less.longest <= limit


def test_without_the_first_reference() -> None:
    made = corpus()
    items = torch.tensor([i for i, texts in enumerate(made.texts()) if len(texts) > 1])
    left = WithoutFirst(made, items)
    for row, item in enumerate(items):
        others = made.texts(item[None])[0][1:]
        assert left.texts()[row] == left.texts(torch.tensor([row]))[0] == others


def test_tokens_stay_in_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLSEQ_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "WORTH", 1)
    (tmp_path / "x.tsv").write_text("".join(f"{s}\t{t}\n" for s, texts in ITEMS for t in texts))
    made = load({"train": find(tmp_path / "x.tsv")["all"]})
    (file,) = (tmp_path / "cache").glob("*/train.references")
    assert str(file) in Path("/proc/self/maps").read_text()
    assert found(made) == WANTED


def test_a_table_that_cannot_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made = load({"train": Origin(lambda: iter([Pair("a", "x"), Pair("b", "y " * 1000)]))})
    monkeypatch.setattr("rlseq.utils.memory.memory", lambda: 10_000)
    with pytest.raises(ValueError, match=r"references=2, max_len=1,001 would need 16 kB of memory"):
        made.table()
    assert made.without_longer_than(10).table().ids.shape == (1, 2)


def test_texts_end_to_end() -> None:
    texts = Ragged(torch.tensor([5, 6, 7], dtype=torch.int32), torch.tensor([0, 2, 2, 3]))
    assert texts.lengths.tolist() == [2, 0, 1]
    assert texts.take(torch.tensor([[2, 1], [0, 0]]), 3, 9).tolist() == [
        *([[7, 9, 9], [9, 9, 9]], [[5, 6, 9], [5, 6, 9]])
    ]
    empty = Ragged(torch.zeros(0, dtype=torch.int32), torch.tensor([0, 0]))
    assert empty.take(torch.tensor([0]), 2, 9).tolist() == [[9, 9]]
