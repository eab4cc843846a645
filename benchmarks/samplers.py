"""Samplers that learn nothing but counts: the rows that show how NLL_oracle alone can be gamed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor

Sampler = Callable[[int, torch.Generator], Tensor]


def uniform(words: int, length: int) -> Sampler:
    """Any word with equal probability."""
    return lambda n, generator: torch.randint(words, (n, length), generator=generator)


def copies(training: Tensor) -> Sampler:
    """Texts of the training set."""
    return lambda n, generator: training[torch.randint(len(training), (n,), generator=generator)]


def ngram(training: Tensor, order: int) -> Sampler:
    """Unsmoothed: what follows the last `order` − 1 words somewhere in the training set.

    Where these only ever ended a text, any word of the set.
    """
    length, words = training.shape[1], training.flatten()
    if order == 1:
        return lambda n, generator: words[torch.randint(len(words), (n, length), generator=generator)]
    followers: dict[tuple[int, ...], list[int]] = defaultdict(list)
    anything = words.tolist()
    start = (-1,) * (order - 1)  # so that a text begins as texts begin
    for text in training.tolist():
        padded = (*start, *text)
        for t in range(length):
            followers[padded[t : t + order - 1]].append(padded[t + order - 1])

    def sample(n: int, generator: torch.Generator) -> Tensor:
        texts = []
        for draws in torch.rand(n, length, generator=generator, dtype=torch.float64).tolist():
            text = list(start)
            for draw in draws:
                known = followers.get(tuple(text[len(text) - order + 1 :]), anything)
                text.append(known[int(draw * len(known))])
            texts.append(text[order - 1 :])
        return torch.tensor(texts)

    return sample
