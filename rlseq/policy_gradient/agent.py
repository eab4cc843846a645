"""`Agent`, the base of all algorithms, and schedules of its step size.

A schedule maps the share of training that is done to a share of `lr`. A policy that has converged at a
constant step size keeps the noise of its last steps; a step size that falls to zero removes it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rlseq.engine.computing import OFF, UNSTATED, Autocast, Compile, Trial, computing, now, ways, why_not
from rlseq.policy_gradient.diagnostics import merge_metrics
from rlseq.types import Metrics, Rollout, SteppedEnv
from rlseq.utils.arguments import (
    GradientNorm,
    NonNegativeFloat,
    Share,
    StepSize,
    check_fields,
    checked_arguments,
    rules_of,
    shown,
)
from rlseq.utils.flags import read_once, refuse_where
from rlseq.utils.ranks import total, total_gradients
from rlseq.utils.stateful import Stateful, load_states, states_of

Schedule = Callable[[float], float]
WARM_UP = 0.1  # share of training in which the step size rises


@checked_arguments
def constant(done: Share) -> float:
    """Return 1; the optimiser is left as it is, so that others may set its step size."""
    return 1.0


@checked_arguments
def linear(done: Share) -> float:
    """Return 1 − done."""
    return 1.0 - done


@checked_arguments
def cosine(done: Share) -> float:
    """Return (1 + cos(π · done)) / 2."""
    return (1.0 + math.cos(math.pi * done)) / 2


@checked_arguments
def warmup(done: Share) -> float:
    """Return min(done / 0.1, 1).

    Adam divides by a second moment that it has hardly measured in its first steps; after likelihood these
    steps, at their full size, undo a part of what was learned.
    """
    return min(done / WARM_UP, 1.0)


@checked_arguments
def warmup_linear(done: Share) -> float:
    """Return min(done / 0.1, (1 − done) / 0.9): a rise to 1, and a fall to 0."""
    return min(done / WARM_UP, (1.0 - done) / (1.0 - WARM_UP))


def checked_share(share: Any, done: float) -> float:
    """Return the answer of a schedule, a finite number ≥ 0, as a float."""
    if not isinstance(share, Real) or not 0 <= float(share) < math.inf:
        raise ValueError(
            f"schedule must return a finite number ≥ 0, the share of lr, got {shown(share)} "
            f"when {done:.4g} of training is done"
        )
    return float(share)


def handed_over(done: float, xent_share: float, longest: int, delta: int) -> int:
    """Return the number of words at the end of a reference that are no longer given.

    None for the first `xent_share` of training; then `delta`, 2 `delta`, … in stages of equal length, so that
    in the last of them no reference of at most `longest` words is given at all (Ranzato et al. 2016).
    """
    if done < xent_share:
        return 0
    stages = math.ceil(longest / delta)
    stage = 1 + int((done - xent_share) / (1 - xent_share) * stages + 1e-9)  # rounding ends no stage late
    return delta * min(stage, stages)


_SCHEDULES = (constant, linear, cosine, warmup, warmup_linear)
SCHEDULES: dict[str, Schedule] = {schedule.__name__: schedule for schedule in _SCHEDULES}


@dataclass(eq=False)
class Agent(ABC):
    """The base of all agents, which improve a policy batch by batch: `collect`, `loss`, `update`."""

    writes_texts: ClassVar[bool] = True  # False where its default settings are for vectors of numbers
    # Whether several processes learn as one does. Tests compare every agent of rlseq for which this is so;
    # a class of your own says it itself.
    for_ranks: ClassVar[bool] = True
    compiles: ClassVar[bool] = True  # False where texts are not written by one policy, or with gradients

    policy: Any  # a `Policy` that is an `nn.Module`
    lr: StepSize = 1e-3  # step size of Adam
    clip_norm: GradientNorm = 1.0  # gradients with a larger norm are scaled down to it
    weight_decay: NonNegativeFloat = 0.0  # weight decay of matrices, decoupled from the gradient (AdamW)
    schedule: Schedule = constant  # factor of lr as a function of the share of training that is done
    compile: Compile = OFF  # compile "rollout" or "all", the learning step too; "auto" measures what pays
    autocast: Autocast = OFF  # type in which networks multiply, "bfloat16"; "auto" measures what is faster

    def __post_init__(self) -> None:
        functions = (name for name, rule in rules_of(type(self)).items() if rule.wanted == "a function")
        for name in functions:
            if isinstance(factor := getattr(self, name), str):
                raise TypeError(
                    f"{type(self).__name__}({name}=…) takes a function, got {factor!r}; pass the function, "
                    f"or the name to rlseq.make_agent(…, {name}={factor!r})"
                )
        check_fields(self)
        if not isinstance(self.policy, nn.Module):
            raise TypeError(f"policy must be a torch.nn.Module that writes, got {shown(self.policy)}")
        self.optimizer = adam(self.policy.parameters(), self.lr, self.weight_decay)
        self.trial = self._trial_of_ways()

    def _trial_of_ways(self) -> Trial | None:
        """Return what chooses how to compute; None where nothing is stated, as by default."""
        if self.compile == self.autocast == OFF:
            return None
        if not type(self).compiles:
            raise ValueError(
                f"{type(self).__name__} takes neither compile nor autocast: its texts are written by several "
                "policies, or with gradients; leave both out"
            )
        device = next(self.policy.parameters()).device
        open_ = ways(self.compile, self.autocast, device.type)
        reasons = {why_not(way, device) for way in open_} - {None}
        possible = [way for way in open_ if why_not(way, device) is None]
        stated = f"compile={self.compile}, autocast={self.autocast}"
        if not possible:
            raise ValueError(f"{stated}: {reasons.pop()}")
        return Trial(possible, stated, device, " ".join(sorted(map(str, reasons))))

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Compute as `compile` and `autocast` say, in the context of one update: `collect` and `update`.

        On an accelerator the checks of its steps are read together, when a rollout or the context ends.
        """
        with read_once():
            if self.trial is None:
                yield
                return
            with computing(self.trial.way), self.trial.timed():
                yield

    def _check_entered(self) -> None:
        """Refuse an update that is not made as `compile` and `autocast` say."""
        if self.trial is not None and now() is UNSTATED:
            raise RuntimeError(
                f"compile={self.compile!r} and autocast={self.autocast!r} act in a context only; write "
                "`with agent.computing(): agent.update(agent.collect(env))`"
            )

    def check_computing(self, env: Any) -> None:
        """Refuse `compile` and `autocast` on a task without words, where they do nothing."""
        if self.trial is not None and isinstance(env, SteppedEnv):
            raise ValueError(
                "compile and autocast are for texts, and this task has steps of an environment; "
                "leave both out"
            )

    def check(self, env: Any) -> None:  # noqa: B027  (most agents refuse nothing)
        """Refuse a task that the agent cannot learn from; asked before anything is written or sampled."""

    @abstractmethod
    def collect(self, env: Any) -> Rollout:
        """Return a batch to learn from."""

    @abstractmethod
    def loss(self, batch: Rollout) -> tuple[Tensor, Metrics]:
        """Return what to minimise, and what to log."""

    def update(self, batch: Rollout) -> Metrics:
        """Take one gradient step on the loss of a batch."""
        return self.step([batch])

    def set_progress(self, done: float) -> None:
        """Set the step size for the next update; `done` is the share of training that lies behind.

        Every parameter group of the optimiser starts from its own step size, which is kept in the
        group, and so in checkpoints.
        """
        if self.trial is not None:
            self.trial.done = done
        if self.schedule is not constant:
            share = checked_share(self.schedule(done), done)
            for group in self.optimizer.param_groups:
                initial = group.setdefault("initial_lr", group["lr"])
                group["lr"] = initial * share

    def preparation(self) -> list[str]:
        """Return what is still to be learned before the first update, such as "D learns from 50 texts"."""
        return []

    def remark(self) -> str | None:
        """Return what the user must know about a training that has just ended; None if there is nothing."""
        return None

    def step(self, parts: Iterable[Rollout]) -> Metrics:
        """Take one gradient step on the sum of the losses of the parts of a batch."""
        self._check_entered()
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for parameter in parameters:
            parameter.grad = None
        losses, logs = [], []
        for part in parts:
            loss, metrics = self.loss(part)
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
            logs.append(metrics)
        total_gradients(parameters)
        norm = clip(parameters, self.clip_norm)
        if norm.is_cuda:  # whose error comes later; until then the optimiser takes no such step
            self.optimizer.found_inf = norm.isfinite().logical_not().float()  # type: ignore[attr-defined]
        self.optimizer.step()
        return {"loss": total(torch.stack(losses).sum()), **merge_metrics(logs), "grad_norm": norm}

    def stateful_parts(self) -> dict[str, Stateful]:
        """Return the parts that have a state, the policy apart, by name: what a checkpoint must keep.

        An agent with more such parts adds them: `return {**super().stateful_parts(), "mine": self.mine}`.
        """
        return {"optimizer": self.optimizer} | ({} if self.trial is None else {"trial": self.trial})

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all parts but the policy."""
        return states_of(self.stateful_parts())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the states of all parts but the policy."""
        load_states(self.stateful_parts(), state, type(self).__name__)


def adam(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Return Adam for the parameters that are trained; with weight decay AdamW (Loshchilov & Hutter 2019).

    Vectors, which are biases and the scales of normalisations, do not decay.
    """
    trained = [p for p in parameters if p.requires_grad]
    if not weight_decay:
        return torch.optim.Adam(trained, lr, fused=True)
    matrices, vectors = ([p for p in trained if (p.ndim > 1) is large] for large in (True, False))
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr, weight_decay=weight_decay, fused=True)


def clip(parameters: Iterable[Tensor], largest: float) -> Tensor:
    """Scale gradients to a norm of at most `largest`, and return the norm that they had.

    As `torch.nn.utils.clip_grad_norm_`, which spends more on sorting small tensors by device than on norms.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    finite = norm.isfinite()
    if norm.is_cuda or not finite:
        refuse_where(~finite, lambda: _not_finite(norm))
    torch._foreach_mul_(gradients, (largest / (norm + 1e-6)).clamp(max=1.0))
    return norm


def _not_finite(norm: Tensor) -> RuntimeError:
    return RuntimeError(f"the norm of the gradient is {float(norm)}; nothing was learned from this batch")
