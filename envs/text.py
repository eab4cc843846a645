"""Unconditional text from a file with one text a line: there is no source."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, lru_cache, partial
from random import Random
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Unpack

from rlseq.data.corpus import Corpus
from rlseq.data.encode import load
from rlseq.data.formats import Pair
from rlseq.data.locate import TEXTS, Origin, Where, find
from rlseq.envs.corpus_task import CorpusOptions, CorpusTask, reading_of
from rlseq.metrics import BLEU
from rlseq.metrics.encode import RefTable
from rlseq.metrics.fitting import read_words_or_tokens
from rlseq.types import Context, HeldOut, Reward, RewardLike
from rlseq.utils.arguments import checked_arguments
from rlseq.vocab import TokenizerVocab


class Text(CorpusTask):
    """Write texts like those of a corpus. Reward: BLEU with every text of the corpus as a reference.

    PG-BLEU, a baseline of Yu et al. 2017. Alone it is gamed by one likely text, or by a copy: look at
    "distinct_2" and "copied" beside it.

    Args:
        path: a file with a text a line, or a folder with train.txt, dev.txt and test.txt; a generated grammar
            when not given.
        split: "train", "dev" or "test".
        level: "char", "word" or "bpe"; words where training knows 98 % of those of dev, else characters or
            subwords, when not given.
        reward: "bleu_2", "bleu_3", "bleu_4", of the tokens written, the end among them; another name of
            `rlseq metrics`; or any reward.
        **options: see `CorpusOptions`, and of a pretrained model's tokenizer docs/guides/tokenizers.md.
    """

    held_out: ClassVar[HeldOut] = {"split": "test"}

    @checked_arguments
    def __init__(
        self,
        *,
        path: Where | Mapping[str, Where] | None = None,
        split: str = "train",
        level: str | None = None,
        reward: RewardLike = "bleu_3",
        **options: Unpack[CorpusOptions],
    ) -> None:
        origins = {"all": Origin(lambda: iter(toy_texts()))} if path is None else find(path, TEXTS)
        corpus = load(origins, split, reading_of(options, level, reads=False))
        own: dict[str, Reward] = {f"bleu_{n}": AgainstAll(corpus, n) for n in (2, 3, 4)}
        own["copied"] = partial(copied, corpus)
        reported = ("bleu_2", "bleu_3", "bleu_4", "distinct_2", "copied")
        super().__init__(corpus, reward=reward, metrics=reported, own=own, **options)


class AgainstAll:
    """BLEU of a text with all texts of a corpus as its references, 0 … 1."""

    def __init__(self, corpus: Corpus, order: int) -> None:
        self.order, self.read = order, read_words_or_tokens(corpus)

    @cached_property
    def bleu(self) -> BLEU:
        """The metric, fitted when it is first asked."""
        every = self.read.references(None)
        one = RefTable(every.ids, every.lengths, every.item * 0, every.item, 1, every.items)
        return BLEU(one, order=self.order, **self.read.options)

    def __call__(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the reward, `[B]`."""
        return self.bleu(*self.read.written(tokens, mask), {"index": torch.zeros_like(tokens[:, 0])}) / 100


def copied(corpus: Corpus, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    """Return 1 where a text is one of the corpus, word for word, else 0."""
    known = _known(corpus)
    texts = corpus.vocab.decode_batch(tokens.tolist(), mask.sum(1).tolist())
    return torch.tensor([float(text in known) for text in texts], device=tokens.device)


@lru_cache(maxsize=4)
def _known(corpus: Corpus) -> frozenset[str]:
    texts, vocab = [text for item in corpus.texts() for text in item], corpus.vocab
    if isinstance(vocab, TokenizerVocab):  # as it can be written: with one blank for several, say
        texts = vocab.decode_batch(vocab.encode_batch(texts))
    return frozenset(texts)


# ── the embedded default ─────────────────────────────────────────────────────────────────────────────

RULES = """
SENTENCE = WHO DOES WHAT | WHO DOES WHAT WHERE | WHEN WHO DOES WHAT | WHO GOES WHERE | WHEN WHO GOES WHERE
WHO      = ONE | ONE | ONE and ONE
ONE      = the PERSON | the KIND PERSON | a PERSON | my PERSON
PERSON   = sailor | teacher | child | baker | poet | farmer | queen | stranger
KIND     = old | young | quiet | happy | tired | clever
DOES     = buys | paints | finds | carries | forgets | wants
WHAT     = the THING | a SUCH THING | the COLOUR THING | nothing
SUCH     = small | heavy | broken | new
COLOUR   = red | blue | green | golden
THING    = boat | lamp | letter | apple | clock | violin | map
GOES     = sleeps | waits | walks | sings | dreams
WHERE    = in the PLACE | near the PLACE | behind the PLACE
PLACE    = harbour | garden | market | forest | kitchen | library
WHEN     = today | in the evening | every morning | long ago
"""
GRAMMAR = {
    symbol.strip(): [choice.split() for choice in choices.split("|")]
    for symbol, choices in (rule.split("=") for rule in RULES.strip().splitlines())
}


@lru_cache(maxsize=1)
def toy_texts(texts: int = 5000, seed: int = 0) -> tuple[Pair, ...]:
    """Draw different sentences of the grammar."""
    draw, found = Random(seed), dict[str, None]()
    while len(found) < texts:
        found[_sentence("SENTENCE", draw)] = None
    return tuple(Pair(None, text) for text in found)


def _sentence(symbol: str, draw: Random) -> str:
    """Expand a symbol."""
    if symbol not in GRAMMAR:
        return symbol
    return " ".join(_sentence(part, draw) for part in draw.choice(GRAMMAR[symbol]))
