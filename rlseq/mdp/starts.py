"""Beginnings of training episodes: which items are drawn, and which words are already written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from rlseq.types import Context, Rollout


class Starts:
    """A sampler of beginnings that a task may have (`env.replace(starts=…)`); by default it changes nothing.

    The engine asks it in every rollout of the task. Evaluations, and the texts that a discriminator learns
    from, begin without it.
    """

    gives_words: ClassVar[bool] = False  # whether `given` gives any

    def draw(self, env: Any, number: int) -> Tensor | None:
        """Return the items to write about, `[number]`; None for random ones."""
        return None

    def given(self, context: Context) -> tuple[Tensor, Tensor] | None:
        """Return words `[B, F]` and how many of them are written already, `[B]`; None for nowhere any.

        It must give rows of the same item the same words until `learn` is called.
        """
        return None

    def set_progress(self, done: float) -> None:
        """Note the share of training that is done; called before each update."""

    def learn(self, batch: Rollout) -> None:
        """Note how episodes went; called after each update."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return the state that a checkpoint keeps."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
