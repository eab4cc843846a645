"""An LSTM that reads whole texts on a CPU, without work on padding, and without a product that is made twice.

    W xₜ + U hₜ₋₁ + b = (i, f, g, o)      cₜ = σ(f) cₜ₋₁ + σ(i) tanh(g)      hₜ = σ(o) tanh(cₜ)

PyTorch's layer multiplies W x at every place of a batch. Here W x + b is given: a row for every word of a
vocabulary, of which each place looks up one, and a share of every text where a part of x never changes. The
gradient of U is one product for all steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.utils.rnn import pack_padded_sequence

from rlseq.policies.matmul import product, product_of_columns

_aten: Any = torch.ops.aten  # whose derivatives of σ and tanh write where they are told


@dataclass(frozen=True, eq=False)
class Packed:
    """The real places of a batch `[B, T]`, step by step, the longest texts first.

    The texts of a step are so the first of those of the step before: the others have ended.
    """

    shape: tuple[int, int]  # B and T
    places: Tensor  # row · T + step of each, [N]
    at_work: Sequence[int]  # the number of texts in each step
    order: Tensor | None  # the rows, the longest text first, [B]; None where all are as long

    @classmethod
    def of(cls, words: Tensor, lengths: Tensor | None) -> Packed:
        """Return the places of texts `[B, T]` of these lengths `[B]`, at least 1; None where all have T."""
        rows, steps = words.shape
        places = torch.arange(rows * steps).view(rows, steps)
        if lengths is None:
            return cls((rows, steps), places.t().flatten(), [rows] * steps, None)
        packed = pack_padded_sequence(places, lengths, batch_first=True, enforce_sorted=False)
        return cls((rows, steps), packed.data, packed.batch_sizes.tolist(), packed.sorted_indices)

    def sorted(self, x: Tensor) -> Tensor:
        """Return a tensor of every row `[B, …]` in the order of the texts."""
        return x if self.order is None else x.index_select(0, self.order)

    def unpacked(self, x: Tensor) -> Tensor:
        """Return a tensor of every real place `[N, H]` as `[B, T, H]`, with zeros on padding."""
        rows, steps = self.shape
        return x.new_zeros(rows * steps, x.shape[1]).index_copy(0, self.places, x).view(rows, steps, -1)


def unrolled(
    entering: Tensor,
    which: Tensor,
    share: Tensor | None,
    weight: Tensor,
    memory: Sequence[Tensor],
    at_work: Sequence[int],
) -> Tensor:
    """Return h of every real place, `[N, H]`, packed.

    Args:
        entering: rows of W x + b, `[M, 4H]`.
        which: of these rows is read at each place, `[N]`.
        share: what is added to them in all places of a text, `[B, 4H]`.
        weight: U, `[4H, H]`.
        memory: h and c before the first word, `[B, H]` each; nothing where they are zero.
        at_work: the number of texts in each step.
    """
    h, c = memory if memory else (None, None)
    found: Tensor = _Unrolled.apply(entering, which, share, weight, h, c, at_work)  # type: ignore[no-untyped-call]
    return found


class _Unrolled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        entering: Tensor,
        which: Tensor,
        share: Tensor | None,
        weight: Tensor,
        h: Tensor | None,
        c: Tensor | None,
        at_work: Sequence[int],
    ) -> Tensor:
        ctx.save_for_backward(entering, which, share, weight, h, c)
        ctx.at_work, ctx.steps, states = at_work, [], []
        for n, read in zip(at_work, torch.split(which, [*at_work]), strict=True):
            gates = entering.index_select(0, read)
            if share is not None:
                gates += share[:n]
            if h is not None:
                gates += product(h[:n], weight.t())
            h, *kept = _cell(gates, None if c is None else c[:n])
            c = kept[0]
            states.append(h)
            if any(ctx.needs_input_grad):
                ctx.steps.append((h, *kept, gates))
        return torch.cat(states)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_states: Tensor) -> tuple[Tensor | None, ...]:
        entering, which, share, weight, first_h, first_c = ctx.saved_tensors
        by_gates = by_states.new_empty(len(which), len(weight))
        by_share = None if share is None else torch.zeros_like(share)
        by_h = by_c = by_states.new_zeros(0, weight.shape[1])  # of texts that go on
        given = zip(*(torch.split(x, [*ctx.at_work]) for x in (by_states, by_gates)), strict=True)
        for t, (by_state, by_gate) in reversed([*enumerate(given)]):
            by_state = by_state.clone()
            by_state[: len(by_h)] += by_h
            before = ctx.steps[t - 1][1] if t else first_c
            _, _, shown, gates = ctx.steps[t]
            by_c = _cell_backward(by_state, by_c, before, shown, gates, by_gate)
            if by_share is not None:
                by_share[: len(by_gate)] += by_gate
            if t or first_h is not None:
                by_h = product(by_gate, weight)
        # One product for all steps: each has the gradient of its gates, and h of the step before.
        first = by_states[:0] if first_h is None else first_h
        pairs = zip(ctx.steps, ctx.at_work[1:], strict=False)
        before = torch.cat([first, *(step[0][:n] for step, n in pairs)])
        needed = ctx.needs_input_grad
        return (
            _aten.embedding_dense_backward(by_gates, which, len(entering), -1, False) if needed[0] else None,
            None,
            by_share,
            product_of_columns(by_gates[len(by_gates) - len(before) :], before) if needed[3] else None,
            None if first_h is None else by_h,
            None if first_c is None else by_c,
            None,
        )


def _cell(gates: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return hₜ, cₜ and tanh(cₜ); of the gates `[n, 4H]` σ and tanh are taken in place."""
    enter, keep, candidate, show = gates.chunk(4, 1)
    gates[:, : 2 * enter.shape[1]].sigmoid_()
    _tanh_(candidate)
    show.sigmoid_()
    new = enter * candidate
    if c is not None:
        new.addcmul_(keep, c)
    shown = _tanh_(new.clone())
    return show * shown, new, shown


def _cell_backward(
    by_h: Tensor, by_later: Tensor, c: Tensor | None, shown: Tensor, gates: Tensor, by_gates: Tensor
) -> Tensor:
    """Return the gradient of cₜ₋₁, and write that of the gates into `by_gates` `[n, 4H]`.

    Args:
        by_h: gradient of hₜ, `[n, H]`; it is overwritten.
        by_later: gradient of cₜ from later steps, of the first texts.
        c: cₜ₋₁; None where it is 0.
        shown: tanh(cₜ).
        gates: after σ and tanh.
        by_gates: the result.
    """
    enter, keep, candidate, show = gates.chunk(4, 1)
    by_enter, by_keep, by_candidate, by_show = by_gates.chunk(4, 1)
    _aten.sigmoid_backward(by_h * shown, show, grad_input=by_show)
    by_c = _aten.tanh_backward(by_h.mul_(show), shown)
    by_c[: len(by_later)] += by_later
    _aten.sigmoid_backward(by_c * candidate, enter, grad_input=by_enter)
    _aten.tanh_backward(by_c * enter, candidate, grad_input=by_candidate)
    if c is None:
        by_keep.zero_()
    else:
        _aten.sigmoid_backward(by_c * c[: len(by_c)], keep, grad_input=by_keep)
    return by_c.mul_(keep)  # type: ignore[no-any-return]


def _tanh_(x: Tensor) -> Tensor:
    """Return tanh(x) = 2σ(2x) − 1, in place: PyTorch's σ takes a ninth of the time of its tanh."""
    return x.mul_(2).sigmoid_().mul_(2).sub_(1)
