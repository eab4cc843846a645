"""Extractive summaries: keep or drop each sentence of a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import compress
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Unpack

from rlseq.data.encode import load
from rlseq.data.locate import Where
from rlseq.data.news import news, sentences_of
from rlseq.envs.corpus_task import reading_of
from rlseq.mdp.sequence_env import EnvOptions, SequenceEnv
from rlseq.metrics.registry import METRICS
from rlseq.types import Context, HeldOut, Reward, RewardLike
from rlseq.utils.arguments import PositiveInt, checked_arguments
from rlseq.utils.errors import pick
from rlseq.vocab import EOS, Vocab


class Extract(SequenceEnv):
    """Read a text, keep or drop each of its sentences. Reward: ROUGE-L of the kept ones with the summaries.

    A sentence ends in . ! or ?. Words that training does not have count as wrong.

    Args:
        path: pairs of text and summary, as of `rlseq/Parallel-v0`; a generated newspaper when not given.
        split: "train", "dev" or "test".
        reward: "rouge_l", or any reward.
        sentences: at most, of a text; the others are neither kept nor dropped.
        skip_bad: pass over lines that cannot be used; False refuses them.
        **options: see `EnvOptions`.
    """

    held_out: ClassVar[HeldOut] = {"split": "test"}

    @checked_arguments
    def __init__(
        self,
        *,
        path: Where | Mapping[str, Where] | None = None,
        split: str = "train",
        reward: RewardLike = "rouge_l",
        sentences: PositiveInt = 12,
        skip_bad: bool = False,
        **options: Unpack[EnvOptions],
    ) -> None:
        corpus = load(news(path), split, reading_of({"skip_bad": skip_bad}, "word", reads=True))
        assert corpus.sources is not None
        source = corpus.contexts(torch.arange(len(corpus)), int(corpus.sources.lengths.max()), 1)["source"]
        assert corpus.source_vocab is not None
        lengths = corpus.sources.lengths.tolist()
        texts = corpus.source_vocab.decode_batch(source.tolist(), lengths)
        self.read, self.parts_of = corpus, [sentences_of(text)[:sentences] for text in texts]
        count = torch.tensor([len(parts) for parts in self.parts_of])
        own: dict[str, Reward] = {"rouge_l": self.rouge_l}
        super().__init__(
            vocab=Vocab((EOS, "drop", "keep")),
            source_vocab=corpus.source_vocab,
            max_len=int(count.max()) + 1,
            reward={reward: pick(own, reward, "reward")} if isinstance(reward, str) else reward,
            items={"source": source, "sentences": count},
            **options,
        )
        self.metrics = {**own, "lead": self.lead, "kept": self.kept}

    def legal(self) -> Tensor:
        """Allow to keep or drop while there are sentences, and then to end."""
        going_on = self.length < self.context["sentences"]
        return torch.stack([~going_on, going_on, going_on], 1)

    def rouge_l(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return ROUGE-L of the sentences that are kept, `[B]`."""
        chosen = ((tokens == 2) & mask).tolist()
        rows = zip(context["index"].tolist(), chosen, strict=True)
        return self._scored(context, [" ".join(compress(self.parts_of[item], keep)) for item, keep in rows])

    def lead(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return ROUGE-L of the first sentence alone, a baseline, `[B]`."""
        return self._scored(context, [self.parts_of[item][0] for item in context["index"].tolist()])

    def kept(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the share of the sentences that are kept, `[B]`."""
        return ((tokens == 2) & mask).sum(1) / context["sentences"]

    def _scored(self, context: Context, texts: Sequence[str]) -> Tensor:
        references = self.read.texts(context["index"].cpu())
        scores: Tensor = METRICS["rouge_l"].fit(references).score(texts)
        return scores.to(self.device)
