"""Recurrent layers that read whole texts on a CPU without work on padding, and make no product twice.

PyTorch's layer multiplies W x at every place. Here W x + b is given: a row for every word of a vocabulary, of
which each place looks up one, and a share of every text where a part of x never changes. The gradient of U is
one product for all steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rlseq.policies.cells import Equations
from rlseq.policies.matmul import affine, product, product_of_columns

_aten: Any = torch.ops.aten


def unrolled(
    cell: Equations,
    entering: Tensor,
    which: Tensor,
    share: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    memory: Sequence[Tensor],
    at_work: Sequence[int],
) -> Tensor:
    """Return h of every real place, `[N, H]`, packed.

    Args:
        cell: an LSTM (g = 4 gates) or a GRU (g = 3).
        entering: rows of W x + b, `[M, g H]`.
        which: of these rows is read at each place, `[N]`.
        share: what is added to them in all places of a text, `[B, g H]`.
        weight: U, `[g H, H]`.
        bias: of U h, `[g H]`; None where it is a part of b.
        memory: before the first word: h, and c of an LSTM, `[B, H]` each; nothing where they are zero.
        at_work: the number of texts in each step.
    """
    h, c = (memory[0], memory[-1]) if memory else (None, None)
    given = cell, at_work, entering, which, share, weight, bias, h, c
    found: Tensor = _Unrolled.apply(*given)  # type: ignore[no-untyped-call]
    return found


class _Unrolled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        cell: Equations,
        at_work: Sequence[int],
        entering: Tensor,
        which: Tensor,
        share: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        h: Tensor | None,
        c: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(entering, which, share, weight, h, c)
        ctx.cell, ctx.at_work, ctx.steps, states = cell, at_work, [], []
        for n, read in zip(at_work, torch.split(which, [*at_work]), strict=True):
            at_place = entering.index_select(0, read)
            if share is not None:
                at_place += share[:n]
            recalled = bias if h is None else affine(h[:n], weight, bias)
            h, c, kept, gates = cell.forward(at_place, recalled, None if c is None else c[:n])
            states.append(h)
            if any(ctx.needs_input_grad):
                ctx.steps.append((h, c, kept, gates))
        return torch.cat(states)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_states: Tensor) -> tuple[Tensor | None, ...]:
        entering, which, share, weight, first_h, first_c = ctx.saved_tensors
        by_gates = by_states.new_empty(len(which), len(weight))
        by_recalled = torch.empty_like(by_gates) if ctx.cell.apart else by_gates
        by_share = None if share is None else torch.zeros_like(share)
        by_h = by_c = by_states.new_zeros(0, weight.shape[1])  # of texts that go on
        parts = (torch.split(x, [*ctx.at_work]) for x in (by_states, by_gates, by_recalled))
        for t, (by_state, *by_products) in reversed([*enumerate(zip(*parts, strict=True))]):
            if len(by_h) == len(by_state):
                by_state = by_state + by_h
            else:
                by_state = by_state.clone()
                by_state[: len(by_h)] += by_h
            before = ctx.steps[t - 1][1] if t else first_c
            by_c = ctx.cell.backward(by_state, by_c, before, *ctx.steps[t][2:], *by_products)
            if by_share is not None:
                by_share[: len(by_state)] += by_products[0]
            if t or first_h is not None:
                by_h = product(by_products[1], weight)
        # One product for all steps: each has the gradient of U h, and h of the step before.
        first = by_states[:0] if first_h is None else first_h
        pairs = zip(ctx.steps, ctx.at_work[1:], strict=False)
        before = torch.cat([first, *(step[0][:n] for step, n in pairs)])
        by_last = by_recalled[len(by_recalled) - len(before) :]
        needed = ctx.needs_input_grad[2:]
        return (
            None,
            None,
            _aten.embedding_dense_backward(by_gates, which, len(entering), -1, False) if needed[0] else None,
            None,
            by_share,
            product_of_columns(by_last, before).contiguous() if needed[3] else None,
            by_recalled.sum(0) if needed[4] else None,
            None if first_h is None else by_h,
            None if first_c is None else by_c,
        )
