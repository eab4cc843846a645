"""Two corpora without pairs: each text of the first with the most similar text of the second."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import log

import torch

from rlseq.data.corpus import Corpus, Ragged
from rlseq.data.encode import Problems, refuse_problems, warn_of_skipped
from rlseq.data.formats import DataError, Pair, Records
from rlseq.data.locate import TEXTS, Origin, Where, find

COMPARED = 5000  # texts of the second corpus among which the most similar is looked for
TEXTS_TOGETHER = 256  # texts of the first corpus that are compared at a time


def texts_at(where: Where | Mapping[str, Where], skip_bad: bool = False) -> list[str]:
    """Return the texts of a file, or of the training part of a folder."""
    origins = find(where, TEXTS)
    problems, texts = Problems(), []
    for row in origins["all" if "all" in origins else "train"].read():
        if isinstance(row, Pair):
            texts.append(row.target)
        else:
            problems.add(row)
    refuse_problems(problems, skip_bad)
    warn_of_skipped(problems.count, problems.first)
    if not texts:
        raise DataError(f"{where}: expected texts, got none")
    return texts


def with_nearest(origin: Origin, corpus: Sequence[str]) -> Origin:
    """Return the texts of an origin as sources, each with the most similar text of a corpus."""

    def read() -> Records:
        rows = list(origin.read())
        pairs = iter(nearest([row.target for row in rows if isinstance(row, Pair)], corpus))
        for row in rows:
            yield Pair(row.target, next(pairs)) if isinstance(row, Pair) else row

    return Origin(read, origin.files)


def nearest(texts: Sequence[str], corpus: Sequence[str]) -> Iterator[str]:
    """Yield the most similar text of a corpus for each text: the cosine of their words, weighted by rarity.

    Words that do not occur in the corpus have weight 0. Of a corpus of more than 5,000 texts, at most 5,000
    are compared, which are taken at equal distances.
    """
    corpus = corpus[:: -(-len(corpus) // COMPARED)]
    found = Counter(word for text in corpus for word in set(text.split()))
    number = {word: n for n, word in enumerate(found)}
    weight = torch.tensor([log((1 + len(corpus)) / times) for times in found.values()])

    def vectors(some: Sequence[str]) -> torch.Tensor:
        known = [set(text.split()) & found.keys() for text in some]
        places = [(n, number[word]) for n, words in enumerate(known) for word in sorted(words)]
        at = torch.tensor(places, dtype=torch.int64).view(-1, 2).t()
        return torch.sparse_coo_tensor(at, weight[at[1]], (len(some), len(found)), check_invariants=True)

    there = vectors(corpus)
    size = torch.sparse.sum(there * there, 1).to_dense().sqrt().clamp(min=1e-6)
    for start in range(0, len(texts), TEXTS_TOGETHER):
        likeness = torch.sparse.mm(there, vectors(texts[start : start + TEXTS_TOGETHER]).to_dense().t())
        for best in (likeness / size.unsqueeze(1)).argmax(0).tolist():
            yield corpus[best]


def without_pairs(corpus: Corpus) -> Corpus:
    """Return every second source of a corpus, with the most similar reference of the other items.

    No source is left with a reference that was written for it.
    """
    assert corpus.sources is not None
    assert corpus.source_vocab is not None
    items = corpus.texts()
    number = {
        text: int(corpus.starts[n]) + k for n in range(1, len(items), 2) for k, text in enumerate(items[n])
    }
    sources = torch.split(corpus.sources.ids, corpus.sources.lengths.tolist())[::2]
    read = [corpus.source_vocab.decode(ids.tolist()) for ids in sources]
    chosen = [number[text] for text in nearest(read, list(number))]
    ends = torch.tensor([0, *map(len, sources)]).cumsum(0)
    return replace(
        corpus,
        sources=Ragged(torch.cat(sources), ends),
        order=corpus.order[chosen],
        starts=torch.arange(len(chosen) + 1),
    )
