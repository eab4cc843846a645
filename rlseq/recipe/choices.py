"""Choices that `rlseq.fit` makes from the data: the reward, the size of the policy, and that of a batch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rlseq.engine.evaluation import subset

LOOKED_AT = 2000  # items
SHORT_STRING = 4  # words; references below it are strings to get right letter by letter
PIECES = ("bpe", "tokenizer")  # levels at which tokens are pieces of words
SUMMARY = 3  # times as many words in sources as in references
MANY_REFERENCES = 4  # an item, on average
BATCH_TOKENS = 8000  # of a batch, sources and references together
ROWS = 32, 256  # of a batch, at least and at most
UPDATES_EACH_EPOCH = 32  # at least, where the data are few
LARGE = 20_000  # pairs, from which the policy is larger, and less is dropped out

REPORTED = {  # beside the reward itself: figures of all test items at once
    "edit": ("exact", "cer"),
    "cer": ("exact", "chrf"),
    "cider_d": ("bleu", "rouge_l"),
    "rouge_l": ("rouge_1", "chrf"),
    "bleu": ("chrf", "ter"),
    "chrf": ("bleu", "cer"),
}


@dataclass(frozen=True)
class Looks:
    """What the texts of the training part look like; means over items."""

    items: int  # different sources
    references: float  # of an item
    source_words: float
    reference_words: float
    tokens: float  # of source and reference together
    level: tuple[str, str]

    def plain(self) -> dict[str, Any]:
        """Return the numbers by name."""
        return asdict(self)


def looks_of(env: Any) -> Looks:
    """Look at the items of a task, at most 2,000 of them."""
    corpus = env.corpus
    index = subset(env.size, LOOKED_AT)
    context = env.contexts(index)
    lengths = (context["source"] != env.source_vocab.pad).sum(1).tolist()
    sources = env.source_vocab.decode_batch(context["source"].tolist(), lengths)
    items = corpus.texts(index.to(corpus.starts.device))
    references = [text for texts in items for text in texts]
    tokens = float(np.mean(lengths)) + float(corpus.references.lengths.double().mean())
    return Looks(
        items=env.size,
        references=round(len(references) / len(items), 2),
        source_words=round(_words(sources), 1),
        reference_words=round(_words(references), 1),
        tokens=round(tokens, 1),
        level=tuple(corpus.notes["level"]),
    )


def _words(texts: list[str]) -> float:
    return float(np.mean([len(text.split()) for text in texts]))


def reward_for(looks: Looks) -> tuple[str, str]:
    """Return the reward for texts of these looks, and the reason: the first rule that holds."""
    if looks.reference_words < SHORT_STRING:
        counted = "cer" if looks.level[1] in PIECES else "edit"  # which would count words there
        return counted, f"references are short strings ({looks.reference_words:g} words on average)"
    if looks.source_words >= SUMMARY * looks.reference_words:
        times = looks.source_words / looks.reference_words
        return (
            "rouge_l",
            f"sources have {times:.1f} times as many words as references, as summarised texts do",
        )
    if looks.references >= MANY_REFERENCES:
        return "cider_d", f"a source has {looks.references:g} references on average"
    if looks.level[1] != "word":
        return "chrf", "references are sentences of an open vocabulary"
    return "bleu", "references are sentences of a closed vocabulary"


def rows_for(looks: Looks) -> int:
    """Return the rows of a batch: a power of two from 32 to 256.

    It is the one that comes nearest to 8,000 tokens, or, where that is smaller, the largest with which an
    epoch has 32 updates, because few data are learned faster in small batches.
    """
    rows = int(2.0 ** round(math.log2(BATCH_TOKENS / max(1.0, looks.tokens))))
    few = int(2.0 ** math.floor(math.log2(max(1.0, looks.items / UPDATES_EACH_EPOCH))))
    return min(max(min(rows, few), ROWS[0]), ROWS[1])


def sizes_for(looks: Looks) -> dict[str, Any]:
    """Return the sizes of an encoder and decoder for that many pairs."""
    if looks.items * looks.references < LARGE:
        return {"hidden": 128, "embedding": 64, "dropout": 0.3}
    return {"hidden": 256, "embedding": 128, "dropout": 0.2}
