"""`Stretch`: a rollout of episodes that began before it, and go on after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rlseq.types import Behaviour, Earned, Rollout


class Episode(NamedTuple):
    """What an episode came to."""

    reward: float  # its return
    length: int
    cut: bool  # by a time limit


@dataclass(frozen=True, eq=False)
class Stretch(Rollout):
    """T steps of B rows, in which episodes end and begin; each step says all that matters of the past."""

    last: tuple[Episode, ...] = ()  # the last ones that ended, in this stretch or before it

    @property
    def earned(self) -> Earned:
        """Of the last episodes that ended: what was paid in a stretch is no return."""
        parts = zip(*self.last, strict=True) if self.last else ((), (), ())
        return Earned(*(torch.tensor(part, device=self.mask.device) for part in parts))

    def units(self) -> Rollout:
        """Every real action as a row of its own, `[n, 1]`."""
        rows, steps = self.mask.nonzero(as_tuple=True)

        def apart(part: Tensor | None) -> Tensor | None:
            return None if part is None else part[rows, steps].unsqueeze(1)

        acted = ("actions", "mask", "log_probs", "rewards", "values", "ends", "bootstrap")
        added = ("credit", "price", "features", "advantages", "targets", "weights")
        parts = {name: apart(getattr(self, name)) for name in (*acted, *added)}
        context = {"observation": apart(self.context["observation"]), "index": rows}
        behaviour = Behaviour(self.behaviour.temperature, apart(self.behaviour.support))
        return Rollout(**parts, context=context, behaviour=behaviour)  # type: ignore[arg-type]
