"""Judges of a text that is to say the same in another style: its style, its fluency, its content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import log

import torch
from torch import Tensor

from rlseq.data.corpus import Corpus
from rlseq.metrics.ngram_model import NgramModel
from rlseq.types import Context, Reward

MARKED = 3.0  # times that a word is as frequent in one corpus as in the other, from which it marks a style
EACH_TENTH = 10  # each tenth text tells how likely texts are that a model has not seen


class StyleJudges:
    """Judges that are made of two corpora, one in each style; the same for all parts of a task.

    Args:
        corpus: has the vocabulary, and the sources whose content is to be kept.
        read: texts in the style that is read.
        wanted: texts in the style that is to be written.
    """

    def __init__(self, corpus: Corpus, read: Sequence[str], wanted: Sequence[str]) -> None:
        vocab = corpus.vocab
        end = [] if vocab.eos is None else [vocab.eos]
        of_read, of_wanted = ([[*ids, *end] for ids in vocab.encode_batch(texts)] for texts in (read, wanted))
        self.read, self.wanted = (NgramModel(texts, len(vocab)) for texts in (of_read, of_wanted))
        kept = of_wanted[::EACH_TENTH]
        left = [text for n, text in enumerate(of_wanted) if n % EACH_TENTH] or kept
        self.usual = _mean_of(NgramModel(left, len(vocab)), kept)
        self.corpus, self.weight = corpus, content_weights(read, wanted)

    @property
    def by_name(self) -> Mapping[str, Reward]:
        """The judges by name."""
        return {"style": self.style, "fluency": self.fluency, "content": self.content}

    def style(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the probability of the wanted style, p(y) / (p(y) + q(y)) by their models, `[B]`."""
        wanted, read = (model.log_probs(tokens, mask).sum(1) for model in (self.wanted, self.read))
        return (wanted - read).sigmoid()

    def fluency(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the probability of a word by the model of the wanted style, 1 where texts of it have less.

        A geometric mean over the text, divided by that of texts of the style which a model has not seen.
        """
        return (self.wanted.mean(tokens, mask) - self.usual).clamp(max=0).exp()

    def content(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the F1 of the words that are kept, but for those that mark a style, by their rarity."""
        written = self.corpus.vocab.decode_batch(tokens.tolist(), mask.sum(1).tolist())
        vocab, source = self.corpus.source_vocab, context["source"]
        assert vocab is not None
        read = vocab.decode_batch(source.tolist(), (source != vocab.pad).sum(1).tolist())
        scores = [shared(self.weight, *pair) for pair in zip(read, written, strict=True)]
        return torch.tensor(scores, device=tokens.device)


def shared(weight: Mapping[str, float], one: str, other: str) -> float:
    """Return the F1 of the different words of two texts, each with its weight; 1 of texts without any."""
    left, right = set(one.split()), set(other.split())
    both, *apart = (sum(weight.get(word, 1.0) for word in words) for words in (left & right, left, right))
    return 2 * both / sum(apart) if sum(apart) else 1.0


def content_weights(read: Sequence[str], wanted: Sequence[str]) -> dict[str, float]:
    """Return log(texts / texts with the word), 0 of words three times rarer in one corpus."""
    found = [Counter(word for text in texts for word in set(text.split())) for texts in (read, wanted)]
    total, weights = len(read) + len(wanted), {}
    for word in found[0] | found[1]:
        here, there = (found[0][word] + 1) / (len(read) + 1), (found[1][word] + 1) / (len(wanted) + 1)
        marks = abs(log(here / there)) > log(MARKED)
        weights[word] = 0.0 if marks else log((total + 1) / (found[0][word] + found[1][word]))
    return weights


def _mean_of(model: NgramModel, texts: Sequence[Sequence[int]]) -> float:
    """Return the mean log-probability of the words of texts."""
    width = max(map(len, texts))
    tokens = torch.tensor([[*text, *[0] * (width - len(text))] for text in texts])
    mask = torch.arange(width) < torch.tensor([len(text) for text in texts]).unsqueeze(1)
    return float(model.mean(tokens, mask).mean())
