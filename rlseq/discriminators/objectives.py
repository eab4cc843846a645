"""Rewards of a discriminator's logits `[…, outputs]`, its losses and its constraints.

With two outputs D is the product of both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from rlseq.discriminators.network import Discriminator
from rlseq.discriminators.texts import TextBatch
from rlseq.utils.arguments import Checked, NonNegativeFloat, PositiveFloat, Range
from rlseq.utils.kernels import twice_differentiable

LogitReward = Callable[[Tensor], Tensor]


def probability(logits: Tensor) -> Tensor:
    """Return D, in [0, 1] (SeqGAN)."""
    return logits.sigmoid().prod(-1)


def log_probability(logits: Tensor) -> Tensor:
    """Return log D: steep where texts are bad; never above 0, so short texts lose less."""
    return F.logsigmoid(logits).sum(-1)


def surprise(logits: Tensor) -> Tensor:
    """Return −log(1 − D): steep where texts are good; never below 0, so long texts gain more."""
    if logits.shape[-1] == 1:
        return F.softplus(logits).squeeze(-1)
    return -torch.log1p(-probability(logits).clamp(max=1 - 1e-6))


def logit(logits: Tensor) -> Tensor:
    """Return log D/(1 − D), the sum of the two above; also the output of a critic without sigmoid."""
    return logits.sum(-1)


def odds(logits: Tensor) -> Tensor:
    """Return D / (1 − D), an estimate of p_data / π (MaliGAN), at most 10⁴."""
    return logits.sum(-1).clamp(max=9.21).exp()


def closeness(logits: Tensor) -> Tensor:
    """Return −(D − 1)² of a linear output: the loss of a generator against `lsgan` (Mao et al. 2017)."""
    return -(logits - 1).square().sum(-1)


Objective = Callable[[Tensor, Tensor], Tensor]  # (logits [n] of the high, [m] of the low) -> loss
Penalty = Callable[[Discriminator, TextBatch, TextBatch], Tensor]


@dataclass(frozen=True)
class GAN(Checked):
    """−mean log D(high) − mean log(1 − D(low))   (Goodfellow et al. 2014).

    Args:
        smoothing: 1 − the label of the high (one-sided label smoothing, Salimans et al. 2016).
    """

    smoothing: Annotated[float, Range(0, 0.5, open_high=True)] = 0.0

    def __call__(self, high: Tensor, low: Tensor) -> Tensor:
        """Return the loss: softplus(−z) is −log σ(z), softplus(z) is −log(1 − σ(z))."""
        missed = (1 - self.smoothing) * F.softplus(-high) + self.smoothing * F.softplus(high)
        return missed.mean() + F.softplus(low).mean()


def lsgan(high: Tensor, low: Tensor) -> Tensor:
    """Return mean (D(high) − 1)² + mean D(low)², of a linear output (Mao et al. 2017)."""
    return (high - 1).square().mean() + low.square().mean()


def wgan(high: Tensor, low: Tensor) -> Tensor:
    """Return mean D(low) − mean D(high) of a linear output; D must stay Lipschitz (Arjovsky et al. 2017)."""
    return low.mean() - high.mean()


@dataclass(frozen=True)
class OutputL2(Checked):
    """weight · ½|w|² of the last layer alone, as in SeqGAN's code."""

    weight: NonNegativeFloat = 0.2

    def __call__(self, discriminator: Discriminator, real: TextBatch, generated: TextBatch) -> Tensor:
        """Return the penalty of weights and biases."""
        head = discriminator.head
        return self.weight / 2 * (head.weight.square().sum() + head.bias.square().sum())


@dataclass(frozen=True)
class GradientPenalty(Checked):
    """weight · mean (|∇ₓ D(x)| − 1)², x between real and generated texts (Gulrajani et al. 2017).

    Texts of which one is a distribution over words, or another sequence of vectors, are mixed as they are (a
    word counts as a one-hot distribution, under the source of the real text); two texts of words are mixed
    after they have been embedded.
    """

    weight: NonNegativeFloat = 10.0

    def __call__(self, discriminator: Discriminator, real: TextBatch, generated: TextBatch) -> Tensor:
        """Return the penalty, text by text, up to the end of the longer of the two."""
        rows = min(len(real.tokens), len(generated.tokens))
        real, generated = real.take(slice(rows)), generated.take(slice(rows))
        widths = [t.tokens.shape[-1] for t in (real, generated) if t.tokens.is_floating_point()]
        if widths:
            ends = [_as_vectors(texts.tokens, widths[0]) for texts in (real, generated)]
        else:
            ends = [discriminator.embed(t.tokens, t.context).detach() for t in (real, generated)]
        share = torch.rand(rows, 1, 1, device=ends[0].device)
        x = torch.lerp(ends[0], ends[1], share).requires_grad_()
        embedded = discriminator.embed(x, real.context) if widths else x
        with twice_differentiable():
            logits = discriminator.judge(embedded, real.mask | generated.mask)
        (slope,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
        penalty: Tensor = (slope.flatten(1).norm(dim=1) - 1).square().mean()
        return self.weight * penalty


def _as_vectors(tokens: Tensor, width: int) -> Tensor:
    """Return vectors as they are, and words as one-hot vectors."""
    return tokens if tokens.is_floating_point() else F.one_hot(tokens, width).to(torch.get_default_dtype())


@dataclass(frozen=True)
class ClipWeights(Checked):
    """w ← clip(w, −limit, limit), after every step (Arjovsky et al. 2017)."""

    limit: PositiveFloat = 0.01

    @torch.no_grad()
    def __call__(self, discriminator: nn.Module) -> None:
        """Clip all weights."""
        for weight in discriminator.parameters():
            weight.clamp_(-self.limit, self.limit)


def spectral(discriminator: Discriminator) -> Discriminator:
    """Divide every table, linear map and filter by its largest singular value (Miyato et al. 2018).

    From now on, so that it stays 1. Of tables too: they are the first linear map of one-hot words, and of
    distributions over words. Recurrent weights are left as they are.
    """
    for module in list(discriminator.modules()):
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Embedding)):
            spectral_norm(module)
    return discriminator


def unconstrained(discriminator: nn.Module) -> None:
    """Leave the weights as they are."""
