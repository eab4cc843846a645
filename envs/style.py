"""Style transfer without pairs: read a text of one corpus, say the same in the style of another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random
from typing import ClassVar

from typing_extensions import Unpack

from rlseq.data.encode import load
from rlseq.data.formats import Pair
from rlseq.data.locate import TEXTS, Origin, Where, find
from rlseq.data.unpaired import texts_at, with_nearest
from rlseq.envs.corpus_task import CorpusOptions, CorpusTask, reading_of
from rlseq.envs.style_judges import StyleJudges
from rlseq.types import HeldOut, RewardLike
from rlseq.utils.arguments import checked_arguments
from rlseq.vocab import LEVELS, Vocab


class Style(CorpusTask):
    """Say the same in another style. Reward: a style classifier, a language model and the content kept.

    There are no pairs. For likelihood to begin with, the reference of a text is the text of the other corpus
    that has most words in common with it; nobody wrote it as an answer.

    Args:
        path: texts in the style that is read: a .txt with a text a line, or a folder of parts; complaints of
            a small grammar of reviews when neither corpus is given.
        target: texts in the style that is to be written, as `path`; praise when neither is given.
        split: "train", "dev" or "test", of the texts that are read.
        reward: parts and their weights; a name of `rlseq metrics`; or any reward.
        level: "char", "word" or "bpe".
        **options: see `CorpusOptions`, and of a pretrained model's tokenizer docs/guides/tokenizers.md.
    """

    held_out: ClassVar[HeldOut] = {"split": "test"}

    @checked_arguments
    def __init__(
        self,
        *,
        path: Where | Mapping[str, Where] | None = None,
        target: Where | Mapping[str, Where] | None = None,
        split: str = "train",
        reward: RewardLike = "style + fluency + content",
        level: str = "word",
        **options: Unpack[CorpusOptions],
    ) -> None:
        if (path is None) != (target is None):
            raise ValueError(f"path and target are two corpora, got path={path}, target={target}")
        read = {"all": Origin(lambda: iter(toy_reviews(0)))} if path is None else find(path, TEXTS)
        reading = reading_of(options, None if level == "word" else level, reads=True)
        wanted = (
            [pair.target for pair in toy_reviews(1)] if target is None else texts_at(target, reading.skip_bad)
        )
        texts = [row.target for origin in read.values() for row in origin.read() if isinstance(row, Pair)]
        if reading.words is None:
            made = LEVELS[level](texts + wanted, reading.min_count, reading.vocab_size)
            reading = replace(reading, words=OneVocab(made))
        pairs = {part: with_nearest(origin, wanted) for part, origin in read.items()}
        corpus = load(pairs, split, reading)
        own = StyleJudges(corpus, texts, wanted).by_name
        super().__init__(corpus, reward=reward, metrics=tuple(own), own=own, **options)


@dataclass(frozen=True)
class OneVocab:
    """One vocabulary of what is read and written, so that words can be kept."""

    vocab: Vocab

    @property
    def source_vocab(self) -> Vocab:
        """The words of sources."""
        return self.vocab


# ── the embedded default ─────────────────────────────────────────────────────────────────────────────

REVIEWS = """
DISH   = soup / bread / fish / cake / rice / salad / pie / tea / coffee / cheese / stew / pasta / tart / ham
WHO    = waiter / cook / owner / baker / host / porter / butcher / barber / tailor / grocer / florist / singer
PLACE  = room / garden / kitchen / terrace / hall / bar / shop / yard / lobby / corner / cellar / balcony
WHEN   = on monday / on friday / at noon / at night / in may / in winter / at dawn / in june / on sunday
tastes = awful delicious / stale fresh / cold warm / bland tasty
acts   = rude kind / slow quick / grumpy cheerful
looks  = dirty clean / dark bright / shabby lovely
feel   = hated loved / regretted enjoyed
"""
REVIEWED = {
    name.strip(): choices.strip().split(" / ")
    for name, choices in (line.split("=") for line in REVIEWS.strip().splitlines())
}
REVIEW_FORMS = (
    "the DISH was tastes and the WHO acts",
    "WHEN we feel the DISH in the PLACE",
    "the PLACE was looks and i feel the DISH",
    "WHEN the WHO was acts and the DISH tastes",
    "i feel the looks PLACE and the WHO",
)


@lru_cache(maxsize=2)
def toy_reviews(style: int, texts: int = 600) -> tuple[Pair, ...]:
    """Draw different reviews, complaints (0) or praise (1); what is reviewed is drawn alike in both."""
    draw, found = Random(style), dict[str, None]()
    while len(found) < texts:
        found[" ".join(_chosen(word, style, draw) for word in draw.choice(REVIEW_FORMS).split())] = None
    return tuple(Pair(None, text) for text in found)


def _chosen(word: str, style: int, draw: Random) -> str:
    """Draw what stands for a word of a form; words in small letters have a choice of each style."""
    choice = draw.choice(REVIEWED[word]) if word in REVIEWED else word
    return choice.split()[style] if word.islower() and choice != word else choice
