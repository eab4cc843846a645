"""Mode collapse: statistics of generated texts beside as many real ones, and warnings."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
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
        wanted, got = map(varied, _on_host([texts.take(slice(number)) for texts in (real, generated)]))
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


def _on_host(batches: Sequence[TextBatch]) -> list[tuple[Tensor, Tensor]]:
    """Return the words of batches and where they are real, on the host, which waits for one copy."""
    parts = [torch.cat([texts.tokens, texts.mask], 1) for texts in batches]
    copied = torch.split(torch.cat(parts, 1).cpu(), [part.shape[1] for part in parts], 1)
    pairs = (part.chunk(2, 1) for part in copied)
    return [(tokens, mask.bool()) for tokens, mask in pairs]


def varied(texts: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the share of distinct texts (words, and where they are real), and their mean Self-BLEU."""
    tokens, mask = texts
    rows = torch.cat([tokens.where(mask, 0), mask.sum(1, keepdim=True)], 1)
    share = torch.tensor(len(torch.unique(rows, dim=0)) / len(rows))
    return share, SelfBLEU()(tokens, mask, {}).mean()
