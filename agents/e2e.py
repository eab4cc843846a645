"""E2E: likelihood through the model's own soft predictions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rlseq.engine.references import check_has_references, sample_references
from rlseq.engine.rollout import evaluate_actions
from rlseq.mdp.sequence_env import sequence_env
from rlseq.policy_gradient.agent import Agent, handed_over
from rlseq.policy_gradient.losses import per_token
from rlseq.types import BasePolicy, Metrics, Rollout, SoftTokens
from rlseq.utils.arguments import PositiveInt, ShareBelowOne
from rlseq.utils.ranks import total

Unroll = Callable[[Any, Rollout, Tensor, int], Tensor]  # (policy, references, given, k) -> log π(y*), [B, T]


def softened(logits: Tensor, k: int) -> SoftTokens:
    """Return the k likeliest words, weighted by their renormalised probabilities."""
    top = logits.topk(min(k, logits.shape[1]))
    return SoftTokens(top.indices, top.values.softmax(-1))


def _given_or(given: Tensor, words: Tensor, soft: SoftTokens) -> SoftTokens:
    """Return the reference's word where it is given, alone in its place."""
    alone = torch.zeros_like(soft.weights)
    alone[..., 0] = 1
    given = given.unsqueeze(-1)
    return SoftTokens(
        torch.where(given, words.unsqueeze(-1), soft.words), torch.where(given, alone, soft.weights)
    )


def step_by_step(policy: Any, batch: Rollout, given: Tensor, k: int) -> Tensor:
    """Read at each step what the step before predicted; the gradient flows through all steps."""
    state, steps = policy.start(batch.context), []
    read: Any = torch.full_like(batch.actions[:, 0], policy.words.bos)
    for t in range(batch.actions.shape[1]):
        logits, state = policy.step(read, state)
        steps.append(logits.log_softmax(-1).gather(1, batch.actions[:, t : t + 1]))
        read = _given_or(given[:, t], batch.actions[:, t], softened(logits, k))
    return torch.cat(steps, 1)


def read_in_two_passes(policy: Any, batch: Rollout, given: Tensor, k: int) -> Tensor:
    """Read in a second pass what was predicted after the reference's words in the first: for transformers."""
    logits = evaluate_actions(policy, batch, mode=nullcontext).logits
    if logits is None:
        raise ValueError("two_pass reads the policy's `logits`, which its `evaluate` does not return")
    words = logits.reduce(lambda z: softened(z, k).words)
    weights = logits.reduce(lambda z: softened(z, k).weights)
    read = _given_or(given, batch.actions, SoftTokens(words, weights))
    return evaluate_actions(policy, replace(batch, inputs=read), mode=nullcontext).log_probs


UNROLLS: dict[str, Unroll] = {"step_by_step": step_by_step, "two_pass": read_in_two_passes}


@dataclass(eq=False)
class E2E(Agent):
    """Minimise −log π(y*ₜ | soft words), where from step s on the model reads its own k likeliest words.

    Ranzato et al. 2016. After the first `xent_share` of training, which is plain likelihood, s falls from the
    length of each reference to 0, by `delta` in every stage, as in MIXER; `set_progress` sets the stage.
    The embeddings of the k words are averaged by their renormalised probabilities.
    """

    k: PositiveInt = 10  # number of words whose embeddings are averaged
    xent_share: ShareBelowOne = 0.25  # share of training with likelihood alone
    delta: PositiveInt = 3  # number of words that each stage no longer gives
    unroll: Unroll = step_by_step  # how the policy reads its own words

    def __post_init__(self) -> None:
        super().__post_init__()
        policy = self.policy
        if self.unroll is step_by_step and isinstance(policy, BasePolicy) and not policy.differentiable_step:
            raise ValueError(
                f"{type(self.policy).__name__} writes its cache in place, so steps cannot be differentiated; "
                'pass unroll="two_pass"'
            )
        self.done = 0.0

    def set_progress(self, done: float) -> None:
        """Set step size and stage for the next update; `done` is the share of training that lies behind."""
        super().set_progress(done)
        self.done = done

    def check(self, env: Any) -> None:
        """Refuse a task without references."""
        check_has_references(sequence_env(env))

    def collect(self, env: Any) -> Rollout:
        """Return references."""
        return sample_references(sequence_env(env))

    def loss(self, batch: Rollout) -> tuple[Tensor, Metrics]:
        """Return the negative log-likelihood, nats per token."""
        length = batch.actions.shape[1]
        s = batch.lengths - handed_over(self.done, self.xent_share, length, self.delta)
        given = torch.arange(length, device=batch.actions.device) < s.unsqueeze(1)
        log_probs = self.unroll(self.policy, batch, given, self.k)
        nll = -(log_probs * per_token(batch.mask)).sum()
        return nll, {"nll": total(nll.detach())}
