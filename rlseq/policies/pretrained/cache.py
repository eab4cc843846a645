"""Caches of keys and values as tensors with rows first, of fixed size, in the form that transformers expects.

A cache of transformers has one length for all rows. A policy's state may hold texts of different lengths
(`rlseq.complete`), so every row has a place of its own here: new keys are written to the line of that place,
and the attention mask hides the lines behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, EncoderDecoderCache

LayerCache = tuple[Tensor, Tensor]  # of one layer, [B, heads, length, d] each


class TokenKeys(CacheLayerMixin):  # type: ignore[misc]  # transformers has no types
    """Keys and values of the tokens so far; the next token's are written in place."""

    def __init__(self, keys: Tensor, values: Tensor, lines: Tensor) -> None:
        super().__init__()
        self.keys, self.values, self.lines = keys, values, lines
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Do nothing: the tensors are there."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> LayerCache:
        """Write the keys and values `[B, heads, 1, d]` of one token, and return those of all."""
        for whole, new in ((self.keys, key_states), (self.values, value_states)):
            width = new.shape[-1]
            whole.view(-1, width).index_copy_(0, self.lines, new.reshape(-1, width).to(whole.dtype))
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Return 0: positions are given by the policy, not by the length of a cache."""
        return 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the number of keys, and where they begin."""
        return self.keys.shape[2], 0

    def get_max_length(self) -> int:
        """Return the number of lines."""
        return int(self.keys.shape[2])

    get_max_cache_shape = get_max_length  # its name before transformers 5.20


class SourceKeys(TokenKeys):
    """Keys and values of the source, to which nothing is added."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__(keys, values, keys)

    def get_seq_length(self) -> int:
        """Return the number of source tokens: more than 0 says that they are there."""
        return int(self.keys.shape[2])


class FirstKeys(CacheLayerMixin):  # type: ignore[misc]
    """The keys and values of the tokens that are read first, with their gradients.

    A layer whose activations are computed again, for the backward pass, may give them twice.
    """

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Do nothing: the tensors come with the first call."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> LayerCache:
        """Keep and return the keys and values `[B, heads, n, d]`."""
        self.keys, self.values = key_states, value_states
        return self.keys, self.values

    get_seq_length, get_mask_sizes = TokenKeys.get_seq_length, TokenKeys.get_mask_sizes
    get_max_length, get_max_cache_shape = TokenKeys.get_max_length, TokenKeys.get_max_length


class LaterKeys(FirstKeys):
    """The keys and values of tokens that have been read, before those of the tokens that are read now."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.keys, self.values, self.is_initialized = keys, values, True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> LayerCache:
        """Return those before and the new ones; nothing is written, so that this may be called twice."""
        return torch.cat([self.keys, key_states], 2), torch.cat([self.values, value_states], 2)


def cache_to_fill(layers: int) -> Cache:
    """Return an empty cache of so many layers, for tokens that are read first, with their gradients."""
    return Cache(layers=[FirstKeys() for _ in range(layers)])


def after(layers: Iterable[LayerCache], rows: Tensor) -> Cache:
    """Return the cache for texts `[B]` that go on after some of the rows that were read, `rows` `[B]`."""
    return Cache(layers=[LaterKeys(k.index_select(0, rows), v.index_select(0, rows)) for k, v in layers])


def lines_of(place: Tensor, heads: int, length: int) -> Tensor:
    """Return where the next token of every row is written in a cache seen as lines of d numbers."""
    lines = torch.arange(len(place) * heads, device=place.device).view(len(place), heads)
    return (lines * length + place.unsqueeze(1)).flatten()


def cache_of(caches: Sequence[LayerCache], place: Tensor) -> Cache:
    """Return the cache of a decoder, by layer, whose rows stand at `place` `[B]`."""
    heads, length = caches[0][0].shape[1:3]
    lines = lines_of(place, heads, length)
    return Cache(layers=[TokenKeys(keys, values, lines) for keys, values in caches])


def with_source(own: Cache, source: Iterable[LayerCache]) -> EncoderDecoderCache:
    """Return the cache of a decoder that also attends to a source."""
    return EncoderDecoderCache(own, Cache(layers=[SourceKeys(keys, values) for keys, values in source]))


def layers_of(cache: Any) -> tuple[LayerCache, ...]:
    """Return the keys and values of a cache that transformers has filled."""
    return tuple((layer.keys, layer.values) for layer in cache.layers)


def with_room(caches: Iterable[LayerCache], room: int) -> tuple[LayerCache, ...]:
    """Return caches with `room` more lines of zeros: what is masked has weight 0, but 0 · NaN is NaN."""
    return tuple((_longer(keys, room), _longer(values, room)) for keys, values in caches)


def _longer(x: Tensor, room: int) -> Tensor:
    return torch.cat([x, x.new_zeros(*x.shape[:2], room, x.shape[3])], 2)
