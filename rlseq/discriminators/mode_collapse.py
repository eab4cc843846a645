"""Mode collapse: statistics of generated texts beside as many real ones, and warnings."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from rlseq.discriminators.texts import TextBatch
from rlseq.metrics.diversity import SelfBLEU
from rlseq.types import Metrics
from rlseq.utils.arguments import Checked, PositiveInt, Share


class ModeCollapse(UserWarning):
    """A warning that a generator repeats itself."""


@dataclass(frozen=True)
class Collapse(Checked):
    """The share of distinct texts, and their Self-BLEU (Zhu et al. 2018), compared with real texts.

    Args:
        texts: the number of texts that are compared, of each kind.
        distinct: warn below this part of the share of distinct real texts,
        alike: or when Self-BLEU has come this part of the way from that of real texts to 100.
    """

    texts: PositiveInt = 256
    distinct: Share = 0.5
    alike: Share = 0.5

    def __call__(self, real: TextBatch, generated: TextBatch) -> Metrics:
        """Return both figures of the generated texts, and warn where they are too low or too high."""
        number = min(self.texts, len(real.tokens), len(generated.tokens))
        if number < 2:
            return {}
        wanted, got = (varied(texts.take(slice(number))) for texts in (real, generated))
        if got[0] < self.distinct * wanted[0]:
            self._warn(f"{got[0]:.0%} of its texts are distinct, {wanted[0]:.0%} of real ones", number)
        if got[1] > wanted[1] + self.alike * (100 - wanted[1]):
            self._warn(f"Self-BLEU is {got[1]:.0f}, that of real texts {wanted[1]:.0f}", number)
        return {"distinct_texts": got[0], "self_bleu": got[1]}

    def _warn(self, what: str, number: int) -> None:
        message = (
            f"the generator repeats itself: of {number} texts, {what}; stop here and take an earlier "
            "checkpoint, or train with a lower lr, entropy, or a share of likelihood (mle)"
        )
        warnings.warn(message, ModeCollapse, stacklevel=4)


def varied(texts: TextBatch) -> tuple[Tensor, Tensor]:
    """Return the share of distinct texts, and their mean Self-BLEU."""
    rows = torch.cat([texts.tokens.where(texts.mask, 0), texts.mask.sum(1, keepdim=True)], 1)
    return torch.tensor(len(torch.unique(rows, dim=0)) / len(rows)), SelfBLEU()(*texts).mean()
