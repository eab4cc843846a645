"""Rewards of a text from which its source can be told again: a reconstructor learns beside the policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rlseq.agents.adversarial import Adversarial, make_matching_discriminator
from rlseq.discriminators import Adversary
from rlseq.engine.rollout import evaluate_actions, evaluate_frozen, rollout
from rlseq.mdp.sequence_env import sequence_env
from rlseq.mdp.task import no_reward
from rlseq.metrics.algebra import WeightedSum
from rlseq.policies import build_policy
from rlseq.policies.spec import TokenSpec
from rlseq.policy_gradient.agent import adam, clip
from rlseq.policy_gradient.algorithm import PolicyGradient
from rlseq.policy_gradient.baselines import Baseline, leave_one_out
from rlseq.policy_gradient.losses import per_token
from rlseq.types import Context, Metrics, Reward, Rollout
from rlseq.utils.arguments import NonNegativeFloat, NonNegativeInt, PositiveInt, StepSize
from rlseq.utils.masks import last_of
from rlseq.utils.ranks import gathered, total_gradients
from rlseq.utils.stateful import Stateful, UpdateCounter

WATCHED = ("content", "fluency")  # metrics of a task that show a secret code, where it has them
RECONSTRUCTOR_SIZES = {"hidden": 64, "embedding": 32}


class Reconstructor:
    """A policy that reads what was written and writes the source: −log p(x | y) is its loss and its grade.

    Args:
        words: of the policy whose texts it reads.
        lr: its step size.
        device: where its weights are.
    """

    def __init__(self, words: TokenSpec, lr: float, device: torch.device) -> None:
        assert words.source is not None
        written = words.source
        back = TokenSpec(
            *(written, written, words.source_pad, words.source_length),
            source=words.read + 1,  # id 0 stands for padding
            source_length=words.length,
        )
        self.pad, self.lr = words.source_pad, lr
        self.policy = build_policy("seq2seq", back, 0, device, RECONSTRUCTOR_SIZES)
        self.optimizer = adam(self.policy.parameters(), lr, 0.0)

    def __call__(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return log p(x | y), nats per word of the source, `[B]`."""
        batch = self.turned(tokens, mask, context)
        return (evaluate_frozen(self.policy, batch).log_probs * batch.mask).sum(1) / batch.mask.sum(1)

    def learn(self, batch: Rollout) -> None:
        """Take a step on the likelihood of the sources of a batch, given its texts."""
        turned = self.turned(batch.actions, batch.mask, batch.context)
        self.optimizer.zero_grad(set_to_none=True)
        loss = -(evaluate_actions(self.policy, turned).log_probs * per_token(turned.mask)).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        total_gradients(list(self.policy.parameters()))
        clip(self.policy.parameters(), 1.0)
        self.optimizer.step()

    def turned(self, tokens: Tensor, mask: Tensor, context: Context) -> Rollout:
        """Return sources as what is written about texts."""
        source = context["source"]
        there = source != self.pad
        there[:, 0] = True  # of an empty source
        nothing = torch.zeros(source.shape, device=source.device)
        about = {"source": torch.where(mask, tokens + 1, 0)}
        return Rollout(source, there, nothing, nothing, None, last_of(there), None, about)

    def state_dict(self) -> dict[str, Any]:
        """Return the weights and the optimizer."""
        return {"policy": self.policy.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        self.policy.load_state_dict(state["policy"])
        self.optimizer.load_state_dict(state["optimizer"])


@dataclass(eq=False)
class Dual(PolicyGradient):
    """Maximise  task · R(y) + reconstruction · log p(x | y),  p learned from the policy's own texts y.

    Dual learning (He et al. 2016): the source x of a text needs no answer to be told again. Alone, with
    task = 0, policy and reconstructor can agree on a code that nobody else reads; the metrics `content` and
    `fluency` of a task show it, and the alarm `secret_code` says so.
    """

    uses_task_reward: ClassVar[bool] = False  # not alone

    samples: PositiveInt = 4  # K, number of texts for each source
    baseline: Baseline = leave_one_out  # subtracted from the credit (rlseq.baselines)
    task: NonNegativeFloat = 1.0  # weight of the task's reward
    reconstruction: NonNegativeFloat = 1.0  # weight of log p(x | y), nats per word of the source
    reconstructor_lr: StepSize = 3e-3  # step size of the reconstructor
    reconstructor_pretraining: NonNegativeInt = 20  # batches that it learns from before the policy does

    def __post_init__(self) -> None:
        super().__post_init__()
        words = getattr(self.policy, "words", None)
        if not isinstance(words, TokenSpec) or words.source is None:
            raise ValueError(
                f"{type(self).__name__} learns to tell the source of a text again, and "
                f"{type(self.policy).__name__} reads none; take a task with sources of words"
            )
        device = next(self.policy.parameters()).device
        self.reconstructor = Reconstructor(words, self.reconstructor_lr, device)
        self.batches = UpdateCounter()
        self.seen: Metrics = {}

    def stateful_parts(self) -> dict[str, Stateful]:
        """Return the parts that have a state, the reconstructor and its number of batches among them."""
        own: dict[str, Stateful] = {"reconstructor": self.reconstructor, "batches": self.batches}
        return {**super().stateful_parts(), **own}

    def preparation(self) -> list[str]:
        """Return that the reconstructor learns first, where it does."""
        if not self.reconstructor_pretraining or self.batches.updates:
            return super().preparation()
        learned = f"the reconstructor learns from {self.reconstructor_pretraining} batches"
        return [learned, *super().preparation()]

    def paid_on(self, env: Any) -> Any:
        """Return the task with both rewards, each by its weight."""
        task = sequence_env(env)
        parts = {name: weighted(self.task, part) for name, part in task.parts.items()} if self.task else {}
        told = weighted(self.reconstruction, self.reconstructor)
        return task.replace(reward={**parts, "reconstruction": told})

    def catch_up(self, env: Any) -> None:
        """Let the reconstructor learn before the first batch."""
        if not self.batches.updates:
            for _ in range(self.reconstructor_pretraining):
                self.reconstructor.learn(rollout(self.policy, sequence_env(env).replace(reward=no_reward)))

    def collect(self, env: Any) -> Rollout:
        """Return samples; the metrics of the task that show a secret code are noted."""
        batch, metrics = super().collect(env), sequence_env(env).metrics
        text = batch.actions, batch.mask, batch.context
        self.seen = {name: gathered(metrics[name](*text)).mean() for name in WATCHED if name in metrics}
        return batch

    def update(self, batch: Rollout) -> Metrics:
        """Learn from a batch, and let the reconstructor learn from it."""
        told = gathered(self.reconstructor(batch.actions, batch.mask, batch.context)).mean().exp()
        metrics = super().update(batch)
        self.reconstructor.learn(batch)
        self.batches.updates = self.batches.updates + 1
        seen, self.seen = self.seen, {}
        return {**metrics, "reconstruction": told, **seen}


@dataclass(eq=False)
class Unpaired(Adversarial, Dual):
    """Maximise  D(y) + reconstruction · log p(x | y):  generator, discriminator and reconstructor.

    Wang & Lee 2018: a text that looks as those of people do, and from which its source can be told again. D
    reads texts alone, without sources, so that references need belong to no source.
    """

    task: NonNegativeFloat = 0.0  # weight of the task's reward

    def opponent(self) -> Adversary:
        """Make an adversary that sees no sources."""
        return Adversary(make_matching_discriminator(self.policy, "cnn", source=False))

    def paid_on(self, env: Any) -> Any:
        """Return the task with the discriminator and the reconstruction as its rewards."""
        paid = Dual.paid_on(self, env)
        return paid.replace(reward={**paid.parts, "discriminator": self.adversary})

    def catch_up(self, env: Any) -> None:
        """Train the discriminator where a round begins, and the reconstructor before the first one."""
        super().catch_up(env)
        Dual.catch_up(self, env)


def weighted(weight: float, reward: Reward) -> Reward:
    """Return a reward times its weight."""
    return WeightedSum([(weight, reward)])
