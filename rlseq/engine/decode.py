"""Decoders, which choose a token: `Sample(temperature, top_k, top_p)`, `Greedy()`, `EpsilonGreedy(…)`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from rlseq.engine.categorical import FORBIDDEN, inverse_cdf, sample_from_logits
from rlseq.types import Behaviour, Rollout, RuleSupport
from rlseq.utils.arguments import Checked, PositiveFloat, PositiveInt, PositiveShare, Share, shown


@runtime_checkable
class Decode(Protocol):
    """A decoder, which chooses tokens from the logits of the behaviour policy."""

    @property
    def temperature(self) -> float:
        """The divisor of the policy's logits."""

    def support(self, logits: Tensor) -> Tensor | None:
        """Return the tokens it chooses from, bool `[B, V]`; None when all."""

    def choose(self, logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Pick a token of every row, `[B]`; also return log Σ exp(logits), `[B]`."""


@runtime_checkable
class Search(Protocol):
    """A decoder that chooses whole texts, in a loop of its own (`rlseq.engine.beam.Beam`)."""

    def best(self, policy: Any, env: Any, *, repeat: int, index: Tensor | None) -> Rollout:
        """Return one text for every row."""


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
    top_p: PositiveShare | None = None

    def support(self, logits: Tensor) -> Tensor | None:
        """Return the nucleus of the k most likely tokens."""
        top_p = None if self.top_p == 1 else self.top_p  # p = 1 keeps all, whatever is rounded
        if self.top_k is None and top_p is None:
            return None
        ranked, order = logits.topk(min(self.top_k or logits.shape[1], logits.shape[1]))
        kept = ranked > FORBIDDEN
        if top_p is not None:
            probs = ranked.softmax(-1)
            kept &= probs.cumsum(-1) - probs < top_p  # the sum before it is below p
        return torch.zeros_like(logits, dtype=torch.bool).scatter_(1, order, kept)

    def choose(self, logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Draw by the inverse CDF (rlseq.engine.categorical)."""
        return sample_from_logits(logits, uniform)


@dataclass(frozen=True)
class Greedy:
    """A decoder that takes the most likely token; log-probabilities are the policy's own."""

    temperature: ClassVar[float] = 1.0  # the policy's own logits

    def support(self, logits: Tensor) -> None:
        """Return None, for all tokens: the probability reported is the policy's own."""

    def choose(self, logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Return the most likely token; the random number is not used."""
        top, token = logits.max(-1)
        return token, top - logits.softmax(-1).amax(-1).log()  # softmax is faster than logsumexp


@dataclass(frozen=True)
class EpsilonGreedy(Checked):
    """A decoder that takes the most likely token, but with probability ε any that is allowed.

    Log-probabilities are the policy's own, as those of `Greedy()`: its texts are no samples of the policy.

    Args:
        epsilon: ε, the share of tokens that are drawn uniformly.
    """

    epsilon: Share = 0.1
    temperature: ClassVar[float] = 1.0

    def support(self, logits: Tensor) -> None:
        """Return None: the probability reported is the policy's own."""

    def choose(self, logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Return the most likely token, or one at random; one uniform number decides both."""
        likeliest, log_norm = Greedy().choose(logits, uniform)
        any_token = inverse_cdf((logits > FORBIDDEN).float(), uniform / max(self.epsilon, 1e-12))
        return torch.where(uniform < self.epsilon, any_token, likeliest), log_norm


def checked_decoder(decode: Any) -> Any:
    """Return a decoder, if it is one."""
    if isinstance(decode, (Decode, Search)):
        return decode
    raise TypeError(f"decode must be Sample(…), Greedy(), Beam(…) or MBR(…), got {shown(decode)}")


def acting_logits(logits: Tensor, behaviour: Behaviour) -> Tensor:
    """Return the logits of the behaviour policy, at least float32: divided by the temperature and masked.

    Args:
        logits: `[…, V]`; `[B, T, V]` where the support is a rule.
        behaviour: the temperature, and the tokens that were allowed.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if behaviour.temperature != 1.0:
        logits = logits / behaviour.temperature
    support = behaviour.support
    if isinstance(support, RuleSupport):
        support = support.masks(logits.shape[1])
    if support is not None:
        logits = logits.masked_fill(~support, FORBIDDEN)
    return logits
