"""Maximum likelihood (XENT, teacher forcing, behaviour cloning): where every comparison starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rlseq.agent import Agent
from rlseq.engine import rescore
from rlseq.losses import per_token
from rlseq.references import demonstrations
from rlseq.types import Metrics, Rollout


@dataclass(eq=False)
class MLE(Agent):
    """Minimise −log π(y*ₜ | y*₍₁…ₜ₋₁₎, source) of the references, mean over tokens."""

    def collect(self, env: Any) -> Rollout:
        """References of random items."""
        return demonstrations(env)

    def loss(self, batch: Rollout) -> tuple[Tensor, Metrics]:
        """Negative log-likelihood, nats per token."""
        nll = per_token(-rescore(self.policy, batch).log_probs, batch.mask)
        return nll, {"nll": nll.detach()}
