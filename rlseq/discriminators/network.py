"""Networks of discriminators: readers map embedded texts `[B, T, E]` to features `[B, T, F]`.

No reader looks ahead, so that the same weights score whole and unfinished texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlseq.mdp.sequence_env import SequenceEnv
from rlseq.policies.attention import Learned, TransformerLayer
from rlseq.policies.encoders import PICTURE_READERS, picture_reader
from rlseq.policies.recurrence import Cell, Recurrence, last_state
from rlseq.policies.spec import TokenEmbedding, TokenSpec
from rlseq.types import Context, SoftTokens
from rlseq.utils.arguments import PositiveFloat, PositiveInt, ShareBelowOne, checked_arguments

# SeqGAN's windows and how many filters each has; 30 and 40 are for its texts of 40 words.
WINDOWS = (
    (1, 100),
    *((w, 200) for w in (2, 3, 4, 5)),
    *((w, 100) for w in (6, 7, 8, 9, 10)),
    *((w, 160) for w in (15, 20, 30, 40)),
)


class Reader(nn.Module):
    """A network that reads embedded words."""

    width: int  # F

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return features after each word, `[B, T, F]`."""
        raise NotImplementedError

    def end(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return features after the last word, `[B, F]`."""
        return last_state(self(x, mask), mask)


ReaderFactory = Callable[[int, int], Reader]  # (E, longest text) -> reader


class CNNReader(Reader):
    """Windows of several widths, maximum over time, a highway (Zhang & LeCun 2015; Kim 2014; Yu et al. 2017).

    Args:
        embedding: E.
        length: T; windows wider than that are left out.
        windows: widths and how many filters each has.
        share: of the filters that are made.
    """

    @checked_arguments
    def __init__(
        self,
        embedding: int,
        length: int,
        *,
        windows: Sequence[tuple[int, int]] = WINDOWS,
        share: PositiveFloat = 1.0,
    ) -> None:
        super().__init__()
        fitting = [(width, max(1, round(share * filters))) for width, filters in windows if width <= length]
        if not fitting:
            raise ValueError(f"no window of {[width for width, _ in windows]} fits into {length} words")
        self.filters = nn.ModuleList(nn.Conv1d(embedding, n, width) for width, n in fitting)
        self.width = sum(n for _, n in fitting)
        self.highway = Highway(self.width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return features after each word; a window counts from its last word on."""
        found = [F.pad(f, (mask.shape[1] - f.shape[2], 0)).cummax(2).values for f in self._found(x, mask)]
        features: Tensor = self.highway(torch.cat(found, 1).transpose(1, 2))
        return features

    def end(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the maximum over all windows within the text; 0, the least value, where none fits."""
        features: Tensor = self.highway(torch.cat([f.amax(2) for f in self._found(x, mask)], 1))
        return features

    def _found(self, x: Tensor, mask: Tensor) -> list[Tensor]:
        """Return relu(w·x + b) of every window that ends on a real word, `[B, n, T − width + 1]` each."""
        x, real = x.transpose(1, 2), mask.unsqueeze(1).to(x.dtype)
        found = (f(x).relu_() for f in self.filters)
        return [f * real[:, :, -f.shape[2] :] for f in found]


class Highway(nn.Module):
    """σ(Vx + c) · relu(Wx + b) + (1 − σ(Vx + c)) · x, which starts as nearly x (Srivastava et al. 2015)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.change, self.gate = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.constant_(self.gate.bias, -2.0)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same shape."""
        return torch.lerp(x, self.change(x).relu(), self.gate(x).sigmoid())


class RecurrentReader(Reader):
    """An LSTM or GRU.

    Args:
        cell: `nn.LSTM` or `nn.GRU`.
        embedding: E.
        length: T; any will do.
        hidden: F.
        layers: each reads the one below.
    """

    @checked_arguments
    def __init__(
        self, cell: Cell, embedding: int, length: int, *, hidden: PositiveInt = 128, layers: PositiveInt = 1
    ) -> None:
        super().__init__()
        self.width = hidden
        self.recurrence = Recurrence(cell, embedding, hidden, layers)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the hidden states."""
        return self.recurrence.unroll(x)


class AttentiveReader(Reader):
    """A transformer's layers.

    Args:
        embedding: E.
        length: T.
        hidden: F.
        layers: each reads the one below.
        heads: of attention.
    """

    @checked_arguments
    def __init__(
        self,
        embedding: int,
        length: int,
        *,
        hidden: PositiveInt = 128,
        layers: PositiveInt = 2,
        heads: PositiveInt = 4,
    ) -> None:
        super().__init__()
        self.width = hidden
        self.enter, self.norm = nn.Linear(embedding, hidden), nn.LayerNorm(hidden)
        self.positions = Learned(hidden, heads, length)
        self.layers = nn.ModuleList(TransformerLayer(hidden, heads, 0.0, False) for _ in range(layers))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return features after each word; padding comes last, so that no word sees it."""
        x, turn = self.positions(self.enter(x), torch.arange(x.shape[1], device=x.device).unsqueeze(0))
        for layer in self.layers:
            x = layer(x, turn)
        features: Tensor = self.norm(x)
        return features


class Discriminator(nn.Module):
    """Logits of D(y), or of D(x, y) where it looks at a source: a text, an image or its features.

    With two outputs the first says whether a text is real, the second whether it goes with its source (Zhang
    et al. 2017), so that a good text under a wrong source lowers only the second.

    Args:
        words: of the texts that it reads, and of their sources.
        reader: makes what reads them; see `rlseq.discriminators.network`.
        embedding: E, width of the embeddings.
        outputs: 1, or 2 where there is a source.
        dropout: share of what was read that is dropped in training.
        source: whether to look at the source, where there is one.
        vectors: width of vectors that are read in place of words, such as hidden states of a policy.
    """

    @checked_arguments
    def __init__(
        self,
        words: TokenSpec,
        reader: ReaderFactory,
        *,
        embedding: PositiveInt = 64,
        outputs: PositiveInt = 1,
        dropout: ShareBelowOne = 0.25,
        source: bool = True,
        vectors: PositiveInt | None = None,
    ) -> None:
        super().__init__()
        self.vectors = vectors
        self.conditional = source and has_source(words)
        if outputs not in (1, 1 + self.conditional):
            raise ValueError(
                f"outputs must be 1, or 2 where the source is looked at (real, matching), got {outputs}; "
                + (f"source={source}" if has_source(words) else "the task has no source")
            )
        self.words = words
        self.embedding = TokenEmbedding(vectors or words.read, embedding)
        nn.init.uniform_(self.embedding.weight, -1, 1)  # as published
        self.attention = attention_to_source(words, embedding) if self.conditional else None
        self.reader = reader(3 * embedding if self.conditional else embedding, words.length)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.reader.width, outputs)

    def forward(self, tokens: Tensor | SoftTokens, mask: Tensor, context: Context) -> Tensor:
        """Return the logits of whole texts, `[B, outputs]`."""
        return self.judge(self.embed(tokens, context), mask)

    def steps(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return the logits of every prefix, `[B, T, outputs]`."""
        logits: Tensor = self.head(self.dropout(self.reader(self.embed(tokens, context), mask)))
        return logits

    def embed(self, tokens: Tensor | SoftTokens, context: Context) -> Tensor:
        """Return words as vectors `[B, T, E]`, each beside what it attends to in the source.

        Weighted words in one place (`SoftTokens`) and distributions over words `[B, T, V]` are read, too;
        through these a gradient reaches a generator.
        """
        if self.vectors is not None:
            _check_vectors(tokens, self.vectors)
        x: Tensor = self.embedding(tokens)
        return x if self.attention is None else self.attention(x, context)

    def judge(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the logits of embedded texts, `[B, outputs]`."""
        logits: Tensor = self.head(self.dropout(self.features(x, mask)))
        return logits

    def features(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return features at the end of embedded texts, `[B, F]`."""
        return self.reader.end(x, mask)

    def check(self, env: SequenceEnv) -> None:
        """Refuse a task whose texts or sources it cannot read."""
        task = TokenSpec.of(env)
        for what in ("written", "read", *OF_SOURCE * self.conditional):
            mine, theirs = getattr(self.words, what), getattr(task, what)
            if mine != theirs:
                raise ValueError(
                    f"the discriminator reads other texts than {type(env).__name__} has: {what}={mine}, "
                    f"the task's is {theirs}; make it for this task, rlseq.make_discriminator(name, env)"
                )
        if task.length > self.words.length:
            raise ValueError(
                f"the discriminator reads {self.words.length} words, the task has {task.length}; "
                "make it for this task, rlseq.make_discriminator(name, env)"
            )


def _check_vectors(given: Tensor | SoftTokens, width: int) -> None:
    """Refuse anything but vectors of a width."""
    if isinstance(given, SoftTokens) or not given.is_floating_point():
        raise TypeError(
            f"the discriminator reads vectors of width {width}, got words; make it without vectors={width}"
        )
    if given.shape[-1] != width:
        raise ValueError(
            f"the discriminator reads vectors of width {width}, got {given.shape[-1]}; "
            f"make it with vectors={given.shape[-1]}"
        )


OF_SOURCE = ("source", "source_pad", "observed")  # what a `TokenSpec` says of the source


def has_source(words: TokenSpec) -> bool:
    """Return whether texts are about a source of words or a picture."""
    return words.source is not None or not PICTURE_READERS.keys().isdisjoint(words.observed)


def attention_to_source(words: TokenSpec, embedding: int) -> nn.Module:
    """Make what looks at the source of a task, of words or a picture."""
    if words.source is None:
        return PictureAttention(words, embedding)
    return SourceAttention(words, embedding)


class PictureAttention(nn.Module):
    """Attention to the fields of an image, or to regions of features, as of `SourceAttention`: [y; a; y∘a].

    a = softmax(y·kᵀ/√E) v;  keys and values are made of fields, which know their places.
    """

    def __init__(self, words: TokenSpec, embedding: int) -> None:
        super().__init__()
        self.reader = picture_reader(words, embedding)
        self.keys_values = nn.Linear(embedding, 2 * embedding)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """Return `[B, T, 3E]` of words `[B, T, E]`."""
        fields, present = self.reader(context)
        keys, values = self.keys_values(fields).chunk(2, 2)
        a = F.scaled_dot_product_attention(x, keys, values, attn_mask=present.unsqueeze(1))
        return torch.cat([x, a, x * a], 2)


class SourceAttention(nn.Module):
    """Attention to the source: beside every word y stand a, what it attends to, and the product y∘a.

    a = softmax(q·kᵀ/√E) v;  queries and keys are made of word and place, values of the word alone.
    """

    def __init__(self, words: TokenSpec, embedding: int) -> None:
        super().__init__()
        assert words.source is not None
        self.words = words
        self.source = nn.Embedding(words.source, embedding)
        self.places = nn.Embedding(words.length, embedding)
        self.source_places = nn.Embedding(words.source_length, embedding)
        self.value = nn.Linear(embedding, embedding)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """Return `[B, T, 3E]` of words `[B, T, E]`."""
        source = context["source"]
        s = self.source(source)
        queries, keys = x + self.places.weight[: x.shape[1]], s + self.source_places.weight[: s.shape[1]]
        present = self.words.present(source).unsqueeze(1)
        a = F.scaled_dot_product_attention(queries, keys, self.value(s), attn_mask=present)
        return torch.cat([x, a, x * a], 2)
