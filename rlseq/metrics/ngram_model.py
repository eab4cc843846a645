"""An n-gram language model with Witten–Bell smoothing (Bell, Cleary & Witten 1990).

    pₙ(w | h) = ( c(h w) + t(h) pₙ₋₁(w | h′) ) / ( c(h) + t(h) ),     p₀ = 1 / V

c counts, t(h) is the number of different words after h, and h′ is h without its first word.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rlseq.metrics.ngrams import HashTable
from rlseq.utils.arguments import PositiveInt, checked_arguments

LARGEST_CODE = 2**62


class NgramModel:
    """Probabilities of the next word after the last n − 1 words, counted in texts.

    Args:
        texts: ids of each text; the end of a text is a word as others are.
        words: V, the number of words.
        order: n.
    """

    @checked_arguments
    def __init__(self, texts: Sequence[Sequence[int]], words: PositiveInt, order: PositiveInt = 3) -> None:
        if (words + 1) ** order >= LARGEST_CODE:
            raise ValueError(f"an n-gram of order={order} of {words:,} words has no number; lower order")
        self.words, self.order = words, order
        width = max(map(len, texts), default=0)
        rows = torch.tensor([[*text, *[0] * (width - len(text))] for text in texts], dtype=torch.int64)
        mask = torch.arange(width) < torch.tensor([len(text) for text in texts]).unsqueeze(1)
        self.tables = [_counts(*self._codes(rows, n), mask) for n in range(1, order + 1)]

    def log_probs(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return log p of every word of texts, 0 on padding, `[B, T]`; counts stay on the CPU."""
        words = tokens.cpu()
        probs = torch.full(words.shape, 1 / self.words, dtype=torch.float64)
        for n, tables in enumerate(self.tables, 1):
            history, gram = self._codes(words, n)
            seen, followed, after = (
                table.find(codes).double()
                for table, codes in zip(tables, (gram, history, history), strict=True)
            )
            total = followed + after
            probs = torch.where(total > 0, (seen + after * probs) / total.clamp(min=1), probs)
        return torch.where(mask, probs.log().float().to(tokens.device), 0.0)

    def mean(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return the mean log-probability of the words of each text, `[B]`."""
        return self.log_probs(tokens, mask).sum(1) / mask.sum(1).clamp(min=1)

    def _codes(self, tokens: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """Return numbers of the n − 1 words before each word, V before the first, and of these with it."""
        before = torch.nn.functional.pad(tokens, (n - 1, 0), value=self.words)
        history = torch.zeros_like(tokens)
        for place in range(n - 1):
            history = history * (self.words + 1) + before[:, place : place + tokens.shape[1]]
        return history, history * (self.words + 1) + tokens


def _counts(history: Tensor, gram: Tensor, mask: Tensor) -> list[HashTable]:
    """Return how often each n-gram occurs, how often its history does, and with how many next words."""
    grams, counts = _counted(gram[mask])
    histories, followed = _counted(history[mask])
    whose, after = _counted(_counted(torch.stack([history[mask], gram[mask]], 1))[0][:, 0])
    return [HashTable(grams, counts), HashTable(histories, followed), HashTable(whose, after)]


def _counted(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the different rows of a tensor, and how often each occurs."""
    found, counts = np.unique(rows.numpy(), axis=0, return_counts=True)
    return torch.from_numpy(found), torch.from_numpy(counts)
