"""`Segment`: a rollout of episodes that began before it, and go on after it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rlseq.types import Behaviour, EpisodeStats, Rollout


@dataclass(frozen=True, eq=False)
class Segment(Rollout):
    """T steps of B rows, in which episodes end and begin; each step says all that matters of the past."""

    last: EpisodeStats = None  # type: ignore[assignment]  # episodes that ended, in this stretch or before it

    @property
    def earned(self) -> EpisodeStats:
        """Of the last episodes that ended: what was paid in a stretch is no return."""
        return self.last

    def as_transitions(self) -> Rollout:
        """Every real action as a row of its own, `[n, 1]`."""
        real = self.mask.flatten().nonzero().squeeze(1)
        rows = self.context["index"].repeat_interleave(self.mask.shape[1])

        def apart(part: Tensor | None) -> Tensor | None:
            if part is None:
                return None
            flat = part.flatten(0, 1).unsqueeze(1)
            return flat if len(real) == len(flat) else flat[real]

        acted = ("actions", "mask", "log_probs", "rewards", "values", "ends", "bootstrap")
        added = ("credit", "kl_penalty", "features", "advantages", "targets", "weights")
        parts = {name: apart(getattr(self, name)) for name in (*acted, *added)}
        context = {"observation": apart(self.context["observation"]), "index": rows[real]}
        behaviour = Behaviour(self.behaviour.temperature, apart(self.behaviour.support))
        return Rollout(**parts, context=context, behaviour=behaviour)  # type: ignore[arg-type]
