"""Find a document by asking: every question costs, the right document pays."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor
from typing_extensions import Unpack

from rlseq.envs.drawn import drawn
from rlseq.mdp.sequence_env import EnvOptions, SequenceEnv
from rlseq.types import Context, HeldOut
from rlseq.utils.arguments import NonNegativeFloat, Range, Seed, checked_arguments
from rlseq.vocab import EOS, Vocab

NO, YES = 1, 2  # the words of answers, after EOS


class Retrieval(SequenceEnv):
    """Ask for properties of the wanted document, then name it. Reward: 1 if it is right, less each question.

    A table says which document has which property. Two properties of the wanted one are read, and others can
    be asked for, `p3`, once each: the next word is then the answer, `yes` or `no`, whatever is written. A
    document, `d5`, ends the episode.

    Args:
        documents: number of documents.
        properties: number of properties.
        cost: of a question.
        split: "train", or "test" for pairs of known properties that training does not have.
        data_seed: of the table, and of what is wanted.
        **options: see `EnvOptions`.
    """

    held_out: ClassVar[HeldOut] = {"split": "test"}

    @checked_arguments
    def __init__(
        self,
        *,
        documents: Annotated[int, Range(2, 256)] = 12,
        properties: Annotated[int, Range(4, 64)] = 6,
        cost: NonNegativeFloat = 0.05,
        split: str = "train",
        data_seed: Seed = 0,
        **options: Unpack[EnvOptions],
    ) -> None:
        table = torch.rand(documents, properties, generator=torch.Generator().manual_seed(data_seed)) < 0.5

        def draw(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            wanted = torch.randint(documents, (rows,), generator=generator)
            known = torch.rand(rows, properties, generator=generator).argsort(1)[:, :2].sort(1).values
            return 1 + 2 * known + table[wanted].gather(1, known), wanted  # 0 pads

        source, wanted = drawn(draw, split, 2000, data_seed)
        asked = [f"p{n + 1}" for n in range(properties)]
        read = tuple(f"{name}={answer}" for name in asked for answer in ("no", "yes"))
        words = (EOS, "no", "yes", *asked, *(f"d{n + 1}" for n in range(documents)))
        self.first, self.documents, self.cost = NO + 2, NO + 2 + properties, cost  # first property, document
        super().__init__(
            vocab=Vocab(words),
            source_vocab=Vocab(("<pad>", *read), eos=None),
            max_len=2 * properties + 2,
            reward={"found": self.found, "questions": lambda *text: -cost * self.questions(*text)},
            items={"source": source, "wanted": wanted},
            **options,
        )
        self.table = table.to(self.device)
        self.metrics = {"found": self.found, "questions": self.questions}

    def last(self) -> Tensor:
        """Return the last word of every row, EOS where there is none, `[B]`."""
        before = (self.length - 1).clamp(min=0).unsqueeze(1)
        return self.tokens.gather(1, before).squeeze(1).where(self.length > 0, 0)

    def answer(self) -> Tensor:
        """Return the answer where a property was just asked for, else −1, `[B]`."""
        which = self.last() - self.first
        asked = (which >= 0) & (self.last() < self.documents)
        column = which.clamp(0, self.table.shape[1] - 1)
        return (NO + self.table[self.context["wanted"], column].long()).where(asked, -1)

    def legal(self) -> Tensor:
        """Allow new questions and documents; after a question its answer, after a document the end."""
        words, answer = torch.arange(len(self.vocab), device=self.device), self.answer().unsqueeze(1)
        asked = torch.nn.functional.one_hot(self.tokens, len(self.vocab)).amax(1).bool()
        free = (words >= self.documents) | ((words >= self.first) & ~asked)
        named = (self.last() >= self.documents).unsqueeze(1)
        return torch.where(answer >= 0, words == answer, torch.where(named, words == 0, free))

    def append(self, actions: Tensor) -> None:
        """Write a word in every row; after a question the answer."""
        answer = self.answer()
        super().append(torch.where(answer < 0, actions, answer))

    def found(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return 1 where the first document that is named is the wanted one, else 0, `[B]`."""
        named = (tokens >= self.documents) & mask
        first = tokens.gather(1, named.int().argmax(1, keepdim=True)).squeeze(1)
        return (first - self.documents == context["wanted"]).float() * named.any(1)

    def questions(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the number of questions, `[B]`."""
        return ((tokens >= self.first) & (tokens < self.documents) & mask).sum(1).float()
