"""Estimators: functions that are called with the arguments that they name, and agents of rlseq."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlseq.agents import AGENTS, make_agent
from rlseq.auditing.texts import AuditBatch, Enumeration, Tables, log_probs_of
from rlseq.policy_gradient.algorithm import PolicyGradient
from rlseq.policy_gradient.exact import every_batch
from rlseq.utils.arguments import shown
from rlseq.utils.errors import hint
from rlseq.utils.masks import at_last

Estimator = Callable[..., Tensor]  # arguments by the names of ARGUMENTS -> loss, one number


ARGUMENTS: dict[str, Callable[[AuditBatch, Tables], Any]] = {
    "log_probs": lambda batch, tables: log_probs_of(tables.policy, batch),
    "old_log_probs": lambda batch, tables: log_probs_of(tables.old, batch),
    "reference_log_probs": lambda batch, tables: log_probs_of(tables.reference, batch),
    "logits": lambda batch, tables: tables.policy[batch.states],
    "old_logits": lambda batch, tables: tables.old[batch.states],
    "reference_logits": lambda batch, tables: tables.reference[batch.states],
    "tokens": lambda batch, tables: batch.tokens,
    "mask": lambda batch, tables: batch.mask,
    "rewards": lambda batch, tables: batch.rewards.to(tables.policy.dtype),
    "token_rewards": lambda batch, tables: at_last(batch.rewards.to(tables.policy.dtype), batch.mask),
    "advantages": lambda batch, tables: _everywhere(batch.advantages, batch, tables),
    "groups": lambda batch, tables: batch.groups,
    "samples": lambda batch, tables: batch.samples,
}
ABOUT_ARGUMENTS = {
    "log_probs": "[B, T], log-probabilities of the words under the policy; the only gradient, with logits",
    "old_log_probs": "[B, T], under the older policy that wrote the texts; on policy the same numbers",
    "reference_log_probs": "[B, T], under a third policy: the reference of a KL term, or a teacher",
    "logits": "[B, T, V], of the policy",
    "old_logits": "[B, T, V]",
    "reference_logits": "[B, T, V]",
    "tokens": "[B, T], the words, 0 at padding",
    "mask": "[B, T] bool, True at the words of a text, its end included",
    "rewards": "[B], of whole texts",
    "token_rewards": "[B, T], the reward at the last word of a text, 0 elsewhere",
    "advantages": "[B, T], reward − exact mean reward of the context, at every place",
    "groups": "[B], the number of the group: texts of a group share a context and follow each other",
    "samples": "K, the number of texts in a group",
}


class Estimates(NamedTuple):
    """The gradient of the loss of every batch that could be sampled, and the probability of the batch."""

    gradients: Tensor  # [batches, logits]
    chance: Tensor  # [batches]
    texts: int  # in a batch

    @property
    def mean(self) -> Tensor:
        """The expected gradient."""
        return self.chance @ self.gradients

    @property
    def variance(self) -> float:
        """The sum over logits of the variance, times the number of texts in a batch."""
        around = self.gradients - self.mean
        return float(self.chance @ around.square().sum(1)) * self.texts


def names_of(estimator: Estimator) -> list[str]:
    """Return the arguments that an estimator asks for; refuse one that asks for what an audit has not."""
    if not callable(estimator):
        raise TypeError(f"an estimator must be a function that returns a loss, got {shown(estimator)}")
    try:
        parameters = inspect.signature(estimator).parameters.values()
    except ValueError:
        raise TypeError(f"{shown(estimator)} does not tell its parameters; wrap it in a function") from None
    single = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    for parameter in single:
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise TypeError(
                f"the estimator's argument {parameter.name!r} must be allowed by name; drop the /"
            )
        if parameter.name not in ARGUMENTS and parameter.default is parameter.empty:
            raise TypeError(
                f"the estimator asks for {parameter.name!r}, which an audit does not have; give it a "
                f"default, or bind it with functools.partial{hint(parameter.name, ARGUMENTS)}"
            )
    found = [parameter.name for parameter in single if parameter.name in ARGUMENTS]
    if not {"log_probs", "logits"} & set(found):
        raise TypeError(
            "an estimator must ask for log_probs or logits, through which its gradient goes; it asks for "
            f"{', '.join(found) or 'nothing that an audit has'}"
        )
    return found


def loss_of(estimator: Estimator, names: Sequence[str], batch: AuditBatch, tables: Tables) -> Tensor:
    """Return an estimator's loss on a batch, once it is one number with a gradient."""
    try:
        loss = estimator(**{name: ARGUMENTS[name](batch, tables) for name in names})
    except Exception as error:
        raise ValueError(_whose(estimator, error)) from error
    if not isinstance(loss, Tensor) or loss.shape != ():
        got = f"a tensor of shape {list(loss.shape)}" if isinstance(loss, Tensor) else shown(loss)
        raise ValueError(
            f"an estimator must return its loss, a tensor of shape [], got {got}; "
            "sum or average over texts and words, and return nothing beside the loss"
        )
    if not loss.requires_grad:
        raise ValueError(
            "the loss has no gradient: it does not depend on log_probs or logits, or was detached from them"
        )
    if not loss.isfinite():
        raise ValueError(
            f"the loss is {loss.item()} on a batch of {len(batch.rewards)} texts with rewards "
            f"{[round(float(r), 3) for r in batch.rewards]} and lengths {batch.mask.sum(1).tolist()}"
        )
    return loss


