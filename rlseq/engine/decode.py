"""How the next token is chosen: values that a rollout is given, as `Sample(temperature)` or `Greedy()`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from rlseq.engine.categorical import FORBIDDEN, drawn
from rlseq.types import Behaviour, Rollout
from rlseq.utils.arguments import Checked, PositiveFloat, PositiveInt, Range, shown


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
    """Chooses whole texts, in a loop of its own (`rlseq.engine.beam.Beam`)."""

    def best(self, policy: Any, env: Any, *, repeat: int, index: Tensor | None) -> Rollout:
        """One text for every row."""


@dataclass(frozen=True)
class Sample(Checked):
    """Draw from softmax(logits / temperature), cut to its most likely tokens; one uniform number per token.

    Args:
        temperature: below 1 sharpens, above 1 flattens; for the most likely token use `Greedy()`.
        top_k: keep the k most likely tokens.
        top_p: of these, keep the fewest whose probabilities sum to p (Holtzman et al. 2020).
    """

    temperature: PositiveFloat = 1.0
    top_k: PositiveInt | None = None
    top_p: Annotated[float, Range(0, 1, open_low=True)] | None = None

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
        """Inverse CDF (rlseq.engine.categorical)."""
        return drawn(logits, uniform)


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
    if isinstance(decode, (Decode, Search)):
        return decode
    raise TypeError(f"decode must be Sample(…), Greedy() or Beam(…), got {shown(decode)}")


def acting_logits(logits: Tensor, behaviour: Behaviour) -> Tensor:
    """Logits of the distribution that acts, at least float32: tempered, with what is not allowed shut out."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if behaviour.temperature != 1.0:
        logits = logits / behaviour.temperature
    if behaviour.support is not None:
        logits = logits.masked_fill(~behaviour.support, FORBIDDEN)
    return logits
