"""SeqGAN and its relatives: one agent, and choices of its factors.

    ∇J = E[ Σₜ Q(y₍₁…ₜ₋₁₎, yₜ) ∇log π(yₜ | y₍₁…ₜ₋₁₎) ]

The agents differ in Q:

* SeqGAN: the mean of D over completions, with a D of whole texts;
* MaliGAN: the mean of D/(1 − D) over completions, divided by its mean over the batch;
* RankGAN: the mean log rank of completions among real texts, by a `Ranker`;
* REGS: D of the unfinished text itself, with a D that learns from prefixes.

With `scale="bootstrapped"` each of them uses ranks within the batch (LeakGAN); `mle=…` adds likelihood.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch

from rlseq.agents.adversarial import Adversarial, make_matching_discriminator
from rlseq.discriminators import Adversary, Ranker
from rlseq.discriminators.adversary import random_prefix
from rlseq.discriminators.objectives import odds
from rlseq.policy_gradient.baselines import Baseline, mean, none
from rlseq.policy_gradient.credit import Completions, Credit, Stepwise, own_credit
from rlseq.policy_gradient.factors import Scale, self_normalised
from rlseq.utils.arguments import PositiveInt, ShareBelowOne, check_fields
from rlseq.utils.stateful import Stateful


@dataclass(eq=False)
class SeqGAN(Adversarial):
    """Q(y₍₁…ₜ₋₁₎, yₜ) = mean D of a roll-out policy's ways to go on from y₍₁…ₜ₎; D(y) at T (Yu et al. 2017).

    The roll-out policy trails behind: β ← trail · β + (1 − trail) · θ, once a round.
    """

    completions: PositiveInt = 16  # N, number of completions of every prefix
    every: PositiveInt = 1  # distance in words between two prefixes that are completed
    trail: ShareBelowOne = 0.8  # share of the roll-out policy kept when a round begins; 0: it is the policy
    credit: Credit = own_credit  # value of an action; by completions when not given
    baseline: Baseline = none  # subtracted from the credit; the paper subtracts nothing (rlseq.baselines)

    def __post_init__(self) -> None:
        check_fields(self)
        self.rollout_policy = deepcopy(self.policy).requires_grad_(False)
        super().__post_init__()

    def make_credit(self) -> Credit:
        """Make completions by the roll-out policy."""
        return Completions(self.completions, self.rollout_policy, every=self.every)

    def stateful_parts(self) -> dict[str, Stateful]:
        """Return the parts that have a state, the roll-out policy among them."""
        return {**super().stateful_parts(), "rollout_policy": self.rollout_policy}

    def new_round(self, env: Any) -> None:
        """Train the discriminator, and let the roll-out policy follow the policy."""
        super().new_round(env)
        follow(self.rollout_policy, self.policy, self.trail)


@torch.no_grad()
def follow(trailing: Any, leading: Any, trail: float) -> None:
    """Set β ← trail · β + (1 − trail) · θ, weight by weight and in place."""
    for slow, fast in zip(trailing.parameters(), leading.parameters(), strict=True):
        slow.lerp_(fast, 1 - trail)


@dataclass(eq=False)
class MaliGAN(SeqGAN):
    """Che et al. 2017: with r = D/(1 − D), which is p_data/π for a perfect D,  A = r / mean r − 1.

    Its gradient is then that of the likelihood of real texts, estimated from the policy's own.
    """

    scale: Scale = self_normalised  # normalisation of the advantage (rlseq.policy_gradient.factors)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.adversary.value is not odds:
            raise ValueError(
                "MaliGAN divides r = D/(1 − D) by its mean, and needs an adversary that pays this, got one "
                f"that pays {getattr(self.adversary.value, '__name__', self.adversary.value)!r}; pass "
                "adversary=Adversary(discriminator, value=rlseq.discriminators.odds), or leave it out"
            )

    def opponent(self) -> Adversary:
        """Make an adversary whose reward is the odds."""
        return Adversary(make_matching_discriminator(self.policy, "cnn"), value=odds)


@dataclass(eq=False)
class RankGAN(SeqGAN):
    """Lin et al. 2017: the reward is the log rank of a text among real ones.

    Log ranks are below 0, so that without a baseline every sampled text becomes less likely.
    """

    baseline: Baseline = mean  # subtracted from the credit (rlseq.baselines)

    def opponent(self) -> Adversary:
        """Make a ranker."""
        return Ranker(make_matching_discriminator(self.policy, "cnn", source=False))


@dataclass(eq=False)
class REGS(Adversarial):
    """Q = D of y₍₁…ₜ₎ as it stands: a reward for every step, nothing is completed (Li et al. 2017)."""

    credit: Credit = own_credit  # value of an action; D of every prefix when not given

    def make_credit(self) -> Credit:
        """Make the discriminator's score of every prefix."""
        return Stepwise(self.adversary.steps)

    def opponent(self) -> Adversary:
        """Make an adversary that learns from texts cut anywhere."""
        return Adversary(make_matching_discriminator(self.policy, "gru"), view=random_prefix)
