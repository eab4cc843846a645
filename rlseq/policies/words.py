"""What a policy must know of a task's vocabularies, and how it reads what it wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlseq.env import SequenceEnv


@dataclass(frozen=True)
class Words:
    """The ids that a policy writes and reads, and how many of them at most."""

    written: int  # V, words that can be written
    read: int  # rows of their embedding: V, and the ids that are only read
    bos: int = 0  # read before the first word
    length: int = 0  # T, words of a text
    source: int | None = None  # rows of the source's embedding; None where there is no source
    source_pad: int = 0  # fills up short sources
    source_length: int = 0  # S, words of a source
    observed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # shapes of what is no words

    @classmethod
    def of(cls, env: SequenceEnv) -> Words:
        """Those of a task."""
        words = len(env.vocab), env.vocab.num_ids, env.vocab.bos, env.max_len
        observed = {name: tuple(env.items[name].shape[1:]) for name in env.observed}
        if (source := env.source_vocab) is None:
            return cls(*words, observed=observed)
        return cls(*words, source.num_ids, source.pad, env.items["source"].shape[1], observed)

    def before(self, actions: Tensor) -> Tensor:
        """The word read before each action is chosen: BOS, a₁ … a_{T−1}, `[B, T]`."""
        return torch.cat([torch.full_like(actions[:, :1], self.bos), actions[:, :-1]], 1)

    def present(self, source: Tensor) -> Tensor:
        """False on padding, bool `[B, S]`; the first word always counts, so that no source is blank."""
        present = source != self.source_pad
        present[:, 0] = True
        return present
