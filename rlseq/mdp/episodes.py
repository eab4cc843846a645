"""`Episodes`: the texts under way in a task, and the contexts that they are about."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlseq.types import Context


@dataclass(eq=False)
class Episodes:
    """The state of B episodes: everything that `Task.begin` sets and `append` changes.

    The buffer has one spare column at the end for finished rows to write in, so that no step needs a branch.
    """

    context: dict[str, Tensor]  # the source, the references and the index of every row
    buffer: Tensor  # [B, T + 1] int64: the tokens, padded, and the spare column
    length: Tensor  # [B] int64: number of tokens written, EOS included
    done: Tensor  # [B] bool: whether the text has ended

    @classmethod
    def begin(
        cls, context: dict[str, Tensor], rows: int, max_len: int, pad: int, device: torch.device
    ) -> Episodes:
        """Return empty texts about the given contexts."""
        return cls(
            context,
            torch.full((rows, max_len + 1), pad, device=device),
            torch.zeros(rows, dtype=torch.int64, device=device),
            torch.zeros(rows, dtype=torch.bool, device=device),
        )

    @classmethod
    def of(cls, context: Context, tokens: Tensor, length: Tensor, done: Tensor, pad: int) -> Episodes:
        """Return the first `length` `[B]` tokens of the given texts `[B, T]`."""
        buffer = torch.nn.functional.pad(tokens, (0, 1))
        written = torch.arange(buffer.shape[1], device=tokens.device) < length.unsqueeze(1)
        return cls(dict(context), buffer.where(written, pad), length, done)

    def __len__(self) -> int:
        """Return the number of rows, B."""
        return len(self.buffer)

    @property
    def tokens(self) -> Tensor:
        """The tokens written, `[B, T]`, padded."""
        return self.buffer[:, :-1]

    @property
    def mask(self) -> Tensor:
        """True on the tokens written, EOS included, `[B, T]`."""
        return torch.arange(self.buffer.shape[1] - 1, device=self.buffer.device) < self.length.unsqueeze(1)

    def append(self, actions: Tensor, pad: int, eos: int | None) -> None:
        """Write one token `[B]` in every row that is not done, in place."""
        rows = torch.arange(len(self.buffer), device=self.buffer.device)
        self.buffer[rows, self.length] = actions.masked_fill(self.done, pad)
        self.length += ~self.done
        self.done |= self.length >= self.buffer.shape[1] - 1
        if eos is not None:
            self.done |= actions == eos

    def take(self, rows: Tensor | slice) -> Episodes:
        """Return some rows: indices copy them, as often as they are named; a slice shares memory."""
        context = {name: value[rows] for name, value in self.context.items()}
        return Episodes(context, self.buffer[rows], self.length[rows], self.done[rows])

    def put(self, rows: Tensor | slice, part: Episodes) -> None:
        """Write the texts of some rows, whose contexts are the same, in place."""
        self.buffer[rows], self.length[rows], self.done[rows] = part.buffer, part.length, part.done

    def clone(self) -> Episodes:
        """Return a copy that `append` does not change; contexts, which nothing changes, are shared."""
        return Episodes(self.context, self.buffer.clone(), self.length.clone(), self.done.clone())

    def where(self, rows: Tensor, other: Episodes) -> Episodes:
        """Return these episodes in the rows `[B]` that are True, and the others' elsewhere."""

        def chosen(own: Tensor, others: Tensor) -> Tensor:
            return torch.where(rows.view(-1, *[1] * (own.ndim - 1)), own, others)

        context = {name: chosen(value, other.context[name]) for name, value in self.context.items()}
        own, others = (self.buffer, self.length, self.done), (other.buffer, other.length, other.done)
        return Episodes(context, *map(chosen, own, others))

    def tensors(self) -> list[Tensor]:
        """Return all tensors in a fixed order: buffer, length, done, then the contexts by name."""
        return [self.buffer, self.length, self.done, *(self.context[name] for name in sorted(self.context))]
