"""Rewards made of rewards: weighted sums, clipping, KL shaping, length penalties, controls.

`0.5 * BLEU(refs) + CIDErD(refs)` is a reward like any other. One that speaks for the whole sequence
is [B]; one with a value for each token is [B, T]; where both meet, [B] is paid at the last token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from numbers import Real
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from rlseq.types import Context, Policy, Reward
from rlseq.utils.arguments import PositiveInt, Seed, checked_arguments
from rlseq.utils.masks import steps_of, token_rewards
from rlseq.utils.modules import eval_mode
from rlseq.utils.stateful import load_states, set_generator, states_of


@runtime_checkable
class HasIncrements(Protocol):
    """A reward that can be paid token by token."""

    def increments(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return what each token adds to the reward, [B, T]."""


class Composable:
    """A reward that can be added, scaled and clipped."""

    def __call__(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the reward, [B] or [B, T]."""
        raise NotImplementedError

    def __add__(self, other: Reward) -> WeightedSum:
        """Return the sum of both rewards."""
        return WeightedSum([*_terms(self), *_terms(other)])

    def __radd__(self, other: Reward) -> WeightedSum:
        """Return the sum of both rewards."""
        return WeightedSum([*_terms(other), *_terms(self)])

    def __sub__(self, other: Reward) -> WeightedSum:
        """Return the difference of both rewards."""
        return WeightedSum([*_terms(self), *((-w, r) for w, r in _terms(other))])

    def __mul__(self, weight: float) -> WeightedSum:
        """Return the reward times a number."""
        return WeightedSum([(_number(weight) * w, r) for w, r in _terms(self)])

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> WeightedSum:
        """Return the reward divided by a number."""
        if _number(divisor) == 0:
            raise ValueError("a reward cannot be divided by 0")
        return self * (1 / divisor)

    def __neg__(self) -> WeightedSum:
        """Return the reward with the other sign."""
        return self * -1.0

    def clip(self, low: float, high: float) -> Mapped:
        """Return the reward limited to the range from low to high."""
        if not _number(low) <= _number(high):
            raise ValueError(f"clip needs low ≤ high, got low={low}, high={high}")
        return Mapped(self, lambda x: x.clamp(low, high), f"clip[{low:g},{high:g}]")

    def shift(self, offset: float) -> Mapped:
        """Return the reward plus a constant, such as a fixed baseline."""
        _number(offset)
        return Mapped(self, lambda x: x + offset, f"shift[{offset:g}]")

    def dense(self) -> Dense:
        """Return the same reward, paid token by token as `increments`."""
        return Dense(self)

    def without_first_reference(self, items: Tensor) -> Reward | None:
        """Return the reward of texts of `items` [n], fitted without the first reference of each.

        By default the reward itself, which knows no references but those of the context. One that was fitted
        on references is fitted on the others; None where that cannot be.
        """
        return self


class Composite(Composable):
    """A reward made of other rewards; its state consists of theirs."""

    @property
    def components(self) -> dict[str, Reward]:
        """The rewards that it is made of, by name."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the components that have one."""
        return states_of(self.components)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        load_states(self.components, state, "reward")


class WeightedSum(Composite):
    """Σ wᵢ Rᵢ of pairs (wᵢ, Rᵢ); `parts` names the components, so that each can be logged on its own."""

    @checked_arguments
    def __init__(self, terms: Iterable[tuple[float, Reward]]) -> None:
        self.terms = [(_number(weight), reward) for weight, reward in terms]
        self.name = " + ".join(f"{w:g}*{name_of(r)}" for w, r in self.terms)
        self.signature = " + ".join(f"{w:g}*{signature_of(r)}" for w, r in self.terms)

    @property
    def parts(self) -> dict[str, Reward]:
        """The components by name, unweighted; the second of a name is called name_2."""
        found: dict[str, Reward] = {}
        for _, reward in self.terms:
            name, k = name_of(reward), 2
            while name in found:
                name, k = f"{name_of(reward)}_{k}", k + 1
            found[name] = reward
        return found

    components = parts

    @property
    def addends(self) -> dict[str, Reward]:
        """The weighted components by name, whose sum this is: a task reports each on its own."""
        return {name: WeightedSum([term]) for name, term in zip(self.parts, self.terms, strict=True)}

    def __call__(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the sum, [B], or [B, T] where a component has a value for each token."""
        values = [weight * reward(tokens, mask, context) for weight, reward in self.terms]
        if any(value.dim() == 2 for value in values):
            values = [token_rewards(value, mask) for value in values]
        return torch.stack(values).sum(0)

    def without_first_reference(self, items: Tensor) -> Reward | None:
        """Return the sum of the components, each fitted without them; None where one cannot be."""
        terms = [(weight, without_first_reference(part, items)) for weight, part in self.terms]
        left = [(weight, part) for weight, part in terms if part is not None]
        return WeightedSum(left) if len(left) == len(terms) else None

    def increments(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Σ wᵢ increments of Rᵢ; a component without them is paid at the last token."""
        gains = [w * increments(r, tokens, mask, context) for w, r in self.terms]
        return torch.stack(gains).sum(0)


class OfReward(Composite):
    """A reward made of another one, its attribute `reward`."""

    reward: Reward

    @property
    def components(self) -> dict[str, Reward]:
        """The other reward."""
        return {"reward": self.reward}

    @property
    def parts(self) -> dict[str, Reward]:
        """The other reward, or its components, so that each can be logged on its own."""
        return dict(getattr(self.reward, "parts", {})) or {name_of(self.reward): self.reward}

    def without_first_reference(self, items: Tensor) -> Reward | None:
        """Return the same of the other reward, fitted without them; None where it cannot be."""
        left, other = without_first_reference(self.reward, items), copy(self)
        if left is None:
            return None
        other.reward = left
        return other


class Mapped(OfReward):
    """A function of a reward."""

    def __init__(self, reward: Reward, function: Callable[[Tensor], Tensor], name: str) -> None:
        self.reward, self.function = reward, function
        self.name = f"{name}({name_of(reward)})"
        self.signature = f"{name}({signature_of(reward)})"

    def __call__(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the function of the reward; padding of a [B, T] reward stays 0."""
        value = self.function(self.reward(tokens, mask, context))
        return value if value.dim() == 1 else torch.where(mask, value, 0)

    def increments(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the differences of the function of the running sum, [B, T]."""
        so_far = self.function(increments(self.reward, tokens, mask, context).cumsum(1))
        return torch.where(mask, steps_of(so_far), 0)


class Dense(OfReward):
    """The increments of a reward as a reward for every token, [B, T]."""

    def __init__(self, reward: Reward) -> None:
        if not isinstance(reward, HasIncrements):
            raise TypeError(f"{name_of(reward)} has no increments, so it cannot be paid per token")
        self.reward = reward
        self.name, self.signature = f"dense({name_of(reward)})", f"dense({signature_of(reward)})"

    def __call__(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the reward of every token, [B, T]."""
        return increments(self.reward, tokens, mask, context)


class KLShaped(OfReward):
    """R − β Σₜ ( log π(aₜ) − log π_ref(aₜ) ), the KL term at each token, [B, T]; π learns, π_ref does not."""

    @checked_arguments
    def __init__(self, reward: Reward, policy: Policy, reference: Policy, beta: float) -> None:
        self.reward, self.policy, self.reference, self.beta = reward, policy, reference, _number(beta)
        self.name = f"kl_shaped({name_of(reward)})"

    @torch.no_grad()
    def __call__(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the reward of every token, [B, T]."""
        with eval_mode(self.policy), eval_mode(self.reference):
            acted = self.policy.evaluate(tokens, context).log_probs
            gap = acted - self.reference.evaluate(tokens, context).log_probs
        paid = token_rewards(self.reward(tokens, mask, context), mask)
        return paid - torch.where(mask, self.beta * gap, 0)


class LengthPenalty(Composable):
    """−w · length, paid at the end; a negative weight rewards length."""

    name = "length_penalty"

    @checked_arguments
    def __init__(self, weight: float) -> None:
        self.weight = _number(weight)

    def __call__(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the reward, [B]."""
        return -self.weight * mask.sum(1).float()

    def increments(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return −w for each token."""
        return -self.weight * mask.float()


class Overlong(LengthPenalty):
    """A penalty on length (DAPO, Yu et al. 2025): 0 up to limit − margin, then linear, −weight from limit."""

    name = "overlong"

    @checked_arguments
    def __init__(self, limit: PositiveInt, margin: PositiveInt, weight: float = 1.0) -> None:
        if margin > limit:
            raise ValueError(f"Overlong needs 0 < margin ≤ limit, got {margin=}, {limit=}")
        super().__init__(weight)
        self.limit, self.margin = limit, margin

    def __call__(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the reward, [B]."""
        return self._at(mask.sum(1))

    def increments(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the cost of each further token, [B, T]."""
        return steps_of(self._at(mask.cumsum(1)))

    def _at(self, length: Tensor) -> Tensor:
        return -self.weight * ((length - self.limit + self.margin) / self.margin).clamp(0, 1)


class Constant(Composable):
    """The same reward for every sequence, the control of Choshen et al. 2020.

    What a policy still gains under it is not owed to the metric.
    """

    name = "constant"

    @checked_arguments
    def __init__(self, value: float = 1.0) -> None:
        self.value = _number(value)

    def __call__(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the reward, [B]."""
        return torch.full(mask.shape[:1], self.value, device=mask.device)


class Shuffled(OfReward):
    """A reward permuted at random within the batch: the same distribution without information."""

    @checked_arguments
    def __init__(self, reward: Reward, seed: Seed = 0) -> None:
        self.reward, self.name = reward, f"shuffled({name_of(reward)})"
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the permuted reward, [B]."""
        value = self.reward(tokens, mask, context)
        if value.dim() != 1:
            raise ValueError(f"Shuffled needs a reward [B], got {list(value.shape)}; shuffle before dense()")
        order = torch.randperm(len(value), generator=self.generator)
        return value[order.to(value.device)]

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the random generator, and of the reward."""
        return {"generator": self.generator.get_state(), **super().state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        set_generator(self.generator, state["generator"])
        super().load_state_dict({name: part for name, part in state.items() if name != "generator"})


def increments(reward: Reward, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    """Return the reward's increments, [B, T]; of a reward without any, its value at the last token."""
    if isinstance(reward, HasIncrements):
        return reward.increments(tokens, mask, context)
    return token_rewards(reward(tokens, mask, context), mask)


def without_first_reference(reward: Reward, items: Tensor) -> Reward | None:
    """Return `reward.without_first_reference(items)`; a plain function, which reads the context, as it is."""
    return reward.without_first_reference(items) if isinstance(reward, Composable) else reward


def name_of(reward: Reward) -> str:
    """Return the name for logs: a `name`, or that of the function or class."""
    return str(getattr(reward, "name", None) or getattr(reward, "__name__", type(reward).__name__))


def signature_of(reward: Reward) -> str:
    """Return the signature for records; the name of a reward without one."""
    return str(getattr(reward, "signature", name_of(reward)))


def _terms(reward: Reward) -> list[tuple[float, Reward]]:
    if isinstance(reward, WeightedSum):
        return list(reward.terms)
    if not callable(reward):
        raise TypeError(
            f"only a reward can be added to a reward, got {reward!r:.60}; for numbers use .shift()"
        )
    return [(1.0, reward)]


def _number(weight: float) -> float:
    if isinstance(weight, bool) or not isinstance(weight, Real):  # NumPy's numbers, too
        raise TypeError(f"a weight must be a number, got {type(weight).__name__} {weight!r:.60}")
    if not math.isfinite(weight):
        raise ValueError(f"a weight must be finite, got {weight}")
    return float(weight)