def _whose(estimator: Estimator, error: Exception) -> str:
    """Return a message that says which estimator failed, and at which line of its file."""
    frames = traceback.extract_tb(error.__traceback__)[1:]  # without that of `loss_of`
    own = [frame for frame in frames if frame.filename == frames[0].filename]
    place = f" ({own[-1].filename}, line {own[-1].lineno}: {own[-1].line})" if own else ""
    name = getattr(estimator, "__name__", type(estimator).__name__)
    return f"your estimator {name} raised {type(error).__name__}: {error}{place}"


def gradient_on(estimator: Estimator, names: Sequence[str], batch: AuditBatch, tables: Tables) -> Tensor:
    """Return the gradient of an estimator's loss on a batch, by every logit, as one vector."""
    loss = loss_of(estimator, names, batch, tables)
    (found,) = torch.autograd.grad(loss, tables.policy, allow_unused=True)
    if found is None:
        raise ValueError("the loss has a gradient, but not by log_probs or logits")
    return found.flatten()


def of_function(
    estimator: Estimator, every: Enumeration, tables: Tables, writer: Tensor, groups: int = 1
) -> Estimates:
    """Return the gradient of a function on every batch.

    Args:
        estimator: the function.
        every: the task.
        tables: logits that the function sees.
        writer: logits of the policy that writes.
        groups: number of groups in a batch.
    """
    names = names_of(estimator)
    rows, chance = every.batches(writer, groups)
    found = torch.stack([gradient_on(estimator, names, every.batch(row), tables) for row in rows])
    return Estimates(found, chance, rows.shape[1])


def of_agent(name: str, every: Enumeration, **hyper: Any) -> Estimates:
    """Return the gradient of an agent of rlseq on every batch of K texts.

    An agent that compares the texts of a context gets K of one context; others, K of any contexts.

    Args:
        name: of the agent.
        every: the task.
        **hyper: hyper-parameters.
    """
    cls = AGENTS[name]
    if not issubclass(cls, PolicyGradient) or not cls.uses_task_reward:
        raise ValueError(
            f"{name} cannot be audited: an audit needs a policy gradient of rewards of the task, such as rloo"
        )
    samples = hyper.setdefault("samples", every.config.samples if cls.samples > 1 else 1)
    agent: Any = make_agent(name, every.policy(), **hyper)
    rows = max(every.config.samples // samples, 1) * samples
    every.batches(every.tables.policy, rows // samples, samples)  # refuses too many
    batch, chance = every_batch(agent, agent.paid_on(every.env), rows)
    parts = [batch.take(slice(start, start + rows)) for start in range(0, len(batch.actions), rows)]
    weight = agent.policy.head.weight
    slopes = [torch.autograd.grad(agent.loss(part)[0], weight)[0].t().flatten() for part in parts]
    return Estimates(torch.stack(slopes), chance, rows)


def _everywhere(values: Tensor, batch: AuditBatch, tables: Tables) -> Tensor:
    """Return values `[B]` at every place, padding included."""
    return values.to(tables.policy.dtype).unsqueeze(1).expand(batch.tokens.shape)
