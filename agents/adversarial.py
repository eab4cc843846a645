"""Policy gradients whose reward is a discriminator that is trained beside the policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rlseq.discriminators import Adversary, built
from rlseq.discriminators.texts import rewarded
from rlseq.mdp.sequence_env import sequence_env
from rlseq.policies.spec import TokenSpec
from rlseq.policy_gradient.algorithm import PolicyGradient
from rlseq.policy_gradient.baselines import Factor
from rlseq.types import Metrics, Rollout
from rlseq.utils.arguments import NonNegativeInt, PositiveInt, check_fields, shown
from rlseq.utils.stateful import Stateful, UpdateCounter


@dataclass(eq=False)
class Adversarial(PolicyGradient):
    """g updates of the policy, then d regenerations × k epochs of the discriminator, and so on.

    The reward is D(y), in place of the task's own. Mixed into another agent, as in
    `class AdversarialPPO(PPO, Adversarial)`, it makes that agent's reward learn: the generator as actor,
    inverse reinforcement learning with the discriminator as reward (Ho & Ermon 2016).
    """

    adversary: Any = None  # the reward, an `Adversary`; a CNN made from the policy's words when not given
    g: PositiveInt = 1  # policy updates per round
    d: NonNegativeInt = 5  # times per round that texts are regenerated for the discriminator
    k: PositiveInt = 3  # epochs of the discriminator on each of them
    pretraining: NonNegativeInt = 50  # times that texts are regenerated before the first round
    uses_task_reward: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_fields(self)
        self.adversary = self.opponent() if self.adversary is None else checked_adversary(self.adversary)
        super().__post_init__()
        self.count, self.rounds = UpdateCounter(), UpdateCounter()
        self.discriminator_metrics: Metrics = {}

    def opponent(self) -> Adversary:
        """Make the adversary when none is given."""
        return Adversary(make_matching_discriminator(self.policy, "cnn"))

    def stateful_parts(self) -> dict[str, Stateful]:
        """Return the parts that have a state, the adversary and the counters of rounds among them."""
        own: dict[str, Stateful] = {"adversary": self.adversary, "count": self.count, "rounds": self.rounds}
        return {**super().stateful_parts(), **own}

    def check(self, env: Any) -> None:
        """Refuse a task whose texts the discriminator cannot read, or that has no real ones to learn from."""
        super().check(env)
        self.adversary.check(sequence_env(env))

    def catch_up(self, env: Any) -> None:
        """Begin a round when the last one is over: train the discriminator."""
        self.adversary.begin(sequence_env(env))
        if self.count.updates >= self.g * self.rounds.updates:  # not again, if only the batch is
            self.new_round(env)
            self.rounds.updates = self.rounds.updates + 1

    def paid_on(self, env: Any) -> Any:
        """Return the task with the discriminator as its reward."""
        return rewarded(env, self.adversary)

    def new_round(self, env: Any) -> None:
        """Train the discriminator, and forget baselines of its earlier rewards."""
        times = self.d if self.rounds.updates else self.pretraining
        self.discriminator_metrics = self.adversary.learn(
            self.policy, env, regenerations=times, epochs=self.k
        )
        if self.discriminator_metrics and isinstance(self.baseline, Factor):
            self.baseline.forget()

    def update(self, batch: Rollout) -> Metrics:
        """Learn from a batch; at the beginning of a round, add the metrics of the discriminator."""
        metrics = super().update(batch)
        self.count.updates = self.count.updates + 1
        discriminator_metrics, self.discriminator_metrics = self.discriminator_metrics, {}
        return {**metrics, **discriminator_metrics}


def checked_adversary(adversary: Any) -> Adversary:
    """Return the adversary; refuse what is none."""
    if not isinstance(adversary, Adversary):
        raise TypeError(
            "adversary must be an Adversary(rlseq.make_discriminator(name, env)) or one of its kinds, "
            f"got {shown(adversary)}"
        )
    return adversary


def make_matching_discriminator(policy: Any, name: str, **sizes: Any) -> Any:
    """Make a discriminator of what a policy reads and writes."""
    words = getattr(policy, "words", None)
    if not isinstance(words, TokenSpec):
        raise ValueError(
            f"{type(policy).__name__} does not say what it writes (`words`), so no discriminator can be made "
            "for it; pass adversary=Adversary(rlseq.make_discriminator(name, env))"
        )
    device = next(policy.parameters()).device
    return built(name, words, 0, **sizes).to(device)
