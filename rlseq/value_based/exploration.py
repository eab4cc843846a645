"""Exploration: how an agent acts while it learns, if the logits of its policy are values."""

from __future__ import annotations

from collections.abc import Callable

from rlseq.engine.decode import Decode, EpsilonGreedy, Sample

Explore = Callable[[float, float], Decode]  # (ε as it is now, temperature) -> how actions are chosen


def epsilon_greedy(epsilon: float, temperature: float) -> Decode:
    """Take the best action, but with probability ε any."""
    return EpsilonGreedy(epsilon)


def boltzmann(epsilon: float, temperature: float) -> Decode:
    """Draw from exp(Q / τ) / Σ exp(Q / τ)."""
    return Sample(temperature)


EXPLORATIONS: dict[str, Explore] = {explore.__name__: explore for explore in (epsilon_greedy, boltzmann)}


def fallen(last: float, share: float, done: float) -> float:
    """Return a number that falls linearly from 1 to `last` in the first `share` of training."""
    return last if done >= share else 1 + (last - 1) * done / share
