"""Summaries: read a text, write its headline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from typing_extensions import Unpack

from rlseq.data.encode import Level, load
from rlseq.data.locate import Where
from rlseq.data.news import news
from rlseq.data.unpaired import without_pairs
from rlseq.envs.corpus_task import CorpusOptions, CorpusTask, reading_of
from rlseq.types import HeldOut, RewardLike
from rlseq.utils.arguments import checked_arguments


class Summary(CorpusTask):
    """Read a text, write its headline. Reward: ROUGE-L.

    Args:
        path: pairs of text and summary, as of `rlseq/Parallel-v0`; a generated newspaper when not given.
        split: "train", "dev" or "test".
        reward: a name of `rlseq metrics`, such as "rouge_l", "bleu" or "chrf", or any reward.
        pairs: False trains without them: half of the texts, each with the most similar summary of the other
            half, which was written for another text. Dev and test keep theirs.
        level: "char", "word" or "bpe"; chosen by the data when not given.
        **options: see `CorpusOptions`, and of a pretrained model's tokenizer docs/guides/tokenizers.md.
    """

    held_out: ClassVar[HeldOut] = {"split": "test"}

    @checked_arguments
    def __init__(
        self,
        *,
        path: Where | Mapping[str, Where] | None = None,
        split: str = "train",
        reward: RewardLike = "rouge_l",
        pairs: bool = True,
        level: Level = None,
        **options: Unpack[CorpusOptions],
    ) -> None:
        corpus = load(news(path), split, reading_of(options, level, reads=True))
        if not pairs and split == "train":
            corpus = without_pairs(corpus)
        super().__init__(corpus, reward=reward, metrics=("rouge_l", "exact"), **options)
