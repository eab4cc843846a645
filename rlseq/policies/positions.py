"""How a transformer knows where a word stands: `positions(x, place) -> (x, turn)`.

x `[B, n, H]` enters the first layer; `turn` is applied to the queries and keys `[…, n, d]` of every layer.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Turn = Callable[[Tensor], Tensor]
Positions = Callable[[int, int, int], nn.Module]  # (H, heads, longest text) -> positions


class Rotary(nn.Module):
    """Queries and keys turn with their place, so that qₘ·kₙ depends on m − n alone (Su et al. 2021).

    (x₁, x₂) ↦ (x₁ cos tθ − x₂ sin tθ,  x₂ cos tθ + x₁ sin tθ),   θᵢ = 10000^(−2i/d)

    Attention to a source is not turned, so words align by content alone: where they must be matched place by
    place, as in copying, that is learned more slowly than with `Learned`.
    """

    theta: Tensor

    def __init__(self, hidden: int, heads: int, length: int) -> None:
        super().__init__()
        width = hidden // heads
        if width % 2:
            raise ValueError(
                f"rotary positions need an even width per head, got {hidden} / {heads} = {width}; "
                "change hidden or heads, or pass positions=Learned"
            )
        self.register_buffer("theta", 10000.0 ** (-torch.arange(0, width, 2) / width), persistent=False)

    def forward(self, x: Tensor, place: Tensor) -> tuple[Tensor, Turn]:
        """`place` `[B, n]` or `[1, n]`."""
        angle = (place.unsqueeze(2) * self.theta).unsqueeze(1)
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)

        def turn(x: Tensor) -> Tensor:
            first, second = x.chunk(2, -1)
            return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)

        return x, turn


class Learned(nn.Module):
    """A vector for every place, added to the words (Vaswani et al. 2017)."""

    def __init__(self, hidden: int, heads: int, length: int) -> None:
        super().__init__()
        self.table = nn.Embedding(length, hidden)

    def forward(self, x: Tensor, place: Tensor) -> tuple[Tensor, Turn]:
        """`place` `[B, n]` or `[1, n]`."""
        if place.shape[1] > self.table.num_embeddings:
            raise ValueError(
                f"this policy has learned {self.table.num_embeddings} places, got {place.shape[1]} words; "
                "make it with a longer task, or with positions=Rotary"
            )
        return x + self.table(place), _as_it_is


def _as_it_is(x: Tensor) -> Tensor:
    return x
