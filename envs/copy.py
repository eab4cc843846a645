"""Write the source back, or backwards: the smallest conditional tasks."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor
from typing_extensions import Unpack

from rlseq.envs.drawn import drawn
from rlseq.mdp.sequence_env import EnvOptions, SequenceEnv
from rlseq.metrics.fitting import ItemReferences, rewards_of
from rlseq.metrics.positional import accuracy, exact
from rlseq.types import HeldOut, Reward, RewardLike
from rlseq.utils.arguments import PositiveInt, Range, Seed, checked_arguments
from rlseq.utils.memory import check_fits
from rlseq.vocab import WORD, Vocab

OWN: dict[str, Reward] = {"accuracy": accuracy, "exact": exact}


class Copy(SequenceEnv):
    """Read `length` random words; write them, then EOS. Reward: the share of positions that are right.

    Args:
        vocab_size: V, EOS among them.
        length: words of a source.
        shortest: words of the shortest source, where lengths differ, each as likely; `length` when not given.
        reward: "accuracy", "exact", another name of `rlseq metrics`, or any callable.
        items: number of training sources, drawn with replacement.
        split: "train", or "test" for sources that no training source is equal to, 1,000 at most.
        data_seed: of the sources.
        **options: see `EnvOptions`.
    """

    held_out: ClassVar[HeldOut] = {"split": "test"}

    @checked_arguments
    def __init__(
        self,
        *,
        vocab_size: Annotated[int, Range(2)] = 8,
        length: PositiveInt = 5,
        shortest: PositiveInt | None = None,
        reward: RewardLike = "accuracy",
        items: PositiveInt = 10_000,
        split: str = "train",
        data_seed: Seed = 0,
        **options: Unpack[EnvOptions],
    ) -> None:
        needed = items * (length + 1) * 32 + WORD * vocab_size
        check_fits(needed, items=items, length=length, vocab_size=vocab_size)

        if shortest is not None and shortest > length:
            raise ValueError(f"shortest must be at most length={length}, got {shortest}")

        def draw(rows: int, generator: torch.Generator) -> tuple[Tensor]:
            words = torch.randint(1, vocab_size, (rows, length), generator=generator)
            if shortest is None:
                return (words,)
            lengths = torch.randint(shortest, length + 1, (rows, 1), generator=generator)
            return (words.where(torch.arange(length) < lengths, 0),)  # 0 pads

        (source,) = drawn(draw, split, items, data_seed)
        lengths = (source != 0).sum(1, keepdim=True)
        order = self.order(lengths, length)
        written = torch.nn.functional.pad(source.gather(1, order), (0, 1))
        vocab = Vocab.numbered(vocab_size)
        data = {"source": source, "references": written.unsqueeze(1), "reference_lengths": lengths + 1}
        super().__init__(
            vocab=vocab,
            max_len=length + 1,
            reward=rewards_of(reward, ItemReferences(vocab, data), OWN),
            items=data,
            **options,
        )
        self.metrics = dict(OWN)

    def order(self, lengths: Tensor, longest: int) -> Tensor:
        """Return which word of the source to write at each position, `[N, longest]`."""
        return torch.arange(longest).expand(len(lengths), -1)


class Reverse(Copy):
    """As `Copy`, backwards: the first word to write is the last that was read."""

    def order(self, lengths: Tensor, longest: int) -> Tensor:
        """Return the places of a source from its last word to its first, then those of the padding."""
        place = torch.arange(longest)
        return torch.where(place < lengths, lengths - 1 - place, place)
