"""SeqGAN and its relatives: one agent, and choices of its factors.

    ∇J = E[ Σₜ Q(y₍₁…ₜ₋₁₎, yₜ) ∇log π(yₜ | y₍₁…ₜ₋₁₎) ]

| | Q | judge |
|---|---|---|
| SeqGAN | mean D of completions | D of whole texts |
| MaliGAN | the same of D/(1 − D), divided by its mean over the batch | the same |
| RankGAN | the same of the log rank among real texts | `Ranker` |
| REGS | D of the unfinished text itself | D that learns from prefixes |

Any of them with `scale="bootstrapped"` is paid by ranks (LeakGAN), with `mle=…` mixes in likelihood.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch

from rlseq.agents.adversarial import Adversarial, checked_adversary, reader_of
from rlseq.discriminators import Adversary, Ranker
from rlseq.discriminators.adversary import random_prefix
from rlseq.discriminators.objectives import odds
from rlseq.policy_gradient.baselines import Baseline
from rlseq.policy_gradient.credit import Completions, Credit, Stepwise
from rlseq.policy_gradient.factors import Scale
from rlseq.utils.arguments import PositiveInt, ShareBelowOne, check_fields


@dataclass(eq=False)
class SeqGAN(Adversarial):
    """Q(y₍₁…ₜ₋₁₎, yₜ) = mean D of a roll-out policy's ways to go on from y₍₁…ₜ₎; D(y) at T (Yu et al. 2017).

    The roll-out policy trails behind: β ← trail · β + (1 − trail) · θ, once a round.
    """

    completions: PositiveInt = 16  # N, of every prefix
    every: PositiveInt = 1  # words between two prefixes that are completed
    trail: ShareBelowOne = 0.8  # share of the roll-out policy kept when a round begins; 0: it is the policy
    credit: Credit | str = ""  # Q̂ (rlseq.policy_gradient.credit); completions when not given
    baseline: Baseline | str = (
        "none"  # b (rlseq.baselines, rlseq.policy_gradient.baselines); the paper subtracts nothing
    )

    def __post_init__(self) -> None:
        check_fields(self)
        self.rollout_policy = deepcopy(self.policy).requires_grad_(False)
        self.credit = self.credit or Completions(self.completions, self.rollout_policy, every=self.every)
        super().__post_init__()

    def new_round(self, env: Any) -> None:
        """The roll-out policy follows, too."""
        super().new_round(env)
        follow(self.rollout_policy, self.policy, self.trail)


@torch.no_grad()
def follow(trailing: Any, leading: Any, trail: float) -> None:
    """β ← trail · β + (1 − trail) · θ, weight by weight, in place: whoever holds β sees it move."""
    for slow, fast in zip(trailing.parameters(), leading.parameters(), strict=True):
        slow.lerp_(fast, 1 - trail)


@dataclass(eq=False)
class MaliGAN(SeqGAN):
    """Che et al. 2017: with r = D/(1 − D), which is p_data/π for a perfect D,  A = r / mean r − 1.

    Its gradient is then that of the likelihood of real texts, estimated from the policy's own.
    """

    scale: Scale | str = "self_normalised"  # of Q̂ − b (rlseq.policy_gradient.factors)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.adversary.value is not odds:
            raise ValueError(
                "MaliGAN divides r = D/(1 − D) by its mean, and needs an adversary that pays this, got one "
                f"that pays {getattr(self.adversary.value, '__name__', self.adversary.value)!r}; pass "
                "adversary=Adversary(discriminator, value=rlseq.discriminators.odds), or leave it out"
            )

    def opponent(self) -> Adversary:
        """Pays odds."""
        return Adversary(reader_of(self.policy, "cnn"), value=odds)


@dataclass(eq=False)
class RankGAN(SeqGAN):
    """Lin et al. 2017: paid by how a text ranks among real ones.

    Log ranks are below 0, so that without a baseline every sampled text becomes less likely.
    """

    baseline: Baseline | str = "mean"  # b (rlseq.baselines, rlseq.policy_gradient.baselines)

    def opponent(self) -> Adversary:
        """Ranks."""
        return Ranker(reader_of(self.policy, "cnn", source=False))


@dataclass(eq=False)
class REGS(Adversarial):
    """Q = D of y₍₁…ₜ₎ as it stands: a reward for every step, nothing is completed (Li et al. 2017)."""

    credit: Credit | str = ""  # Q̂ (rlseq.policy_gradient.credit); D of every prefix when not given

    def __post_init__(self) -> None:
        check_fields(self)
        self.adversary = self.opponent() if self.adversary is None else checked_adversary(self.adversary)
        self.credit = self.credit or Stepwise(self.adversary.steps)
        super().__post_init__()

    def opponent(self) -> Adversary:
        """Learns from texts cut anywhere."""
        return Adversary(reader_of(self.policy, "gru"), view=random_prefix)
