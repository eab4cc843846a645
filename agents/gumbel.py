"""Gumbel: a generator that learns through the discriminator, by relaxed samples of words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from rlseq.agents.adversarial import ThroughDiscriminator, make_matching_discriminator
from rlseq.discriminators import Adversary
from rlseq.discriminators.objectives import log_probability
from rlseq.discriminators.texts import TextBatch, check_judges_distributions, in_parts
from rlseq.engine import relaxed
from rlseq.engine.relaxed import Relaxation, relaxed_rollout
from rlseq.mdp.sequence_env import SequenceEnv, sequence_env
from rlseq.types import Rollout
from rlseq.utils.arguments import PositiveFloat


@dataclass(eq=False)
class Gumbel(ThroughDiscriminator):
    """Maximise E_g[value(D(ỹ))], ỹₜ = relaxation(zₜ, gₜ, τ) with logits zₜ of the policy and Gumbel noise gₜ.

    Kusner & Hernández-Lobato 2016; Jang et al. 2017. The policy reads its own ỹ, so that the gradient flows
    through all steps. τ falls geometrically from `temperature` to `final_temperature` in training. A batch
    carries the graph of its gradient, and can be learned from once.
    """

    compiles: ClassVar[bool] = False

    relaxation: Relaxation = relaxed.straight_through_gumbel  # relaxation of a word (rlseq.engine.relaxed)
    temperature: PositiveFloat = 1.0  # τ at the beginning of training
    final_temperature: PositiveFloat = 0.5  # τ at its end

    def __post_init__(self) -> None:
        super().__post_init__()
        self.tau = self.temperature

    def opponent(self) -> Adversary:
        """Make an adversary whose reward is log D, which is steep where texts are bad."""
        return Adversary(make_matching_discriminator(self.policy, "cnn"), value=log_probability)

    def set_progress(self, done: float) -> None:
        """Set step size and temperature for the next update; `done` is the share of training behind."""
        super().set_progress(done)
        self.tau = self.temperature * (self.final_temperature / self.temperature) ** done

    def check(self, env: Any) -> None:
        """Refuse a policy or a discriminator that cannot read distributions over words."""
        super().check(env)
        relaxed.check_reads_distributions(self.policy, env)
        check_judges_distributions(self.adversary.discriminator, sequence_env(env))

    def write(self, env: SequenceEnv) -> Rollout:
        """Return relaxed texts, with the graph of their gradient."""
        return relaxed_rollout(self.policy, env, self.relaxation, self.tau)

    def texts(self, batch: Rollout) -> TextBatch:
        """Return the relaxed texts."""
        return TextBatch.of(batch)

    def lessons(self) -> dict[str, Any]:
        """Let the discriminator learn from relaxed texts, too."""
        return {"generated": self.generated}

    @torch.no_grad()
    def generated(self, policy: Any, env: SequenceEnv, number: int) -> TextBatch:
        """Return relaxed texts without gradients."""
        return in_parts(lambda part: self.texts(self.write(part)), env, number)
