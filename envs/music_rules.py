"""Rules that judge a melody: its notes are of the key, its bars are full, and it ends on the tonic."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rlseq.data.notes import BAR, MODES, eighths_of, scale_of, sound_of, tonic_of
from rlseq.metrics.algebra import WeightedSum
from rlseq.types import Context, Reward
from rlseq.vocab import Vocab

METRE, TONIC, MODE = 0, 1, 2  # places of a source
ROUNDING_EIGHTHS = 1e-6  # eighths


class MusicRules:
    """Rules by name, as tables of what each word sounds like.

    Args:
        vocab: of what is written.
        source_vocab: whose first words of a source are metre, tonic and mode.
        bars: how many are to be written.
    """

    def __init__(self, vocab: Vocab, source_vocab: Vocab, bars: int) -> None:
        sounds = [sound_of(word) for word in vocab.words]
        self.bars = bars
        self.pitch = torch.tensor([-1 if s is None or s.pitch is None else s.pitch for s in sounds])
        self.eighths = torch.tensor([0.0 if s is None else float(s.eighths) for s in sounds])
        self.bar = vocab.words.index(BAR) if BAR in vocab.words else -1
        read = source_vocab.words
        self.full = torch.tensor([_full(word) for word in read])
        self.tonic = torch.tensor([tonic_of(w[2:]) if w.startswith("K:") else -1 for w in read])
        self.scale = torch.tensor([[step in _steps(word) for step in range(12)] for word in read])
        self.rules: dict[str, Reward] = {"key": self.key, "metre": self.metre, "closure": self.closure}
        self.form = WeightedSum([(1 / len(self.rules), rule) for rule in self.rules.values()])

    def key(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the share of the notes that are of the key, 0 where there are none, `[B]`."""
        pitch, source = self._pitch(tokens, mask), context["source"]
        above = (pitch - self._of(self.tonic, source[:, TONIC : TONIC + 1])) % 12
        fits = self._of(self.scale, source[:, MODE]).gather(1, above) & (pitch >= 0)
        return fits.sum(1) / (pitch >= 0).sum(1).clamp(min=1)

    def metre(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return how many of the bars wanted are full, as a share of these or of those written if more."""
        eighths = self._of(self.eighths, tokens) * mask
        which = ((tokens == self.bar) & mask).long().cumsum(1)
        sums = torch.zeros_like(eighths).scatter_add(1, which, eighths)
        full = self._of(self.full, context["source"][:, METRE]).unsqueeze(1)
        right = ((sums - full).abs() < ROUNDING_EIGHTHS) & (full > 0)
        return right[:, : self.bars].sum(1) / (which[:, -1] + 1).clamp(min=self.bars)

    def closure(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return 1 where the last note is the tonic, else 0, `[B]`."""
        pitch = self._pitch(tokens, mask)
        places = torch.arange(1, pitch.shape[1] + 1, device=pitch.device)
        last = ((pitch >= 0) * places).argmax(1, keepdim=True)
        tonic = self._of(self.tonic, context["source"][:, TONIC])
        final = pitch.gather(1, last).squeeze(1)
        return ((final % 12 == tonic) & (final >= 0)).float()

    def _pitch(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self._of(self.pitch, tokens).where(mask, -1)

    def _of(self, table: Tensor, ids: Tensor) -> Tensor:
        return table.to(ids.device)[ids]


def _full(word: str) -> float:
    return float(eighths_of(word[2:])) if word.startswith("M:") else 0.0


def _steps(word: str) -> Sequence[int]:
    """Return the notes of a mode, as semitones above the tonic."""
    return scale_of("C", word) if word in MODES else ()
