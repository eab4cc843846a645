"""`Replay`: what was done lately, to be learned from several times, in a random order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rlseq.types import Rollout
from rlseq.utils.memory import check_fits
from rlseq.utils.ranks import gathered_unequal, this_rank

REPLAYED = ("actions", "mask", "log_probs", "rewards", "ends", "reached", "cut")  # fields of a rollout
OF_CONTEXT = "context/"  # before the names of what is kept of a context


class Replay:
    """The last rows of rollouts, in a ring of tensors; a newer row takes the place of the oldest.

    It holds at most `capacity` actions, in memory and in a checkpoint. A row is a whole text, so a replay of
    50,000 actions keeps 2,500 texts of 20 words. Of several processes that train together, each keeps the
    rows of all, and draws its part.

    Args:
        capacity: the largest number of actions.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.rows: dict[str, Tensor] = {}  # made when the sizes are known
        self.written = 0  # rows so far, those that are replaced too
        self.longest: int | None = 1  # no row has more steps; None where the host does not know it
        self.draws = 0

    def __len__(self) -> int:
        """Return the number of rows that are kept."""
        return min(self.written, self._places)

    @property
    def _places(self) -> int:
        """The number of rows that there is room for."""
        return len(self.rows["mask"]) if self.rows else 0

    def add(self, batch: Rollout, context: tuple[str, ...]) -> None:
        """Keep the rows of a batch, and of those of other ranks.

        Args:
            batch: the batch.
            context: the names of what is kept of its context.
        """
        fields = {name: value for name in REPLAYED if (value := getattr(batch, name)) is not None}
        fields |= {f"{OF_CONTEXT}{name}": batch.context[name] for name in context}
        fields = {name: gathered_unequal(value) for name, value in fields.items()}
        device = batch.mask.device  # a checkpoint gives rows back on the CPU
        self.rows = {name: kept.to(device) for name, kept in self.rows.items()} or self._made(fields)
        new = len(fields["mask"])
        rows = torch.arange(max(0, new - self._places), new, device=batch.mask.device)
        place = (self.written + rows) % self._places
        for name, kept in self.rows.items():
            kept[place] = fields[name][rows]
        self.written += new
        if self.longest is None or batch.longest is None or this_rank().of > 1:
            self.longest = None
        else:
            self.longest = max(self.longest, batch.longest)

    def draw(self, rows: int, parts: int = 1) -> Rollout:
        """Return rows drawn uniformly, with replacement, with what was kept of their contexts.

        Args:
            rows: of a gradient step, over all ranks.
            parts: number of gradient steps; their rows come one after the other.
        """
        self.draws += 1
        generator = torch.Generator().manual_seed(self.draws)
        drawn = torch.randint(len(self), (parts * rows,), generator=generator)
        drawn = this_rank().own(drawn.view(parts, rows), 1).flatten()
        drawn = drawn.to(self.rows["mask"].device, non_blocking=True)  # the host goes on
        fields: dict[str, Any] = {name: kept[drawn] for name, kept in self.rows.items()}
        context = {
            name.removeprefix(OF_CONTEXT): fields.pop(name) for name in [*fields] if OF_CONTEXT in name
        }
        return Rollout(values=None, bootstrap=None, context=context, longest=self.longest, **fields)

    def _made(self, fields: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return room for as many rows as the capacity allows, at least one."""
        places = max(1, self.capacity // fields["mask"].shape[1])
        check_fits(places * sum(part[0].nbytes for part in fields.values()), capacity=self.capacity)
        return {name: part.new_empty((places, *part.shape[1:])) for name, part in fields.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the rows that are kept, how many were written and drawn, and the longest; 0 if unknown."""
        kept = {name: part[: len(self)] for name, part in self.rows.items()}
        return {"rows": kept, "written": self.written, "draws": self.draws, "longest": self.longest or 0}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        kept: Mapping[str, Tensor] = state["rows"]
        self.rows = self._made(kept) if kept else {}
        for name, part in kept.items():
            self.rows[name][: len(part)] = part
        self.written, self.draws = state["written"], state["draws"]
        self.longest = state.get("longest", 0) or None
