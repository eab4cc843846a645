"""A3C: actor–critic by workers whose gradients are those of older weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from rlseq.agents.a2c import A2C
from rlseq.mdp.sequence_env import unwrap_task
from rlseq.policy_gradient.agent import clip
from rlseq.policy_gradient.baselines import Factor
from rlseq.policy_gradient.diagnostics import merge_metrics, rollout_metrics
from rlseq.policy_gradient.worker import Worker, check_for_workers
from rlseq.types import BasePolicy, LearningBatch, Metrics, Rollout
from rlseq.utils.arguments import Range
from rlseq.utils.stateful import Stateful, UpdateCounter


class Contribution(NamedTuple):
    """The result of a worker: texts of its weights, and the gradient of their loss at these weights."""

    batch: LearningBatch
    gradients: list[Tensor | None]
    metrics: Metrics


@dataclass(eq=False)
class A3C(A2C):
    """A2C by W workers:   θ ← θ + Adam(∇J(θ_w)),   then θ_w ← θ.

    Mnih et al. 2016. A worker writes with weights θ_w of its own and differentiates by them, in a thread,
    while others do. Gradients are applied in turn, W − 1 updates old, and not as they come: results do not
    depend on the timing of threads, and W = 1 is A2C.
    """

    for_ranks: ClassVar[bool] = False
    compiles: ClassVar[bool] = False

    workers: Annotated[int, Range(1, 64)] = 2  # W, number of workers

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.minibatches > 1:
            raise ValueError(
                "the workers of a3c give one gradient for each batch; leave minibatches at 1, or take ppo"
            )
        if isinstance(self.baseline, Factor) and type(self.baseline).learn is not Factor.learn:
            raise ValueError(
                "the workers of a3c share a baseline, which must not learn; take baseline='value'"
            )
        self.turns = UpdateCounter()
        self.team = [Worker(self, A3C.contribution) for _ in range(self.workers)]
        self.given: Contribution | None = None

    def stateful_parts(self) -> dict[str, Stateful]:
        """Return the parts that have a state, the workers among them."""
        team = {f"worker {number}": worker for number, worker in enumerate(self.team)}
        return {**super().stateful_parts(), "turns": self.turns, **team}

    def check(self, env: Any) -> None:
        """Refuse a task that workers cannot share."""
        super().check(env)
        check_for_workers("a3c", unwrap_task(env))

    def contribution(self, env: Any) -> Contribution:
        """Return texts of this policy, and the gradient of their loss."""
        parameters = _trained(self.policy)
        for parameter in parameters:
            parameter.grad = None
        batch, logs = self.with_advantages(self.gather(env)), []
        for part in self._parts(batch, None):
            loss, metrics = self.loss(part)
            loss.backward()  # type: ignore[no-untyped-call]
            logs.append({"loss": loss.detach(), **metrics})
        return Contribution(batch, [p.grad for p in parameters], merge_metrics(logs))

    def collect(self, env: Any) -> Rollout:
        """Return the texts of the worker whose turn it is; idle ones begin with the weights of now."""
        env = unwrap_task(env)
        self.check(env)
        for worker in self.team:
            if worker.seed is None:
                worker.begin(env, self.policy)
        self.given = self.team[int(self.turns.updates) % self.workers].finish(env)
        self.turns.updates = self.turns.updates + 1
        return self.given.batch

    def update(self, batch: Rollout) -> Metrics:
        """Apply the gradient of the worker that has written a batch; learn from any other as A2C does."""
        given, self.given = self.given, None
        if given is None or given.batch is not batch:
            return super().update(batch)
        parameters = _trained(self.policy)
        for parameter, gradient in zip(parameters, given.gradients, strict=True):
            parameter.grad = gradient
        norm = clip(parameters, self.clip_norm)
        self.optimizer.step()
        if isinstance(self.policy, BasePolicy):
            self.policy.update_statistics(given.batch)
        return {**rollout_metrics(given.batch), **given.metrics, "grad_norm": norm}


def _trained(policy: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Return the parameters of a policy that are trained."""
    return [p for p in policy.parameters() if p.requires_grad]
