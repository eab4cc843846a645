"""Rows of similar length together: a batch is scored in parts, so that little work is done on padding.

After likelihood training most texts are much shorter than the longest of their batch: two thirds of the
places of `[B, T]` are padding. Rows are independent, so each part needs to be as wide as its own longest text
and source only. On a GPU, where a part costs launches rather than multiplications, batches are not divided.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rlseq.types import Context, Evaluation, Logits, Rollout
from rlseq.utils.masks import lengths_of

OVERHEAD = 100  # steps of a row that take as long as a further part does beside its own; 30 … 200 measured
LEAST_SAVED = 0.15  # share of the cost that a division must save


@dataclass(frozen=True, eq=False)
class Parts:
    """A division of the rows of a batch.

    Args:
        rows: of each part.
        widths: the number of steps of each part.
        steps: T of the batch.
    """

    rows: Sequence[Tensor]
    widths: Sequence[int]
    steps: int

    def of(self, batch: Rollout, pad: int | None) -> list[Rollout]:
        """Return the parts of a batch, without the fields that no policy reads.

        Args:
            batch: the batch.
            pad: the id that fills up short sources; None if sources are left as wide as they are.
        """
        read = replace(batch, demonstrations=None, features=None, action_values=None)
        parts = [read.take(rows).trimmed() for rows in self.rows]
        if pad is None:
            return parts
        return [replace(part, context=narrow_source(part.context, pad)) for part in parts]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Return tensors `[b, t, …]` of the parts as one, `[B, T, …]`, with zeros after their last steps."""
        padded = [F.pad(x, (0, 0) * (x.ndim - 2) + (0, self.steps - x.shape[1])) for x in parts]
        return torch.cat(padded)[torch.cat([*self.rows]).argsort()]

    def joined(self, evaluations: Sequence[Evaluation]) -> Evaluation:
        """Return the evaluations of the parts as one of the batch."""

        def joined(name: str) -> Any:
            values = [getattr(each, name) for each in evaluations]
            if any(value is None for value in values):
                return None
            return JoinedLogits(self, values) if name == "logits" else self.join(values)

        return Evaluation(*map(joined, Evaluation._fields))


@dataclass(frozen=True, eq=False)
class JoinedLogits:
    """The logits of a batch that was scored in parts."""

    parts: Parts
    logits: Sequence[Logits]

    @property
    def features(self) -> Tensor:
        """See `rlseq.types.Logits`."""
        return self.parts.join([each.features for each in self.logits])

    def reduce(self, what: Callable[..., Tensor], *others: Logits | Tensor) -> Tensor:
        """See `rlseq.types.Logits`."""
        theirs = [self._parts(other) for other in others]
        pairs = enumerate(self.logits)
        return self.parts.join([each.reduce(what, *(other[i] for other in theirs)) for i, each in pairs])

    def divergence(self, other: Logits) -> Tensor:
        """See `rlseq.types.Logits`."""
        pairs = zip(self.logits, self._parts(other), strict=True)
        return self.parts.join([each.divergence(another) for each, another in pairs])

    def map(self, change: Callable[[Logits], Logits]) -> JoinedLogits:
        """Return the logits with those of every part changed."""
        return replace(self, logits=[change(each) for each in self.logits])

    def divided(self, other: Any) -> JoinedLogits:
        """Return other logits of the same batch, divided as these are."""
        return replace(self, logits=self._parts(other))

    def _parts(self, other: Any) -> Sequence[Any]:
        """Return the parts of other logits of the same batch, or of a number for every state."""
        divided = zip(self.parts.rows, self.parts.widths, strict=True)
        if isinstance(other, Tensor):
            return [other[rows, :width] for rows, width in divided]
        if hasattr(other, "part"):
            return [other.part(rows, width) for rows, width in divided]
        if not isinstance(other, JoinedLogits) or other.parts.widths != self.parts.widths:
            raise TypeError("logits can be compared with logits of the same batch, and these are of another")
        return other.logits


def parts_of(mask: Tensor) -> Parts | None:
    """Return the division of a batch that costs least; None if the batch as it is costs hardly more.

    Args:
        mask: `[B, T]`, True on real actions.
    """
    rows, steps = mask.shape
    if mask.device.type != "cpu":
        return None
    last = lengths_of(mask)  # a part has one step at least
    order = last.argsort(descending=True, stable=True)
    widths, counts = (x.tolist() for x in torch.unique_consecutive(last[order], return_counts=True))
    cost, sizes, longest = _division(widths, counts)
    if cost > (1 - LEAST_SAVED) * (steps * rows + OVERHEAD):
        return None
    # In ascending order, so that texts of one source stay neighbours.
    return Parts([part.sort().values for part in torch.split(order, sizes)], longest, steps)


def _division(lengths: Sequence[int], counts: Sequence[int]) -> tuple[int, list[int], list[int]]:
    """Return the least cost of parts, in steps of a row, how many rows each has, and their longest texts.

    The cost is Σ rows · longest + OVERHEAD over the parts. All texts of one length are in one part.

    Args:
        lengths: of texts, each once, in descending order.
        counts: how many texts are so long.
    """
    before = [0, *accumulate(counts)]  # rows that are longer
    best: list[tuple[int, list[int], list[int]]] = [(0, [], [])]  # of so many of the lengths
    for end in range(1, len(lengths) + 1):
        ways = []
        for first, (cost, sizes, longest) in enumerate(best):
            size, length = before[end] - before[first], lengths[first]
            ways.append((cost + size * length + OVERHEAD, [*sizes, size], [*longest, length]))
        best.append(min(ways))
    return best[-1]


def narrow_source(context: Context, pad: int) -> Context:
    """Return a context whose sources are as wide as the longest of them; this waits for the device."""
    return {**context, "source": context["source"][:, : int(last_word(context["source"], pad))]}


def last_word(source: Tensor, pad: int) -> Tensor:
    """Return the number of words of the longest source, at least 1, on the device."""
    used = (source != pad).any(0)
    places = torch.arange(1, len(used) + 1, device=used.device)
    return (used * places).amax().clamp(min=1)
