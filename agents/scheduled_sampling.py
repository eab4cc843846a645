"""Scheduled sampling (DAD): teacher forcing in which some of the words read are the model's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rlseq.agents.mle import MLE
from rlseq.engine.categorical import inverse_cdf
from rlseq.engine.rollout import evaluate_actions
from rlseq.mdp.sequence_env import SequenceEnv, sequence_env
from rlseq.types import Metrics, Rollout
from rlseq.utils.arguments import PositiveInt, Share
from rlseq.utils.modules import eval_mode
from rlseq.utils.ranks import largest_of_ranks
from rlseq.utils.stateful import Stateful, UpdateCounter

# (policy, task, references, own, uniform) -> words read
DrawInputs = Callable[[Any, SequenceEnv, Rollout, Tensor, Tensor], Tensor]


@torch.no_grad()
def token_by_token(policy: Any, env: SequenceEnv, batch: Rollout, own: Tensor, uniform: Tensor) -> Tensor:
    """Write from left to right; where it is `own`, what was drawn is read, else the reference.

    As many small steps as there are words: exact for every policy.
    """
    state, token = policy.start(batch.context), torch.full_like(batch.actions[:, 0], env.vocab.bos)
    read = torch.empty_like(batch.actions)
    for t in range(read.shape[1]):
        logits, state = policy.step(token, state)
        drawn = inverse_cdf(logits.softmax(-1), uniform[:, t])
        read[:, t] = token = torch.where(own[:, t], drawn, batch.actions[:, t])
    return read


@torch.no_grad()
def draw_in_two_passes(policy: Any, env: SequenceEnv, batch: Rollout, own: Tensor, uniform: Tensor) -> Tensor:
    """Draw every word after the reference's, all at once (Mihaylova & Martins 2019): for transformers."""
    logits = evaluate_actions(policy, batch).logits
    if logits is None:
        raise ValueError("two_pass draws from the policy's `logits`, which its `evaluate` does not return")
    drawn = logits.reduce(lambda z, u: inverse_cdf(z.softmax(-1), u), uniform)
    return torch.where(own, drawn, batch.actions)


READINGS: dict[str, DrawInputs] = {"token_by_token": token_by_token, "two_pass": draw_in_two_passes}


@dataclass(eq=False)
class ScheduledSampling(MLE):
    """Minimise −log π(y*ₜ | ỹ₍₁…ₜ₋₁₎),   ỹ the model's own word with probability p, else the reference's.

    Bengio et al. 2015. p rises linearly from 0. No gradient flows through the choice of a word, and what
    should follow one's own words is still what follows in the reference: the objective is inconsistent
    (Huszár 2015), and often works.
    """

    own: Share = 0.25  # final probability of reading an own word
    ramp: PositiveInt = 1000  # number of updates until that probability is reached
    reading: DrawInputs = token_by_token  # how own words are drawn

    def __post_init__(self) -> None:
        super().__post_init__()
        self.count = UpdateCounter()

    def stateful_parts(self) -> dict[str, Stateful]:
        """Return the parts that have a state, the counter of updates among them."""
        return {**super().stateful_parts(), "count": self.count}

    def collect(self, env: Any) -> Rollout:
        """Return references, with what is read in their place."""
        env = sequence_env(env)
        batch = super().collect(env)
        share = self.own * min(1.0, int(self.count.updates) / self.ramp)
        rows, steps = batch.actions.shape
        drawn = (
            env.rank.all(rows),
            int(largest_of_ranks(torch.tensor(steps))),
        )  # of the longest text of all ranks
        chosen, uniform = (
            env.rank.own(torch.rand(drawn, generator=env.generator, device=env.device, dtype=torch.float64))[
                :, :steps
            ]
            for _ in range(2)
        )
        with eval_mode(self.policy):
            read = self.reading(self.policy, env, batch, chosen < share, uniform)
        return replace(batch, inputs=read)

    def update(self, batch: Rollout) -> Metrics:
        """Learn from a batch, and count it."""
        metrics = super().update(batch)
        self.count.updates = self.count.updates + 1
        return metrics
