"""G-GAN: a generator with noise, paid by a learned judge of how a text fits its picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlseq.agents.adversarial import Adversarial, make_matching_discriminator
from rlseq.discriminators import Adversary
from rlseq.policy_gradient.baselines import Baseline, mean
from rlseq.policy_gradient.credit import Completions, Credit, own_credit
from rlseq.utils.arguments import NonNegativeInt, PositiveInt


@dataclass(eq=False)
class GGAN(Adversarial):
    """Maximise E r(x, G(x, z)), r by an evaluator of pictures x and texts (Dai et al. 2017).

        ∇J = E[ Σₜ (V(x, z, y₍₁…ₜ₎) − b) ∇log π(yₜ | x, z, y₍₁…ₜ₋₁₎) ]

    V is the mean r of completions of y₍₁…ₜ₎ under the same z. The evaluator learns from real pairs, generated
    pairs and pairs with another picture. A policy reads z where the task draws it: `noise=16`.
    """

    d: NonNegativeInt = 1  # times per round that texts are regenerated for the evaluator
    k: PositiveInt = 1  # epochs of the evaluator on each of them
    pretraining: NonNegativeInt = 20  # times that texts are regenerated before the first round
    completions: PositiveInt = 4  # N, number of completions of every prefix
    every: PositiveInt = 1  # distance in words between two prefixes that are completed
    credit: Credit = own_credit  # value of an action; by completions when not given
    baseline: Baseline = mean  # subtracted from the credit; the paper subtracts nothing (rlseq.baselines)

    def make_credit(self) -> Credit:
        """Make completions by the policy itself."""
        return Completions(self.completions, every=self.every)

    def opponent(self) -> Adversary:
        """Make an evaluator."""
        return Adversary(make_matching_discriminator(self.policy, "gru"))

    def check(self, env: Any) -> None:
        """Refuse an evaluator that sees no picture and no source."""
        super().check(env)
        if not self.adversary.discriminator.conditional:
            raise ValueError(
                "ggan needs an evaluator of how a text fits its picture or source, and this one judges the "
                "text alone; take a task with a picture or a source and make_discriminator(…, source=True), "
                "or the agent seqgan"
            )
