"""Adversarial imitation: a discriminator or a learned reward, paid per step or per text.

SeqGAN's code path (`rlseq.agents.adversarial`) with other factors. With `pay="finished_text"` and completions
as credit it is SeqGAN; with `pay="each_step"` and γ = 0 it is REGS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from rlseq.agents.adversarial import Adversarial, make_matching_discriminator
from rlseq.discriminators import Adversary
from rlseq.discriminators.adversary import View, random_prefix, whole
from rlseq.discriminators.objectives import OutputL2, logit, surprise, wgan
from rlseq.discriminators.texts import rewarded
from rlseq.types import Reward, Rollout
from rlseq.utils.arguments import NonNegativeFloat

Pay = Callable[[Adversary], Reward]


def each_step(adversary: Adversary) -> Reward:
    """Return the reward rₜ = r(y₍₁…ₜ₋₁₎, yₜ) of every step, summed over the text by the credit."""
    return adversary.steps


def finished_text(adversary: Adversary) -> Reward:
    """Return the reward r(y) of finished texts."""
    return adversary


PAYS: dict[str, Pay] = {"each_step": each_step, "finished_text": finished_text}


@dataclass(eq=False)
class GAIL(Adversarial):
    """Maximise E Σₜ r(sₜ, aₜ), r by a D that tells own actions from demonstrations (Ho & Ermon 2016).

    r = −log(1 − D), as in the paper. It is never below 0, so that long texts gain by their length; by
    `log_probability` short ones do. The paper's trust region comes by inheritance, as in
    `class Clipped(PPO, GAIL)`.
    """

    pay: Pay = each_step  # reward of the discriminator: each_step or finished_text

    def opponent(self) -> Adversary:
        """Make an adversary that learns from what it is asked: prefixes, or whole texts."""
        return Adversary(make_matching_discriminator(self.policy, "gru"), value=surprise, view=self.seen())

    def seen(self) -> View:
        """Return the part of texts that a discriminator must know."""
        return random_prefix if self.pay is each_step else whole

    def paid_on(self, env: Any) -> Any:
        """Return the task with the discriminator as its reward, per step or per text."""
        return rewarded(env, self.pay(self.adversary))


@dataclass(eq=False)
class MaxEntIRL(GAIL):
    """Maximum-entropy inverse reinforcement learning: demonstrations as samples of p(y) ∝ exp(R(y) / α).

        max_R  E_demo R − E_π R,      max_π  E_π [R(y) − α log π(y)]

    Ziebart et al. 2008; the maximum over π is p, where the first difference has the gradient of log p(demo).
    R is the linear output of a discriminator; the weight decay of that output bounds it.
    """

    pay: Pay = finished_text  # reward of the discriminator: each_step or finished_text
    alpha: NonNegativeFloat = 1.0  # α, weight of the entropy of texts

    def opponent(self) -> Adversary:
        """Make a reward with linear output that learns to be higher for demonstrations."""
        network = make_matching_discriminator(self.policy, "gru")
        return Adversary(network, value=logit, objective=wgan, penalties=(OutputL2(),), view=self.seen())

    def prepare(self, batch: Rollout, env: Any) -> Rollout:
        """Subtract α log π of every word from the rewards; logged as `kl_penalty`, apart from the reward."""
        batch = super().prepare(batch, env)
        cost = self.alpha * batch.log_probs * batch.mask
        total = cost if batch.kl_penalty is None else batch.kl_penalty + cost
        return replace(batch, rewards=batch.rewards - cost, kl_penalty=total)
