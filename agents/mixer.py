"""MIXER: from likelihood to reward, from the end of the text to its beginning."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from rlseq.engine.references import check_has_references, draw_references
from rlseq.engine.rollout import evaluate_actions, rollout
from rlseq.mdp.sequence_env import sequence_env
from rlseq.policy_gradient.agent import handed_over
from rlseq.policy_gradient.algorithm import PolicyGradient
from rlseq.policy_gradient.baselines import Baseline, Regression
from rlseq.policy_gradient.losses import per_token
from rlseq.types import RAW, Evaluation, LearningBatch, Metrics, Rollout
from rlseq.utils.arguments import OpenShare, PositiveInt, ShareBelowOne
from rlseq.utils.ranks import gathered, total
from rlseq.utils.stateful import Stateful, UpdateCounter


@dataclass(eq=False)
class MIXER(PolicyGradient):
    """Likelihood of the first words of a reference, REINFORCE on what the policy writes after them.

    All words of a reference are given for the first `xent_share` of training; then Δ fewer in every stage,
    until none is given in the last (Ranzato et al. 2016). All stages are equally long. Words are counted from
    the end of each reference, so that the policy writes in every row from the first stage on. The baseline is
    a linear regression for every step, on the hidden state, through which no gradient flows.

    `rlseq.train` calls `set_progress` before each update, with the share of training that is done; a loop of
    your own must, too.
    """

    xent_share: ShareBelowOne = 0.25  # share of training with likelihood alone
    delta: PositiveInt = 3  # Δ, number of words that each stage no longer gives
    xent_weight: OpenShare = 0.5  # weight of likelihood where both are used; REINFORCE has the rest
    baseline: Baseline = field(default_factory=Regression)  # subtracted from the credit (rlseq.baselines)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples > 1 or self.mle:
            raise ValueError(
                "MIXER goes on from one reference a row, and has a likelihood of its own; leave samples at 1 "
                f"and mle at 0, got {self.samples}, {self.mle}"
            )
        self.done = 0.0
        self.reinforced = UpdateCounter()  # updates in which the policy wrote words itself

    def set_progress(self, done: float) -> None:
        """Set step size and stage for the next update; `done` is the share of training that lies behind."""
        super().set_progress(done)
        self.done = done

    def check(self, env: Any) -> None:
        """Refuse a task without references."""
        super().check(env)
        check_has_references(sequence_env(env))

    def gather(self, env: Any) -> Rollout:
        """Return the first words of references with what the policy writes after them."""
        env = sequence_env(env)
        demonstrations = draw_references(env)
        steps = (
            demonstrations.lengths - handed_over(self.done, self.xent_share, env.max_len, self.delta)
        ).clamp(min=0)
        index, words = demonstrations.context["index"], demonstrations.actions
        batch = rollout(self.policy, env, decode=self.decode, forced=words, forced_steps=steps, index=index)
        env.counts.imitated(env.rank.total(steps.sum()))
        place = torch.arange(env.max_len, device=words.device)
        given = replace(batch, mask=place < steps.unsqueeze(1), behaviour=RAW)
        return self.prepare(replace(batch, demonstrations=given), env)

    def advantages(self, returns: Tensor, batch: Rollout) -> Tensor:
        """Return Aₜ of what the policy wrote itself."""
        return super().advantages(returns, self.acted(batch))

    def acted(self, batch: Rollout) -> Rollout:
        """Return the batch with a mask of what the policy wrote itself."""
        return replace(batch, mask=batch.mask & ~_given(batch))

    def surrogate(self, evaluation: Evaluation, batch: LearningBatch) -> Tensor:
        """Return −log π of given words by the policy as it is, −A log π of own words as they were sampled."""
        given = _given(batch)
        plain = evaluation.log_probs
        if batch.behaviour._replace(autocast=None) != RAW:
            behaviour = RAW._replace(autocast=batch.behaviour.autocast)
            plain = evaluate_actions(self.policy, replace(batch, behaviour=behaviour)).log_probs
        return torch.where(given, -plain, super().surrogate(evaluation, batch))

    def token_weights(self, batch: Rollout) -> Tensor:
        """Return the weights of given and of own words; where there are only one kind, they have all."""
        given = _given(batch)
        own = batch.mask & ~given
        both = total(torch.stack([given.any(), own.any()])) > 0
        xent = torch.where(both[1], self.xent_weight, 1.0) * per_token(given)
        return xent + torch.where(both[0], 1 - self.xent_weight, 1.0) * self.aggregate(own)

    def stateful_parts(self) -> dict[str, Stateful]:
        """Return the parts that have a state, the counter of updates with own words among them."""
        return {**super().stateful_parts(), "reinforced": self.reinforced}

    def update(self, batch: Rollout) -> Metrics:
        """Learn from a batch, and count the updates in which the policy wrote words itself."""
        metrics = super().update(batch)
        given = _given(batch)
        own = batch.mask & ~given
        written, words = total(torch.stack([own.sum(), batch.mask.sum()]))
        self.reinforced.updates = self.reinforced.updates.to(own.device) + (written > 0)
        return {**metrics, "given": gathered(given.sum(1)).float().mean(), "sampled": written / words}

    def remark(self) -> str | None:
        """Return a remark where training has ended before the policy wrote any word itself."""
        if self.reinforced.updates:
            return None
        return (
            "only_likelihood: MIXER has not reached reinforcement: the policy wrote no word itself in this "
            "training; make it longer, or lower xent_share"
        )


def _given(batch: Rollout) -> Tensor:
    """Return True on the words of a reference."""
    if batch.demonstrations is None:
        raise ValueError("MIXER learns from batches that it collects itself")
    return batch.demonstrations.mask
