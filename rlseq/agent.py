"""`Agent`: collect a batch, say what its loss is, take a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlseq.arguments import PositiveFloat, check_fields, shown
from rlseq.diagnostics import joined
from rlseq.schedules import Schedule, checked_share, constant, scheduled
from rlseq.types import Metrics, Rollout


@dataclass(eq=False)
class Agent(ABC):
    """Improves a policy, batch by batch; an algorithm says how a batch is gathered and what its loss is."""

    policy: Any  # a `Policy` that is an `nn.Module`
    lr: PositiveFloat = 1e-3  # step size of Adam
    clip_norm: PositiveFloat = 1.0  # largest norm of the gradient
    schedule: Schedule | str = "constant"  # of lr, over the share of training that is done (rlseq.schedules)

    def __post_init__(self) -> None:
        check_fields(self)
        if not isinstance(self.policy, nn.Module):
            raise TypeError(f"policy must be a torch.nn.Module that writes, got {shown(self.policy)}")
        self.schedule = scheduled(self.schedule)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), self.lr, fused=True)

    def check(self, env: Any) -> None:  # noqa: B027  (most agents refuse nothing)
        """Refuse a task that the agent cannot learn from; asked before anything is written or sampled."""

    @abstractmethod
    def collect(self, env: Any) -> Rollout:
        """Gather a batch."""

    @abstractmethod
    def loss(self, batch: Rollout) -> tuple[Tensor, Metrics]:
        """What to minimise, and what to log."""

    def update(self, batch: Rollout) -> Metrics:
        """One gradient step on the loss of a batch."""
        return self.step([batch])

    def pace(self, done: float) -> None:
        """Set the step size for the next update; `done` is the share of training that lies behind.

        Every parameter group of the optimiser starts from its own step size, which is kept in the
        group, and so in checkpoints.
        """
        if self.schedule is not constant:
            share = checked_share(self.schedule(done), done)  # type: ignore[operator]
            for group in self.optimizer.param_groups:
                initial = group.setdefault("initial_lr", group["lr"])
                group["lr"] = initial * share

    def remark(self) -> str | None:
        """What the user must know about a training that has just ended; None if there is nothing."""
        return None

    def step(self, parts: Iterable[Rollout]) -> Metrics:
        """One gradient step on the sum of the losses of the parts of a batch."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for parameter in parameters:
            parameter.grad = None
        losses, logs = [], []
        for part in parts:
            loss, metrics = self.loss(part)
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
            logs.append(metrics)
        norm = clip(parameters, self.clip_norm)
        self.optimizer.step()
        return {"loss": torch.stack(losses).sum(), **joined(logs), "grad_norm": norm}

    def state_dict(self) -> dict[str, Any]:
        """What an interrupted run must remember beside its hyper-parameters: every part's tensors."""
        parts = {name: part for name, part in vars(self).items() if name != "policy"}
        return {name: part.state_dict() for name, part in parts.items() if hasattr(part, "state_dict")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        for name, part in state.items():
            getattr(self, name).load_state_dict(part)


def clip(parameters: Iterable[Tensor], largest: float) -> Tensor:
    """Scale gradients to a norm of at most `largest`; returns the norm that they had.

    As `torch.nn.utils.clip_grad_norm_`, which spends more on sorting small tensors by device than on norms.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    if not norm.isfinite():
        raise RuntimeError(f"the norm of the gradient is {float(norm)}; nothing was learned from this batch")
    torch._foreach_mul_(gradients, (largest / (norm + 1e-6)).clamp(max=1.0))
    return norm
