"""How the next token is chosen: values that a rollout is given, as `Sample(temperature)` or `Greedy()`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from rlseq.types import Behaviour, Rollout

FORBIDDEN = torch.finfo(torch.float32).min  # a logit that is as good as −∞, yet 0 · FORBIDDEN is not NaN


@runtime_checkable
class Decode(Protocol):
    """Chooses tokens from the logits of the distribution that acts."""

    @property
    def temperature(self) -> float:
        """Divides the policy's logits."""

    def support(self, logits: Tensor) -> Tensor | None:
        """The tokens it would choose from, bool `[B, V]`; None when all."""

    def choose(self, logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Pick a token of every row, `[B]`; also return log Σ exp(logits), `[B]`."""


@runtime_checkable
class Search(Protocol):
    """Chooses whole texts, in a loop of its own (`rlseq.search.Beam`)."""

    def best(self, policy: Any, env: Any, *, repeat: int, index: Tensor | None) -> Rollout:
        """One text for every row."""


@dataclass(frozen=True)
class Sample:
    """Draw from softmax(logits / temperature), cut to its most likely tokens; one uniform number per token.

    Args:
        temperature: below 1 sharpens, above 1 flattens.
        top_k: keep the k most likely tokens.
        top_p: of these, keep the fewest whose probabilities sum to p (Holtzman et al. 2020).
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(
                f"temperature must be a finite number > 0, got {self.temperature}; "
                "for the most likely token use Greedy()"
            )
        if self.top_k is not None and (not isinstance(self.top_k, int) or self.top_k < 1):
            raise ValueError(f"top_k must be an integer ≥ 1, got {self.top_k!r}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p!r}")

    def support(self, logits: Tensor) -> Tensor | None:
        """The nucleus of the top k."""
        top_p = None if self.top_p == 1 else self.top_p  # rounding must not cut off what p = 1 keeps
        if self.top_k is None and top_p is None:
            return None
        ranked, order = logits.topk(min(self.top_k or logits.shape[1], logits.shape[1]))
        kept = ranked > FORBIDDEN
        if top_p is not None:
            probs = ranked.softmax(-1)
            kept &= probs.cumsum(-1) - probs < top_p  # what stands before it does not reach p yet
        return torch.zeros_like(logits, dtype=torch.bool).scatter_(1, order, kept)

    def choose(self, logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Inverse CDF. log Σ exp falls out: z − log w + log Σ w is the same for every token."""
        weights = _weights(logits)
        token, total = _crossed(weights, uniform)
        at = token.unsqueeze(1)
        log_norm = (logits.gather(1, at) - weights.gather(1, at).log()).squeeze(1) + total.log()
        return token, log_norm.to(logits.dtype)


@dataclass(frozen=True)
class Greedy:
    """The most likely token; its stored log-probability is the policy's own."""

    @property
    def temperature(self) -> float:
        """The policy as it is."""
        return 1.0

    def support(self, logits: Tensor) -> None:
        """All tokens: what is reported is the policy's own probability."""

    def choose(self, logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Arg-max; the random number is not looked at."""
        top, token = logits.max(-1)
        return token, top - logits.softmax(-1).amax(-1).log()  # softmax is faster than logsumexp


def checked_decoder(decode: Any) -> Any:
    """What can choose tokens, or whole texts."""
    if hasattr(decode, "choose") or isinstance(decode, Search):
        return decode
    raise TypeError(f"decode must be Sample(…), Greedy() or Beam(…), got {decode!r:.60}")


def acting_logits(logits: Tensor, behaviour: Behaviour) -> Tensor:
    """Logits of the distribution that acts, at least float32: tempered, with what is not allowed shut out."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if behaviour.temperature != 1.0:
        logits = logits / behaviour.temperature
    if behaviour.support is not None:
        logits = logits.masked_fill(~behaviour.support, FORBIDDEN)
    return logits


def _weights(logits: Tensor) -> Tensor:
    """exp(logits), but for a factor of each row that keeps them from overflowing."""
    if torch.compiler.is_compiling():  # fused with the sums that are taken of it, and never written
        return (logits - logits.amax(-1, keepdim=True)).exp()
    return logits.softmax(-1)  # one vectorised kernel, faster than to subtract and to exponentiate


def inverse_cdf(weights: Tensor, uniform: Tensor) -> Tensor:
    """Sample an index of every row of `weights` `[B, V]` from one uniform number `[B]` in [0, 1).

    Two levels: the block of about √V tokens into which the number falls, then the token inside it.
    That is one pass over V to sum the blocks, and O(√V) for the rest; drawing V noise values (Gumbel,
    `torch.multinomial`) costs more than the network that made the weights.
    """
    return _crossed(weights, uniform)[0]


def _crossed(weights: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """The token, and the sum of all weights in double precision, `[B]` each."""
    size = weights.shape[1]
    width = _block_width(size)
    if size % width:
        weights = F.pad(weights, (0, width - size % width))
    sums = weights.view(len(weights), -1, width).sum(-1).cumsum(-1, dtype=torch.float64)
    target = uniform.double().unsqueeze(1) * sums[:, -1:]
    block = _crossing(sums, target)
    inside = block * width + torch.arange(width, device=weights.device)
    running = weights.gather(1, inside).cumsum(-1, dtype=torch.float64)
    before = sums.gather(1, (block - 1).clamp_(min=0)).masked_fill(block == 0, 0.0)
    return (block * width + _crossing(running, target - before)).squeeze(1), sums[:, -1]


@lru_cache
def _block_width(size: int) -> int:
    """Tokens in a block: a divisor near 2√V, so that nothing must be filled up, or else 2√V.

    √V would balance both levels; but short blocks waste the lanes of vector instructions.
    """
    wanted = min(2 * math.isqrt(size), size)
    near = [width for width in range(max(1, wanted // 2), 2 * wanted + 1) if size % width == 0]
    return min(near, key=lambda width: abs(width - wanted), default=wanted)


def _crossing(running: Tensor, target: Tensor) -> Tensor:
    """Index at which the running sums `[B, n]` first exceed `target` `[B, 1]`.

    The target stays below the last of them whatever was rounded, so that an index of weight zero is never
    chosen.
    """
    target = torch.minimum(target, running[:, -1:] * (1 - 2**-52))
    return torch.searchsorted(running, target, right=True).clamp_(max=running.shape[1] - 1)
