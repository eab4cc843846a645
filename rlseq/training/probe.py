"""Measurements of an agent at evaluations that need additional samples and gradients."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlseq.engine.rollout import evaluate_frozen
from rlseq.mdp.sequence_env import sequence_env
from rlseq.metrics.diversity import DistinctN
from rlseq.metrics.ngrams import PAD
from rlseq.policy_gradient import exact
from rlseq.policy_gradient.baselines import GreedyReturn
from rlseq.policy_gradient.losses import kl_estimate, per_token
from rlseq.types import Metrics, Rollout
from rlseq.utils.ranks import ALONE, gathered, total


@dataclass(eq=False)
class PolicyProbe:
    """Compares a policy with its greedy texts, its initial weights, and the true objective if it is known.

    The agent, the episodes of the task and its random numbers are not changed.

    Args:
        agent: a `PolicyGradient`; its present weights are the initial policy.
        env: the task it learns on.
        parts: micro-batches whose gradients are compared; at least 2.
    """

    agent: Any
    env: Any
    parts: int = 4

    def __post_init__(self) -> None:
        if self.parts < 2:
            raise ValueError(f"parts must be ≥ 2, so that gradients can be compared, got {self.parts}")
        self.env = sequence_env(self.env)
        self.start = deepcopy(self.agent.policy).requires_grad_(False)

    def __call__(self) -> Metrics:
        """Return all measurements, made on a fresh batch."""
        with self.env.preserved():
            # Without `catch_up`: a measurement must not train a discriminator.
            batch = self.agent.gather(self.agent.paid_on(self.env))
            seen = {**self.greedy(batch), **self.moved(batch), **self.texts(batch), **self.noise(batch)}
            return {**seen, **self.truth()}

    def greedy(self, batch: Rollout) -> Metrics:
        """Return the rewards of samples against the greedy text; if few exceed it, SCST has little signal."""
        if batch.greedy is None:
            batch = GreedyReturn().prepare(batch, self.agent.policy, self.agent.paid_on(self.env))
        assert batch.greedy is not None
        returns, best = gathered(batch.returns), gathered(batch.greedy)
        return {
            "greedy_reward": best.mean(),
            "greedy_gap": (returns - best).mean(),
            "beats_greedy": (returns > best).float().mean(),
        }

    def moved(self, batch: Rollout) -> Metrics:
        """Return KL(π ‖ π_start), nats per token, estimated from samples of π."""
        moved = kl_estimate(evaluate_frozen(self.start, batch).log_probs - batch.log_probs)
        return {"kl_start": total((moved * per_token(batch.mask)).sum())}

    def texts(self, batch: Rollout) -> Metrics:
        """Return the share of texts that end with EOS, and their diversity."""
        eos = self.env.vocab.eos
        actions, mask, ends = map(gathered, (batch.actions, batch.mask, batch.ends))
        metrics = {} if eos is None else {"eos_rate": (actions[ends] == eos).float().mean()}
        ids = torch.where(mask, actions, PAD)
        return metrics | {f"distinct_{n}": DistinctN(order=n).pool(ids) for n in (1, 2)}

    def noise(self, batch: Rollout) -> Metrics:
        """Return the variance of the gradient between micro-batches, and its ratio to the squared norm.

        Groups are not divided; with a single group nothing is returned.
        """
        batch = self.agent.with_advantages(batch)
        groups = torch.arange(len(batch.actions), device=batch.actions.device).view(-1, batch.samples)
        if len(groups) < 2:
            return {}
        split = groups.tensor_split(min(self.parts, len(groups)))
        parts = [self._gradient(batch.take(rows.flatten())) for rows in split]
        gradients = torch.stack(parts)
        variance = gradients.var(0).sum()
        return {
            "grad_variance": variance,
            "grad_noise": variance / gradients.mean(0).square().sum().clamp(min=1e-20),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the initial policy, with which a resumed run is compared as well."""
        return {"start": self.start.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the initial policy."""
        self.start.load_state_dict(state["start"])

    def _gradient(self, batch: Rollout) -> Tensor:
        loss, _ = self.agent.loss(self.agent.with_token_weights(batch))
        parameters = [p for p in self.agent.policy.parameters() if p.requires_grad]
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        return total(torch.cat([g.flatten() for g in found if g is not None]))

    def truth(self) -> Metrics:
        """Return the true objective, if all texts can be enumerated."""
        env = self.env.replace(rank=ALONE)
        texts = len(env.vocab) ** env.max_len * env.size
        return {"objective": exact.objective(self.agent.policy, env)} if texts <= exact.LIMIT else {}
