"""Recurrent networks that take one step or a whole sequence with the same weights."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlseq.policies.cells import GRU, LSTM
from rlseq.policies.matmul import affine
from rlseq.policies.packed import Packed
from rlseq.policies.unroll import unrolled
from rlseq.types import WordsRead
from rlseq.utils.kernels import backward_in_full_precision, full_precision

Cell = type[nn.LSTM] | type[nn.GRU]
Memory = tuple[Tensor, ...]  # (h¹, c¹, h², c², …) of an LSTM, (h¹, h², …) of a GRU; `[B, H]` each


class Recurrence(nn.Module):
    """hₜ = g(hₜ₋₁, xₜ), in layers; in the weights' own precision also under autocast, as errors would add up.

    Args:
        cell: `nn.LSTM` or `nn.GRU`.
        width: of x.
        hidden: H, of h.
        layers: each reads the one below.
    """

    def __init__(self, cell: Cell, width: int, hidden: int, layers: int = 1) -> None:
        super().__init__()
        self.layers, self.cell = layers, LSTM if cell is nn.LSTM else GRU
        self.rnn = cell(width, hidden, layers, batch_first=True)
        self._look_up()
        self.register_load_state_dict_post_hook(Recurrence._look_up)  # type: ignore[no-untyped-call]

    def _look_up(self, *_: Any) -> None:
        """Keep the weights for `step`, as compilers refuse an nn.LSTM; called when weights are assigned."""
        self.rnn.flatten_parameters()
        self._weights: list[list[nn.Parameter]] = self.rnn.all_weights

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Become a copy, whose weights are one block of memory again: cuDNN copies others in every call."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.rnn.flatten_parameters()

    @property
    def memories(self) -> int:
        """The number of tensors in a memory."""
        return self.layers * self.cell.memories

    def from_first(self, first: Tensor) -> Memory:
        """Return a memory in which every layer's h is `first` `[B, H]`, and every c is zero."""
        return (first, *[torch.zeros_like(first)] * (self.cell.memories - 1)) * self.layers

    def entering(self, x: Tensor, first: int = 0) -> Tensor:
        """Return W x of the gates of the first layer, for some of the columns of W.

        Args:
            x: a part of what is read, `[…, e]`.
            first: the column of W where the part begins.
        """
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(self._precise(x), self._weights[0][0][:, first : first + x.shape[-1]])

    def entering_words(self, words: WordsRead, embedding: nn.Embedding, dropout: nn.Dropout) -> Tensor:
        """Return W x of the gates of the first layer for words, whose embeddings are the first part of x.

        A vocabulary that is smaller than the batch is multiplied once, and not for every row.
        """
        x, which = looked_up(words, embedding, dropout)
        return self.entering(x) if which is None else F.embedding(which, self.entering(x))

    def step(self, entering: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Take one step in all layers; return the top layer's h `[B, H]`, and the new memory.

        Args:
            entering: W x of the first layer, `[B, 4H]` of an LSTM, `[B, 3H]` of a GRU.
            memory: of the step before.
        """
        kinds = self.cell.memories
        new: list[Tensor] = []
        with torch.autocast(entering.device.type, enabled=False):
            memory = tuple(map(self._precise, memory))
            for layer, (_, recurrent, *biases) in enumerate(self._weights):
                at = layer * kinds
                if layer:
                    entering = F.linear(new[at - kinds], self._weights[layer][0])
                new += self.cell.step(entering, memory[at : at + kinds], recurrent, *biases)
        return new[-kinds], tuple(new)

    def unroll(
        self,
        x: Tensor,
        memory: Memory = (),
        *,
        which: Tensor | None = None,
        beside: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Read whole texts, from zeros if there is no memory; return the top layer's h, `[B, T, H]`.

        Args:
            x: what is read, `[B, T, E]`; or, with `which`, the vectors `[M, E]` that places look up.
            memory: before the first word.
            which: of these vectors is read at each place, `[B, T]`.
            beside: what is read, too, at every place of a text, `[B, e]`.
            lengths: after how many words texts end, `[B]`, at least 1 each; what is returned for padding has
                no meaning.
        """
        with torch.autocast(x.device.type, enabled=False):
            x, memory = self._precise(x), tuple(map(self._precise, memory))
            beside = None if beside is None else self._precise(beside)
            if x.device.type == "cpu" and torch.backends.mkldnn.enabled and not torch.compiler.is_compiling():
                if which is None:
                    which, x = torch.arange(x[..., 0].numel()).view(x.shape[:2]), x.flatten(0, 1)
                return self._unrolled(x, memory, which, beside, Packed.of(which.shape, lengths))
            x = x if which is None else F.embedding(which, x)
            if beside is not None:
                x = torch.cat([x, beside.unsqueeze(1).expand(-1, x.shape[1], -1)], 2)
            return self._by_torch(x, memory)

    def _unrolled(
        self, x: Tensor, memory: Memory, which: Tensor, beside: Tensor | None, packed: Packed
    ) -> Tensor:
        """Unroll layer by layer."""
        which, kinds = which.flatten()[packed.places], self.cell.memories
        for layer, (weight, recurrent, *biases) in enumerate(self._weights):
            bias, recalled = biases if self.cell.apart else (biases[0] + biases[1], None)
            of_x, of_beside = torch.split(weight, [x.shape[1], weight.shape[1] - x.shape[1]], 1)
            share = None if beside is None else affine(packed.sorted(beside), of_beside)
            entering = affine(x, of_x, bias)
            first = [packed.sorted(part) for part in memory[kinds * layer : kinds * (layer + 1)]]
            x = unrolled(self.cell, entering, which, share, recurrent, recalled, first, packed.at_work)
            which, beside = torch.arange(len(x)), None
        return packed.unpacked(x)

    def _by_torch(self, x: Tensor, memory: Memory) -> Tensor:
        """Unroll by PyTorch; cuDNN, which does it on a GPU, multiplies as precisely as `step` does."""
        first: Any = None
        if memory:
            kinds = self.cell.memories
            first = tuple(torch.stack([*memory[kind::kinds]]) for kind in range(kinds))
            first = first if kinds > 1 else first[0]
        with full_precision() if x.is_cuda else nullcontext():
            features: Tensor = self.rnn(x, first)[0]
        if x.is_cuda:
            backward_in_full_precision(features)
        return features

    def _precise(self, x: Tensor) -> Tensor:
        return x.to(self._weights[0][0].dtype)

    def train(self, mode: bool = True) -> Recurrence:
        """Keep the training mode: cuDNN differentiates no other, and there is no dropout inside."""
        super().train(mode)
        self.rnn.train(True)
        return self


def looked_up(words: WordsRead, embedding: nn.Embedding, dropout: nn.Dropout) -> tuple[Tensor, Tensor | None]:
    """Return the vectors of words, and which of them is read at each place; None where each has its own.

    Where a vocabulary is smaller than the number of places, its vectors are returned once.
    """
    ids = isinstance(words, Tensor) and not words.is_floating_point()
    dropped = dropout.training and dropout.p > 0
    if ids and not dropped and words.numel() > len(embedding.weight):  # type: ignore[union-attr]
        return embedding.weight, words  # type: ignore[return-value]
    return dropout(embedding(words)), None


def reversed_within(x: Tensor, present: Tensor) -> Tensor:
    """Return every row of x `[B, S, …]` backwards within its length; padding stays where it is.

    Read so, padding comes last in both directions, where it cannot touch what was read before it: no packed
    sequence, whose lengths would have to wait on the host.
    """
    place = torch.arange(x.shape[1], device=x.device)
    length = present.sum(1, keepdim=True)
    place = torch.where(place < length, length - 1 - place, place)
    return x.gather(1, place.view(*place.shape, *(1,) * (x.ndim - 2)).expand_as(x))


def last_state(features: Tensor, present: Tensor) -> Tensor:
    """Return the features after the last real word, `[B, H]`."""
    last = present.sum(1).sub_(1).view(-1, 1, 1)
    return features.gather(1, last.expand(-1, 1, features.shape[2])).squeeze(1)
