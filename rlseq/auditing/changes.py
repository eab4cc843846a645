"""Changes of an estimator's gradient with padding, lengths, batch size, micro-batches and dtype."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rlseq.auditing.estimators import Estimator, gradient_on, loss_of
from rlseq.auditing.texts import AuditBatch, Enumeration, Tables

DRAWN_BATCHES = 8  # batches of two groups, drawn once
PADDING = 3  # further columns


class Changes:
    """The measurements, on policy, of an estimator.

    Args:
        estimator: the function.
        names: the arguments that it asks for.
        every: the task.
    """

    def __init__(self, estimator: Estimator, names: Sequence[str], every: Enumeration) -> None:
        self.estimator, self.names, self.every = estimator, names, every
        self.tables = every.tables.on_policy()
        self.drawn = [self._draw(trial) for trial in range(DRAWN_BATCHES)]
        self.usual = [self.of(batch) for batch in self.drawn]

    def of(self, batch: AuditBatch) -> Tensor:
        """Return the gradient on a batch."""
        return gradient_on(self.estimator, self.names, batch, self.tables)

    def padding(self) -> float:
        """Return the relative change when further columns of padding are added."""
        return self._change([self.of(batch.padded(PADDING, self.every.spare)) for batch in self.drawn])

    def batch_size(self) -> float | None:
        """Return by how much the gradient is multiplied when every text is in the batch twice."""
        twice = [self.of(self._twice(batch)) for batch in self.drawn]
        return _ratio(torch.stack(twice), torch.stack(self.usual))

    def micro_batches(self) -> float:
        """Return the relative change when the mean of the gradients of single groups is taken."""
        found = []
        for batch in self.drawn:
            halves = torch.arange(len(batch.rewards)).chunk(2)
            found.append(torch.stack([self.of(batch.take(half)) for half in halves]).mean(0))
        return self._change(found)

    def dtype(self, dtype: torch.dtype) -> float | str:
        """Return the relative change when all numbers have another type, or the error of the estimator."""
        tables = Tables(*(table.detach().to(dtype) for table in self.tables))
        tables = tables._replace(policy=tables.policy.requires_grad_())
        try:
            found = [gradient_on(self.estimator, self.names, batch, tables) for batch in self.drawn]
        except (RuntimeError, TypeError, ValueError) as error:
            raised = error.__cause__ or error  # by the estimator itself
            return f"{type(raised).__name__}: {' '.join(str(raised).split())[:80]}"
        return self._change([each.to(torch.float64) for each in found])

    def length(self) -> tuple[float | None, float | None]:
        """Return the weight of a word in a long text, and beside longer texts; 1 where it is the same.

        All places are in one state, all texts repeat one word, and two groups have the same rewards. First,
        one has texts of one word and the other of T: the weight of a word of the second by one of the first.
        Then the first is compared with itself beside a group of short texts.
        """
        samples, steps = self.every.config.samples, self.every.config.length
        short, long = (self._alike(lengths) for lengths in ((1, 1), (1, steps)))
        beside_short, beside_long = self._weights(short), self._weights(long)
        one, other = beside_long[:samples, 0], beside_long[samples:].mean(1)
        first = beside_short[:samples, 0]
        return _ratio(other, one), _ratio(one, first)

    def _draw(self, trial: int) -> AuditBatch:
        """Draw a batch of two groups, of different contexts and with different rewards in each."""
        config, random = self.every.config, torch.Generator().manual_seed(trial)
        context = torch.randperm(config.contexts, generator=random).repeat(2)[:2]
        rows = [
            c * self.every.count
            + torch.randperm(self.every.count, generator=random).repeat(8)[: config.samples]
            for c in context
        ]
        return self.every.batch(torch.cat(rows))

    def _twice(self, batch: AuditBatch) -> AuditBatch:
        """Return a batch and the same groups again."""
        rows = torch.arange(len(batch.rewards))
        doubled = batch.take(torch.cat([rows, rows]))
        return replace(doubled, groups=torch.arange(len(doubled.rewards)) // batch.samples)

    def _alike(self, lengths: tuple[int, int]) -> AuditBatch:
        """Return two groups with equal rewards, of texts of given lengths, in which all places are alike."""
        samples, steps = self.every.config.samples, self.every.config.length
        long = torch.tensor(lengths).repeat_interleave(samples).unsqueeze(1)
        mask = torch.arange(steps) < long
        rewards = torch.linspace(-1.0, 2.0, samples, dtype=torch.float64).repeat(2)
        return AuditBatch(
            states=torch.full_like(mask, self.every.spare, dtype=torch.int64),
            tokens=mask.long(),
            mask=mask,
            rewards=rewards,
            advantages=rewards - rewards.mean() + 0.25,
            groups=torch.arange(2 * samples) // samples,
            samples=samples,
        )

    def _weights(self, batch: AuditBatch) -> Tensor:
        """Return the gradient at the first logit of every place of a batch, `[B, T]`, 0 at padding."""
        rows, steps = batch.tokens.shape
        places = torch.arange(rows * steps).view(rows, steps)  # a row of the tables for each place
        tables = Tables(*(t.detach()[self.every.spare].repeat(rows * steps, 1) for t in self.tables))
        tables = tables._replace(policy=tables.policy.requires_grad_())
        loss = loss_of(self.estimator, self.names, replace(batch, states=places), tables)
        (found,) = torch.autograd.grad(loss, tables.policy)
        return found[:, 0].view(rows, steps) * batch.mask

    def _change(self, found: Sequence[Tensor]) -> float:
        usual = torch.stack(self.usual)
        return float((torch.stack(list(found)) - usual).norm() / usual.norm().clamp(min=1e-300))


def _ratio(ours: Tensor, theirs: Tensor) -> float | None:
    """Return the factor between two vectors, by least squares; None where the second is 0."""
    size = float(theirs.square().sum())
    return float((ours * theirs).sum()) / size if size else None
