"""Summaries: read a text, write its headline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from typing_extensions import Unpack

from rlseq.data.encode import Level, Reading, load
from rlseq.data.locate import Where
from rlseq.data.news import news
from rlseq.envs.corpus_task import CorpusTask, TextOptions, given_words
from rlseq.mdp.task_spec import TaskSpec
from rlseq.types import HeldOut, RewardLike
from rlseq.utils.arguments import PositiveInt, checked_arguments


class Summary(CorpusTask):
    """Read a text, write its headline. Reward: ROUGE-L.

    Args:
        path: pairs of text and summary, as of `rlseq/Parallel-v0`; a generated newspaper when not given.
        split: "train", "dev" or "test".
        reward: a name of `rlseq metrics`, such as "rouge_l", "bleu" or "chrf", or any reward.
        level: "char", "word" or "bpe"; chosen by the data when not given.
        max_len: T, EOS included; the longest reference when not given. Longer references are left out.
        min_count: words that training has less often are unknown.
        vocab_size: V at most, the most frequent words.
        skip_bad: pass over lines that cannot be used; False refuses them.
        words: vocabularies and sizes of a trained policy, in place of those of the training part.
        **options: of a pretrained model's tokenizer, see `TextOptions` and docs/guides/tokenizers.md;
            and those of all tasks.
    """

    held_out: ClassVar[HeldOut] = {"split": "test"}

    @checked_arguments
    def __init__(
        self,
        *,
        path: Where | Mapping[str, Where] | None = None,
        split: str = "train",
        reward: RewardLike = "rouge_l",
        level: Level = None,
        max_len: PositiveInt | None = None,
        min_count: int = 1,
        vocab_size: PositiveInt | None = None,
        skip_bad: bool = False,
        words: TaskSpec | None = None,
        **options: Unpack[TextOptions],
    ) -> None:
        chosen = {"level": level, "min_count": min_count if min_count > 1 else None, "vocab_size": vocab_size}
        given = given_words(words, options, True, **chosen)
        corpus = load(
            news(path), split, Reading(level, min_count, vocab_size, skip_bad=skip_bad, words=given)
        )
        super().__init__(
            corpus, reward=reward, metrics=("rouge_l", "exact"), max_len=max_len, words=words, **options
        )
