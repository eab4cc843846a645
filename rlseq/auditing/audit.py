"""`rlseq.audit`: what an estimator's gradient is, exactly, on a task small enough to enumerate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from rlseq.agents import AGENTS
from rlseq.auditing.answer import EXACT, Audit, Followed
from rlseq.auditing.changes import Changes
from rlseq.auditing.estimators import Estimates, Estimator, names_of, of_agent, of_function
from rlseq.auditing.objectives import gradient_of, objectives
from rlseq.auditing.texts import AuditConfig, Enumeration
from rlseq.utils.arguments import checked_arguments
from rlseq.utils.errors import check_options, hint


@checked_arguments
def audit(
    estimator: Estimator | str,
    objective: Estimator | str = "expected reward",
    hyper: Mapping[str, Any] | None = None,
    **config: Any,
) -> Audit:
    """Compare the mean gradient of an estimator with the exact gradient of an objective.

    Args:
        estimator: a function that returns a loss, and is called with the arguments that its parameters name
            (`rlseq.auditing.estimators.ABOUT_ARGUMENTS`); or the name of an agent.
        objective: what the estimator is meant for: the name of an objective
            (`rlseq.auditing.objectives.objectives`) or of an agent, or another estimator.
        hyper: hyper-parameters of the agent.
        **config: the fields of `rlseq.auditing.texts.AuditConfig`, the task.
    """
    check_options(config, [field.name for field in fields(AuditConfig)], "rlseq.audit")
    settings = AuditConfig(**config)
    every = Enumeration(settings)
    found, off_policy, rest = _measured(estimator, every, dict(hyper or {}))
    wanted = _wanted(objective, every)
    names = () if isinstance(estimator, str) else tuple(names_of(estimator))
    bias, along, across = _apart(found.mean, wanted)
    vanishes = float(found.mean.norm()) < 1e-9 * max(found.variance, 1e-300) ** 0.5
    norm = float(found.mean.square().sum())
    reinforce = of_function(_reinforce, every, every.tables, every.tables.policy)
    return Audit(
        estimator=shown_name(estimator),
        objective=shown_name(objective),
        asks=names,
        config=settings,
        batches=len(found.chance),
        texts=found.texts,
        bias=bias,
        along=along,
        across=across,
        follows=() if vanishes else _followed(found.mean, every),
        vanishes=vanishes,
        noise=None if vanishes else found.variance / norm,
        noise_of_reinforce=reinforce.variance / float(reinforce.mean.square().sum()),
        off_policy=None if off_policy is None else _apart(off_policy.mean, wanted)[0],
        **rest,
    )


def shown_name(estimator: Any) -> str:
    """Return the name of an estimator or objective, as it is shown."""
    if isinstance(estimator, str):
        return estimator
    inner = getattr(estimator, "func", estimator)  # of functools.partial
    return getattr(inner, "__name__", type(inner).__name__)


def _measured(
    estimator: Any, every: Enumeration, hyper: dict[str, Any]
) -> tuple[Estimates, Estimates | None, dict[str, Any]]:
    """Return the gradients of every batch, on and off policy, and what changes them."""
    if isinstance(estimator, str):
        if estimator not in AGENTS:
            raise ValueError(
                f"no agent is called {estimator!r}; pass a function, or on the command line module:function"
                f"{hint(estimator, AGENTS)}"
            )
        return of_agent(estimator, every, **hyper), None, {}
    if hyper:
        raise ValueError(
            f"hyper is for agents; bind arguments of a function with functools.partial, got {hyper}"
        )
    names, on_policy = names_of(estimator), every.tables.on_policy()
    writer = getattr(on_policy, every.config.sampled_from)
    found = of_function(estimator, every, on_policy, writer)
    older = any(name.startswith("old") for name in names) and every.config.sampled_from == "policy"
    off_policy = of_function(estimator, every, every.tables, every.tables.old) if older else None
    return found, off_policy, _changes(Changes(estimator, names, every))


def _changes(changes: Changes) -> dict[str, Any]:
    longer_text, beside_longer = changes.length()
    return {
        "padding": changes.padding(),
        "batch_size": changes.batch_size(),
        "micro_batches": changes.micro_batches(),
        "longer_text": longer_text,
        "beside_longer": beside_longer,
        "float32": changes.dtype(torch.float32),
        "bfloat16": changes.dtype(torch.bfloat16),
    }


def _wanted(objective: Any, every: Enumeration) -> Tensor:
    """Return the gradient with which the estimator is compared."""
    known = objectives(every.config.samples)
    if objective in known:
        return gradient_of(every, known[objective])
    if isinstance(objective, str) and objective in AGENTS:
        return of_agent(objective, every).mean
    if isinstance(objective, str):
        raise ValueError(f"no objective or agent is called {objective!r}{hint(objective, [*known, *AGENTS])}")
    on_policy = every.tables.on_policy()
    return of_function(objective, every, on_policy, getattr(on_policy, every.config.sampled_from)).mean


def _apart(found: Tensor, wanted: Tensor) -> tuple[float, float, float]:
    """Return the relative bias of a gradient, and its parts along and across the one wanted."""
    factor = found @ wanted / wanted.square().sum()
    off, across = found - wanted, found - factor * wanted
    return float(off.norm() / wanted.norm()), float(factor - 1), float(across.norm() / wanted.norm())


def _followed(mean: Tensor, every: Enumeration) -> tuple[Followed, ...]:
    """Return the known objectives whose gradient a mean gradient is, up to a factor."""
    found = []
    for name, objective in objectives(every.config.samples).items():
        wanted = gradient_of(every, objective)
        factor = mean @ wanted / wanted.square().sum()
        if float((mean - factor * wanted).norm()) < EXACT * float(mean.norm()):
            found.append(Followed(name, float(factor)))
    return tuple(found)


def _reinforce(log_probs: Tensor, mask: Tensor, rewards: Tensor) -> Tensor:
    return -((log_probs * mask).sum(1) * rewards).mean()
