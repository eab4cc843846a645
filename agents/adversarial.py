"""Any policy gradient whose reward is a discriminator that learns beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rlseq.discriminators import Adversary, built
from rlseq.discriminators.texts import rewarded
from rlseq.mdp.sequence_env import sequence_env
from rlseq.policies.spec import TokenSpec
from rlseq.policy_gradient.algorithm import PolicyGradient
from rlseq.types import Metrics, Rollout
from rlseq.utils.arguments import NonNegativeInt, PositiveInt, shown
from rlseq.utils.stateful import UpdateCounter


@dataclass(eq=False)
class Adversarial(PolicyGradient):
    """g updates of the policy, then d regenerations × k epochs of the discriminator, and so on.

    The policy is paid D(y); the task's own reward is not asked. Mixed into another agent, as in
    `class AdversarialPPO(PPO, Adversarial)`, it makes that agent's reward learn: the generator as actor,
    inverse reinforcement learning with the discriminator as reward (Ho & Ermon 2016).
    """

    adversary: Any = None  # the reward, an `Adversary`; a CNN made from the policy's words when not given
    g: PositiveInt = 1  # updates of the policy in a round
    d: NonNegativeInt = 5  # regenerations for the discriminator in a round
    k: PositiveInt = 3  # epochs that it learns from each
    pretraining: NonNegativeInt = 50  # regenerations before the first round
    uses_task_reward: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.adversary = self.opponent() if self.adversary is None else checked_adversary(self.adversary)
        self.count, self.rounds = UpdateCounter(), UpdateCounter()
        self.discriminator_metrics: Metrics = {}

    def opponent(self) -> Adversary:
        """The adversary when none is given."""
        return Adversary(reader_of(self.policy, "cnn"))

    def check(self, env: Any) -> None:
        """Refuse a task whose texts the discriminator cannot read, or that has none for it to learn from."""
        super().check(env)
        self.adversary.check(sequence_env(env))

    def catch_up(self, env: Any) -> None:
        """Begin a round when the last one is over: the discriminator learns."""
        self.adversary.begin(sequence_env(env))
        if self.count.updates >= self.g * self.rounds.updates:  # not again, if only the batch is
            self.new_round(env)
            self.rounds.updates = self.rounds.updates + 1

    def paid_on(self, env: Any) -> Any:
        """The task, paid by the discriminator."""
        return rewarded(env, self.adversary)

    def new_round(self, env: Any) -> None:
        """The discriminator learns; what was averaged over its earlier judgements is forgotten."""
        times = self.d if self.rounds.updates else self.pretraining
        self.discriminator_metrics = self.adversary.learn(
            self.policy, env, regenerations=times, epochs=self.k
        )
        if self.discriminator_metrics and hasattr(self.baseline, "forget"):
            self.baseline.forget()

    def update(self, batch: Rollout) -> Metrics:
        """Learn from a batch; at the begin of a round, report what the discriminator learned."""
        metrics = super().update(batch)
        self.count.updates = self.count.updates + 1
        discriminator_metrics, self.discriminator_metrics = self.discriminator_metrics, {}
        return {**metrics, **discriminator_metrics}


def checked_adversary(adversary: Any) -> Adversary:
    """An adversary, or an error that says how one is made."""
    if not isinstance(adversary, Adversary):
        raise TypeError(
            "adversary must be an Adversary(rlseq.make_discriminator(name, env)) or one of its kinds, "
            f"got {shown(adversary)}"
        )
    return adversary


def reader_of(policy: Any, name: str, **sizes: Any) -> Any:
    """A discriminator of what a policy reads and writes."""
    words = getattr(policy, "words", None)
    if not isinstance(words, TokenSpec):
        raise ValueError(
            f"{type(policy).__name__} does not say what it writes (`words`), so no discriminator can be made "
            "for it; pass adversary=Adversary(rlseq.make_discriminator(name, env))"
        )
    device = next(policy.parameters()).device
    return built(name, words, 0, **sizes).to(device)
