"""MIXER: from likelihood to reward, from the end of the text to its beginning."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rlseq.arguments import NonNegativeInt, OpenShare, PositiveInt
from rlseq.baselines import Baseline
from rlseq.engine import rollout, sequence_env
from rlseq.factors import check_task
from rlseq.losses import per_token
from rlseq.policy_gradient import PolicyGradient
from rlseq.references import demonstrations
from rlseq.state import Count
from rlseq.types import Evaluation, Metrics, Rollout


@dataclass(eq=False)
class MIXER(PolicyGradient):
    """Likelihood of the first s words of a reference, REINFORCE on what the policy writes after them.

    s = T for `xent_updates`; then s = T − Δ, T − 2Δ, … 0, for `stage_updates` each (Ranzato et al. 2016). The
    baseline is a linear regression for every step, on the hidden state, through which no gradient flows.
    """

    xent_updates: NonNegativeInt = 1000  # updates of likelihood alone
    stage_updates: PositiveInt = 200  # updates of every s below T
    delta: PositiveInt = 3  # Δ, words that each stage hands over
    xent_weight: OpenShare = 0.5  # of likelihood, where both are at work; REINFORCE has the rest
    baseline: Baseline | str = "regression"  # b (rlseq.baselines, rlseq.critics)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples > 1 or self.mle or self.epochs > 1:
            raise ValueError(
                "MIXER goes on from one reference a row, once, and has a likelihood of its own; leave "
                f"samples and epochs at 1 and mle at 0, got {self.samples}, {self.epochs}, {self.mle}"
            )
        self.count = Count()

    def collect(self, env: Any) -> Rollout:
        """References as far as s, and what the policy writes after that."""
        env = sequence_env(env)
        check_task(self, env)
        lesson = demonstrations(env)
        s = self.count.stage(env.max_len, self.xent_updates, self.stage_updates, self.delta)
        steps = lesson.lengths.clamp(max=s)
        index, words = lesson.context["index"], lesson.actions
        batch = rollout(self.policy, env, decode=self.decode, forced=words, forced_steps=steps, index=index)
        place = torch.arange(env.max_len, device=words.device)
        given = replace(batch, mask=place < steps.unsqueeze(1))
        return self.enriched(replace(batch, lesson=given), env)

    def surrogate(self, seen: Evaluation, batch: Rollout) -> Tensor:
        """−log π of what was given, −A log π of what was written."""
        return torch.where(_given(batch), -seen.log_probs, super().surrogate(seen, batch))

    def weighed(self, batch: Rollout) -> Rollout:
        """Both parts by themselves: where there is only one, it has all the weight."""
        given = _given(batch)
        written = batch.mask & ~given
        share = torch.where(written.any(), self.xent_weight, 1.0)
        xent = share * per_token(given)
        share = torch.where(given.any(), 1 - self.xent_weight, 1.0)
        return replace(batch, weights=xent + share * self.aggregate(written))  # type: ignore[operator]

    def update(self, batch: Rollout) -> Metrics:
        """Learn, and move on."""
        metrics = super().update(batch)
        self.count.updates = self.count.updates + 1
        return {**metrics, "given": _given(batch).sum(1).float().mean()}


def _given(batch: Rollout) -> Tensor:
    """True on the words of a reference."""
    if batch.lesson is None:
        raise ValueError("MIXER learns from batches that it collects itself")
    return batch.lesson.mask
