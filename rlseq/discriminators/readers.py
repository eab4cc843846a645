"""Readers: what is known after each word of a text, `[B, T, E] -> [B, T, F]`; none looks ahead.

Looking back only costs a judge of whole texts nothing, and lets the same weights judge unfinished ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlseq.arguments import PositiveFloat, PositiveInt, checked_arguments
from rlseq.policies.layer import Layer
from rlseq.policies.positions import Learned
from rlseq.policies.recurrence import Cell, Recurrence, at_end

# SeqGAN's windows and how many filters each has; 30 and 40 are for its texts of 40 words.
WINDOWS = ((1, 100), *((w, 200) for w in (2, 3, 4, 5)), *((w, 100) for w in (6, 7, 8, 9, 10)))
WINDOWS = (*WINDOWS, *((w, 160) for w in (15, 20, 30, 40)))


class Reader(nn.Module):
    """A network that reads embedded words."""

    width: int  # F

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """What is known after each word, `[B, T, F]`."""
        raise NotImplementedError

    def end(self, x: Tensor, mask: Tensor) -> Tensor:
        """What is known after the last, `[B, F]`."""
        return at_end(self(x, mask), mask)


ReaderFactory = Callable[[int, int], Reader]  # (E, longest text) -> reader


class Convolutional(Reader):
    """Windows of several widths, maximum over time, a highway (Zhang & LeCun 2015; Kim 2014; Yu et al. 2017).

    Args:
        embedding: E.
        length: T; windows wider than that are left out.
        windows: widths and how many filters each has.
        share: of the filters that are made.
    """

    @checked_arguments
    def __init__(
        self,
        embedding: int,
        length: int,
        *,
        windows: Sequence[tuple[int, int]] = WINDOWS,
        share: PositiveFloat = 1.0,
    ) -> None:
        super().__init__()
        fitting = [(width, max(1, round(share * filters))) for width, filters in windows if width <= length]
        if not fitting:
            raise ValueError(f"no window of {[width for width, _ in windows]} fits into {length} words")
        self.filters = nn.ModuleList(nn.Conv1d(embedding, n, width) for width, n in fitting)
        self.width = sum(n for _, n in fitting)
        self.highway = Highway(self.width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """A window counts from its last word on."""
        found = [F.pad(f, (mask.shape[1] - f.shape[2], 0)).cummax(2).values for f in self._found(x, mask)]
        return self.highway(torch.cat(found, 1).transpose(1, 2))  # type: ignore[no-any-return]

    def end(self, x: Tensor, mask: Tensor) -> Tensor:
        """The maximum over all windows within the text; 0, the least there is, where none fits."""
        return self.highway(torch.cat([f.amax(2) for f in self._found(x, mask)], 1))  # type: ignore[no-any-return]

    def _found(self, x: Tensor, mask: Tensor) -> list[Tensor]:
        """relu(w·x + b) of every window that ends on a real word, `[B, n, T − width + 1]` each."""
        x, real = x.transpose(1, 2), mask.unsqueeze(1).to(x.dtype)
        found = (f(x).relu_() for f in self.filters)
        return [f * real[:, :, -f.shape[2] :] for f in found]


class Highway(nn.Module):
    """σ(Vx + c) · relu(Wx + b) + (1 − σ(Vx + c)) · x, which starts as nearly x (Srivastava et al. 2015)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.change, self.gate = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.constant_(self.gate.bias, -2.0)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return torch.lerp(x, self.change(x).relu(), self.gate(x).sigmoid())


class RecurrentReader(Reader):
    """An LSTM or GRU.

    Args:
        cell: `nn.LSTM` or `nn.GRU`.
        embedding: E.
        length: T; any will do.
        hidden: F.
        layers: each reads the one below.
    """

    @checked_arguments
    def __init__(
        self, cell: Cell, embedding: int, length: int, *, hidden: PositiveInt = 128, layers: PositiveInt = 1
    ) -> None:
        super().__init__()
        self.width = hidden
        self.recurrence = Recurrence(cell, embedding, hidden, layers)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """H."""
        return self.recurrence.unroll(x)


class AttentiveReader(Reader):
    """A transformer's layers.

    Args:
        embedding: E.
        length: T.
        hidden: F.
        layers: each reads the one below.
        heads: of attention.
    """

    @checked_arguments
    def __init__(
        self,
        embedding: int,
        length: int,
        *,
        hidden: PositiveInt = 128,
        layers: PositiveInt = 2,
        heads: PositiveInt = 4,
    ) -> None:
        super().__init__()
        self.width = hidden
        self.enter, self.norm = nn.Linear(embedding, hidden), nn.LayerNorm(hidden)
        self.positions = Learned(hidden, heads, length)
        self.layers = nn.ModuleList(Layer(hidden, heads, 0.0, False) for _ in range(layers))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Padding comes last, where nobody sees it."""
        x, turn = self.positions(self.enter(x), torch.arange(x.shape[1], device=x.device).unsqueeze(0))
        for layer in self.layers:
            x = layer(x, turn)
        return self.norm(x)  # type: ignore[no-any-return]
