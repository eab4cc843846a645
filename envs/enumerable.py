"""A task so small that all texts can be enumerated, to test estimators against exact values."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from typing_extensions import Unpack

from rlseq.mdp.sequence_env import EnvOptions, SequenceEnv
from rlseq.types import Context
from rlseq.utils.arguments import NonNegativeInt, Range, Seed, checked_arguments
from rlseq.utils.memory import check_fits
from rlseq.vocab import Vocab


class Enumerable(SequenceEnv):
    """At most V^T texts, each with an arbitrary reward from a seeded N(0, 1) table.

    Args:
        vocab_size: V, at most 4.
        length: T, at most 4.
        sources: number of different one-word sources, each with a table of its own; 0 for none.
        ends: word 0 ends a text; False makes all texts T long.
        data_seed: of the table.
        **options: see `EnvOptions`.
    """

    @checked_arguments
    def __init__(
        self,
        *,
        vocab_size: Annotated[int, Range(2, 4)] = 3,
        length: Annotated[int, Range(1, 4)] = 3,
        sources: NonNegativeInt = 0,
        ends: bool = True,
        data_seed: Seed = 0,
        **options: Unpack[EnvOptions],
    ) -> None:
        check_fits(sources * vocab_size**length * 4, sources=sources)
        generator = torch.Generator().manual_seed(data_seed)
        table = torch.randn(max(sources, 1), vocab_size**length, generator=generator)
        items = {"source": torch.arange(1, sources + 1).unsqueeze(1)} if sources else {}
        super().__init__(
            vocab=Vocab.numbered(vocab_size, eos=0 if ends else None),
            source_vocab=Vocab.numbered(sources + 1) if sources else None,
            max_len=length,
            reward={"table": self.look_up},
            items=items,
            **options,
        )
        self.table = table.to(self.device)

    def look_up(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the table's entry of each text; positions that are not written count as word 0."""
        place = len(self.vocab) ** torch.arange(self.max_len - 1, -1, -1, device=tokens.device)
        code = (tokens.where(mask, 0) * place).sum(1)
        return self.table[context["index"], code]
