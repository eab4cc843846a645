"""`Discriminator`: how real a text looks, and how well it goes with its source."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlseq.arguments import PositiveInt, ShareBelowOne, checked_arguments
from rlseq.discriminators.readers import ReaderFactory
from rlseq.env import SequenceEnv
from rlseq.policies.words import Embedding, Words
from rlseq.types import Context, Soft


class Discriminator(nn.Module):
    """Logits of D(y), or of D(x, y) where it looks at a source.

    With two outputs the first says whether a text is real, the second whether it goes with its source (Zhang
    et al. 2017), so that a good text under a wrong source lowers only the second.

    Args:
        words: of the texts that it reads, and of their sources.
        reader: makes what reads them; see `rlseq.discriminators.readers`.
        embedding: E, width of the embeddings.
        outputs: 1, or 2 where there is a source.
        dropout: share of what was read that is dropped in training.
        source: whether to look at the source, where there is one; a judge that does not, never can match.
    """

    @checked_arguments
    def __init__(
        self,
        words: Words,
        reader: ReaderFactory,
        *,
        embedding: PositiveInt = 64,
        outputs: PositiveInt = 1,
        dropout: ShareBelowOne = 0.25,
        source: bool = True,
    ) -> None:
        super().__init__()
        self.conditional = source and words.source is not None
        if outputs not in (1, 1 + self.conditional):
            raise ValueError(
                f"outputs must be 1, or 2 where the source is looked at (real, matching), got {outputs}; "
                + ("the task has no source" if words.source is None else f"source={source}")
            )
        self.words = words
        self.embedding = Embedding(words.read, embedding)
        nn.init.uniform_(self.embedding.weight, -1, 1)  # as published
        self.glance = Glance(words, embedding) if self.conditional else None
        self.reader = reader(3 * embedding if self.conditional else embedding, words.length)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.reader.width, outputs)

    def forward(self, tokens: Tensor | Soft, mask: Tensor, context: Context) -> Tensor:
        """Logits of whole texts, `[B, outputs]`."""
        return self.judge(self.embed(tokens, context), mask)

    def steps(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Logits of every prefix, `[B, T, outputs]`."""
        logits: Tensor = self.head(self.dropout(self.reader(self.embed(tokens, context), mask)))
        return logits

    def embed(self, tokens: Tensor | Soft, context: Context) -> Tensor:
        """Words as vectors `[B, T, E]`, each beside what it sees of the source.

        Several words in one place, weighted, may be read too: through these a gradient reaches a generator.
        """
        x: Tensor = self.embedding(tokens)
        return x if self.glance is None else self.glance(x, context["source"])

    def judge(self, x: Tensor, mask: Tensor) -> Tensor:
        """Logits of embedded texts, `[B, outputs]`."""
        logits: Tensor = self.head(self.dropout(self.features(x, mask)))
        return logits

    def features(self, x: Tensor, mask: Tensor) -> Tensor:
        """What is known at the end of embedded texts, `[B, F]`."""
        return self.reader.end(x, mask)

    def check(self, env: SequenceEnv) -> None:
        """Refuse a task whose texts or sources it cannot read."""
        task = Words.of(env)
        for what in ("written", "read", "source", "source_pad"):
            mine, theirs = getattr(self.words, what), getattr(task, what)
            if mine != theirs and (self.conditional or not what.startswith("source")):
                raise ValueError(
                    f"the discriminator reads other texts than {type(env).__name__} has: {what}={mine}, "
                    f"the task's is {theirs}; make it for this task, rlseq.make_discriminator(name, env)"
                )
        if task.length > self.words.length:
            raise ValueError(
                f"the discriminator reads {self.words.length} words, the task has {task.length}; "
                "make it for this task, rlseq.make_discriminator(name, env)"
            )


class Glance(nn.Module):
    """Beside every word y: a, what it sees of the source, and y∘a, in which likeness shows.

    a = softmax(q·kᵀ/√E) v;  queries and keys know word and place, values the word alone.
    """

    def __init__(self, words: Words, embedding: int) -> None:
        super().__init__()
        if words.source is None:
            raise ValueError("there is no source to look at")
        self.words = words
        self.source = nn.Embedding(words.source, embedding)
        self.places = nn.Embedding(words.length, embedding)
        self.source_places = nn.Embedding(words.source_length, embedding)
        self.value = nn.Linear(embedding, embedding)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """`[B, T, E]`, `[B, S]` -> `[B, T, 3E]`."""
        s = self.source(source)
        queries, keys = x + self.places.weight[: x.shape[1]], s + self.source_places.weight[: s.shape[1]]
        present = self.words.present(source).unsqueeze(1)
        a = F.scaled_dot_product_attention(queries, keys, self.value(s), attn_mask=present)
        return torch.cat([x, a, x * a], 2)
