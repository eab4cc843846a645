"""Encoders: readers map a context to S vectors x `[B, S, H]`, and to a mask of those that are present.

    reader(context) -> (x [B, S, H], present [B, S] bool)

Words become one vector each; an image one for each field of a grid; features one for each region.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlseq.policies.attention import FactorizedEmbedding, Positions, TransformerLayer, seen_where
from rlseq.policies.head import working_dtype
from rlseq.policies.matmul import Linear
from rlseq.policies.packed import RealPlaces
from rlseq.policies.spec import TokenSpec
from rlseq.types import Context

Encoded = tuple[Tensor, Tensor]
PictureReader = Callable[[tuple[int, ...], int], nn.Module]  # (shape of a picture, H) -> a reader


class WordReader(nn.Module):
    """An encoder of the source by layers of self-attention."""

    entry = "source"  # of the context, which it reads

    def __init__(
        self,
        words: TokenSpec,
        hidden: int,
        embedding: int,
        layers: int,
        heads: int,
        dropout: float,
        positions: Positions,
    ) -> None:
        super().__init__()
        assert words.source is not None
        self.words = words
        self.embedding = FactorizedEmbedding(words.source, embedding, hidden)
        self.positions = positions(hidden, heads, words.source_length)
        self.layers = nn.ModuleList(TransformerLayer(hidden, heads, dropout, False) for _ in range(layers))
        self.dropout, self.norm = nn.Dropout(dropout), nn.LayerNorm(hidden)

    def forward(self, context: Context) -> Encoded:
        """Return one vector a word."""
        present = self.words.present(context["source"])
        x = self.embedding(context["source"])
        x, turn = self.positions(x, torch.arange(x.shape[1], device=x.device).unsqueeze(0))
        real = RealPlaces.of(present)
        x = self.dropout(real.gathered(x))
        seen = seen_where(present[:, None, None], working_dtype(x))
        for layer in self.layers:
            x = layer(x, turn, seen, real=real)
        return real.spread(self.norm(x)), present


class ConvNet(nn.Module):
    """An encoder of images, bytes or floats 0 … 1, as a grid of at most 7 × 7 fields, by convolutions.

    Places are added as learned vectors: what is left of what cannot be told from content. Batches are
    normalised (Ioffe & Szegedy 2015), with their own averages in likelihood training only: where policies act
    and where rewards train them, running averages serve, and no image sees its batch-mates.

    Args:
        shape: C, height and width of an image.
        hidden: H.
        channels: of the first convolution; doubled by each, up to H.
    """

    entry = "image"

    def __init__(self, shape: tuple[int, ...], hidden: int, channels: int = 32) -> None:
        super().__init__()
        width, *sides = shape
        steps: list[nn.Module] = []
        while max(sides) > 7:
            sides = [(side + 1) // 2 for side in sides]
            last = max(sides) <= 7
            wider = hidden if last else min(channels, hidden)
            steps += [nn.Conv2d(width, wider, 3, stride=2, padding=1), nn.BatchNorm2d(wider), nn.ReLU()]
            width, channels = wider, 2 * channels
        self.grid = nn.Sequential(*steps, *[] if steps else [nn.Conv2d(width, hidden, 1)])
        self.places = nn.Parameter(torch.randn(sides[0] * sides[1], hidden))
        self.mix = Linear(hidden, hidden)

    def forward(self, context: Context) -> Encoded:
        """Return one vector a field, row by row."""
        image = context["image"]
        image = image.to(self.places.dtype) / 127.5 - 1 if image.dtype == torch.uint8 else 2 * image - 1
        fields = self._convolved(image).flatten(2).transpose(1, 2)
        x: Tensor = self.mix(fields + self.places).relu()
        return x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)

    def _convolved(self, image: Tensor) -> Tensor:
        """Return the grid; where running averages serve, they are part of each convolution's weights."""
        if self.training or len(self.grid) == 1:
            found: Tensor = self.grid(image)
            return found
        steps: list[nn.Module] = list(self.grid)
        for convolution, norm in zip(steps[::3], steps[1::3], strict=True):
            image = _with_averages(convolution, norm)(image).relu_()
        return image


def _with_averages(convolution: Any, norm: Any) -> Callable[[Tensor], Tensor]:
    """Return s (w ∗ x + b − μ) + β = (s w) ∗ x + s (b − μ) + β, s = γ / σ of the running averages μ and σ."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    weight = convolution.weight * scale.view(-1, 1, 1, 1)
    bias = (convolution.bias - norm.running_mean) * scale + norm.bias
    return partial(F.conv2d, weight=weight, bias=bias, stride=convolution.stride, padding=convolution.padding)


class Regions(nn.Module):
    """An encoder of features `[B, R, D]`, one vector a region; rows of zeros are no regions."""

    entry = "features"

    def __init__(self, shape: tuple[int, ...], hidden: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.LayerNorm(shape[1]), Linear(shape[1], hidden), nn.ReLU())

    def forward(self, context: Context) -> Encoded:
        """Return one vector a region; the first is always present, so that attention is defined."""
        features = context["features"]
        present = (features != 0).any(2)
        present[:, 0] = True
        return self.mix(features), present


PICTURE_READERS: dict[str, PictureReader] = {"image": ConvNet, "features": Regions}


def picture_reader(words: TokenSpec, hidden: int) -> Any:
    """Return a reader of the picture that a task shows, an `nn.Module`; None where it shows none."""
    shown = [name for name in PICTURE_READERS if name in words.observed]
    if len(shown) + (words.source is not None) > 1:
        sources = [*shown, *["source"] * (words.source is not None)]
        raise ValueError(f"a policy of this house reads one source or one picture, this task shows {sources}")
    return PICTURE_READERS[shown[0]](words.observed[shown[0]], hidden) if shown else None
