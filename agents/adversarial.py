"""Agents with a discriminator that is trained beside the policy, as a reward or to be differentiated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from rlseq.discriminators import Adversary, built
from rlseq.discriminators.texts import TextBatch, rewarded
from rlseq.engine.references import sample_references
from rlseq.engine.rollout import evaluate_actions
from rlseq.mdp.sequence_env import SequenceEnv, sequence_env
from rlseq.mdp.task import no_reward
from rlseq.policies.spec import TokenSpec
from rlseq.policy_gradient.agent import Agent
from rlseq.policy_gradient.algorithm import PolicyGradient
from rlseq.policy_gradient.baselines import Factor
from rlseq.policy_gradient.losses import per_token
from rlseq.types import Metrics, Rollout
from rlseq.utils.arguments import NonNegativeFloat, NonNegativeInt, PositiveInt, StepSize, check_fields, shown
from rlseq.utils.modules import eval_mode, frozen
from rlseq.utils.ranks import gathered, this_rank, total
from rlseq.utils.stateful import Stateful, UpdateCounter


@dataclass(eq=False)
class AdversarialRounds(Agent):
    """g updates of the policy, then d regenerations × k epochs of the discriminator, and so on."""

    lr: StepSize = 1e-4  # step size of Adam; after likelihood, a tenth of its rate
    adversary: Any = None  # the reward, an `Adversary`; a CNN made from the policy's words when not given
    g: PositiveInt = 1  # policy updates per round
    d: NonNegativeInt = 5  # times per round that texts are regenerated for the discriminator
    k: PositiveInt = 3  # epochs of the discriminator on each of them
    pretraining: NonNegativeInt = 50  # times that texts are regenerated before the first round

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

    def preparation(self) -> list[str]:
        """Return that the discriminator learns first, where it does."""
        if not self.pretraining or self.rounds.updates or self.adversary.frozen:
            return super().preparation()
        learned = f"the discriminator learns from {self.pretraining} × {self.adversary.texts:,} texts"
        return [learned, *super().preparation()]

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

    def new_round(self, env: Any) -> None:
        """Train the discriminator."""
        times = self.d if self.rounds.updates else self.pretraining
        self.discriminator_metrics = self.adversary.learn(
            self.policy, env, regenerations=times, epochs=self.k, **self.lessons()
        )

    def lessons(self) -> dict[str, Any]:
        """Return further arguments of `Adversary.learn`: what the discriminator learns from."""
        return {}

    def update(self, batch: Rollout) -> Metrics:
        """Learn from a batch; at the beginning of a round, add the metrics of the discriminator."""
        metrics = super().update(batch)
        self.count.updates = self.count.updates + 1
        discriminator_metrics, self.discriminator_metrics = self.discriminator_metrics, {}
        return {**metrics, **discriminator_metrics}


@dataclass(eq=False)
class Adversarial(AdversarialRounds, PolicyGradient):
    """A policy gradient whose reward is D(y), in place of the task's own.

    Mixed into another agent, as in `class AdversarialPPO(PPO, Adversarial)`, it makes that agent's reward
    learn: the generator as actor, inverse reinforcement learning with the discriminator as reward (Ho & Ermon
    2016).
    """

    uses_task_reward: ClassVar[bool] = False

    def paid_on(self, env: Any) -> Any:
        """Return the task with the discriminator as its reward."""
        return rewarded(env, self.adversary)

    def new_round(self, env: Any) -> None:
        """Train the discriminator, and forget baselines of its earlier rewards."""
        super().new_round(env)
        if self.discriminator_metrics and isinstance(self.baseline, Factor):
            self.baseline.forget()


@dataclass(eq=False)
class ThroughDiscriminator(AdversarialRounds):
    """Maximise the discriminator's reward by its own gradient, which passes through texts of the policy.

        min  −mean value(D(ỹ(θ))) + mle · NLL

    A subclass says by `texts` how ỹ depends on the weights of the policy.
    """

    mle: NonNegativeFloat = 0.0  # weight of the likelihood of references of the same sources

    def collect(self, env: Any) -> Rollout:
        """Return texts of the policy, and references of the same sources where their likelihood counts."""
        env = sequence_env(env)
        self.check(env)
        self.catch_up(env)
        batch = self.write(rewarded(env, no_reward))
        if self.mle:
            batch = replace(batch, demonstrations=sample_references(env, batch.context))
        return batch

    def write(self, env: SequenceEnv) -> Rollout:
        """Return texts of the policy."""
        raise NotImplementedError

    def texts(self, batch: Rollout) -> TextBatch:
        """Return what the discriminator reads of a batch, through which the gradient reaches the policy."""
        raise NotImplementedError

    def loss(self, batch: Rollout) -> tuple[Tensor, Metrics]:
        """Return minus the mean reward, and the negative log-likelihood, nats per token."""
        with eval_mode(self.adversary.discriminator), frozen(self.adversary.discriminator):
            reward = self.adversary.rewards(self.texts(batch)).mean() / this_rank().of
        metrics = {"reward": total(reward.detach()), "length": gathered(batch.lengths).float().mean()}
        if batch.demonstrations is None:
            return -reward, metrics
        told = batch.demonstrations
        nll = -(evaluate_actions(self.policy, told).log_probs * per_token(told.mask)).sum()
        return self.mle * nll - reward, {**metrics, "nll": total(nll.detach())}


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
