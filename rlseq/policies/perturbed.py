"""Rows that are written by different policies: copies of one, in which some parameters are changed."""

from __future__ import annotations

from copy import deepcopy
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from rlseq.engine.state import fork
from rlseq.types import Context, State


def named_parameters(policy: nn.Module, only: str) -> dict[str, nn.Parameter]:
    """Return the trainable parameters whose names match a pattern, such as `head.*`; refuse if none does."""
    trained = {name: p for name, p in policy.named_parameters() if p.requires_grad}
    found = {name: p for name, p in trained.items() if fnmatchcase(name, only)}
    if not found:
        raise ValueError(
            f"only={only!r} matches no trainable parameter of this {type(policy).__name__}; "
            f"its parameters are {', '.join(trained) or 'not trainable'}"
        )
    return found


def copies_of(policy: nn.Module, number: int, changed: dict[str, nn.Parameter]) -> tuple[nn.Module, ...]:
    """Return copies of a policy that share everything with it but the parameters that are to change."""
    own = {id(p) for p in changed.values()}
    shared = {id(t): t for t in (*policy.parameters(), *policy.buffers()) if id(t) not in own}
    return tuple(deepcopy(policy, dict(shared)) for _ in range(number))


class PerturbedRows(nn.Module):
    """Equally many rows for each of N policies, the first rows for the first: one batch of one task.

    It writes, and does not score.

    Args:
        policies: of one class and size.
    """

    def __init__(self, policies: tuple[nn.Module, ...]) -> None:
        super().__init__()
        self.policies = nn.ModuleList(policies)

    def start(self, context: Context) -> State:
        """Return the states of all rows, and which policy's each is.

        Where no policy has a memory, and rows never leave because they are of an environment, that is ().
        """
        first = next(iter(context.values()))
        owner = self._equal_shares(len(first), first.device)
        states = [
            policy.start({name: value[part] for name, value in context.items()})  # type: ignore[operator]
            for policy, part in self._parts(owner)
        ]
        forgets = isinstance(states[0], tuple) and not states[0]
        return () if forgets and "observation" in context else (_joined(states), owner)

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """Let every policy read the tokens of its rows."""
        inner, owner = state or ((), self._equal_shares(len(token), token.device))
        steps = [
            policy.step(token[part], fork(inner, part))  # type: ignore[operator]
            for policy, part in self._parts(owner)
        ]
        logits = torch.cat([logits for logits, _ in steps])
        return logits, (_joined([after for _, after in steps]), owner) if state else ()

    def _equal_shares(self, rows: int, device: torch.device) -> Tensor:
        """Return the number of the policy of every row, `[rows]`."""
        number = len(self.policies)
        return torch.arange(number, device=device).repeat_interleave(rows // number)

    def _parts(self, owner: Tensor) -> list[tuple[nn.Module, slice]]:
        """Return the policies that have rows, and which ones; their order is that of the policies.

        On an accelerator, which would be waited for, no row leaves, and all have equally many.
        """
        if owner.is_cuda:
            rows = len(owner) // len(self.policies)
            return [(policy, slice(i * rows, (i + 1) * rows)) for i, policy in enumerate(self.policies)]
        numbers, counts = torch.stack(torch.unique_consecutive(owner, return_counts=True)).tolist()
        found = zip(numbers, counts, accumulate(counts), strict=True)
        return [(self.policies[number], slice(end - count, end)) for number, count, end in found]


def _joined(states: list[Any]) -> State:
    """Return the rows of several states, one after the other."""
    if isinstance(states[0], Tensor):
        return torch.cat(states)
    return tuple(_joined(list(parts)) for parts in zip(*states, strict=True))
