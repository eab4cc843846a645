"""Soft Q-learning: values of actions whose softmax is the best policy for the reward and an entropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rlseq.agents.dqn import QLearning
from rlseq.engine.decode import Decode, Sample
from rlseq.engine.rollout import evaluate_frozen
from rlseq.policy_gradient.algorithm import frozen_copy
from rlseq.types import Rollout
from rlseq.utils.arguments import PositiveFloat
from rlseq.utils.stateful import Stateful
from rlseq.value_based.action_values import ActionValues, Form, soft_dueling


@dataclass(eq=False)
class SoftQ(QLearning):
    """Maximise E[ Σₜ rₜ + τ H(π(·|sₜ)) ] by   Q(sₜ, aₜ) ← rₜ + γ τ log Σₐ exp(Q̂(sₜ₊₁, a) / τ).

    The logits are Q/τ, so that the policy is at any time the best one for its values, and acts by sampling
    (Haarnoja et al. 2017). In writing, every text y then has a probability ∝ exp(R(y) / τ).
    """

    temperature: PositiveFloat = 0.1  # τ, weight of the entropy beside the reward

    def acting(self) -> Decode:
        """Return samples of the policy."""
        return Sample()

    def values_of_states(self, online: ActionValues, target: ActionValues) -> Tensor:
        """Return V̂/τ = log Σₐ exp(Q̂(s, a) / τ)."""
        return target.log_sum_exp()

    def rewards(self, batch: Rollout) -> Tensor:
        """Return r/τ."""
        return batch.rewards / self.temperature


@dataclass(eq=False)
class GLearning(SoftQ):
    """Maximise E[ Σₜ rₜ − τ KL(π(·|sₜ) ‖ π₀(·|sₜ)) ], soft Q-learning beside a reference policy π₀.

    Fox et al. 2016. Every text y then has a probability ∝ π₀(y) exp(R(y) / τ). Of a policy that likelihood
    has trained, nothing is unlearned: where nothing is paid it stays as it is.
    """

    form: Form = soft_dueling  # how values are made from logits and V (rlseq.value_based.action_values)
    reference: Any = None  # π₀; a copy of the policy as it is now when not given

    def __post_init__(self) -> None:
        super().__post_init__()
        self.reference = self.reference or frozen_copy(self.policy)

    def stateful_parts(self) -> dict[str, Stateful]:
        """Return the parts that have a state, the reference policy among them."""
        return {**super().stateful_parts(), "reference": self.reference}

    def rewards(self, batch: Rollout) -> Tensor:
        """Return r/τ + log π₀(a|s): an entropy, and this reward, are τ times less than the divergence."""
        return super().rewards(batch) + evaluate_frozen(self.reference, batch).log_probs
