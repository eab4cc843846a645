"""Sampling from a large vocabulary with one uniform number per token: the inverse CDF, in two levels.

Tokens lie in blocks of about √V: first the block is found into which the number falls, then the token inside
it. That is one pass over V to sum the blocks, and O(√V) for the rest; drawing V random numbers per token
(Gumbel, `torch.multinomial`) takes longer than the network that computes the logits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

FORBIDDEN = torch.finfo(torch.float32).min  # the logit of a masked token: as −∞, but 0 · FORBIDDEN is not NaN
Summed = tuple[Tensor, Callable[[Tensor], Tensor]]  # the sum of every block; of a block, its tokens' weights


def inverse_cdf(weights: Tensor, uniform: Tensor) -> Tensor:
    """Sample an index of every row of `weights` `[B, V]` from one uniform number `[B]` in [0, 1)."""
    return _crossed(*_stored(weights), uniform)[0].clamp(max=weights.shape[1] - 1)


def sample_from_logits(logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Sample a token of every row of softmax(logits), `[B]`; also return log Σ exp(logits), `[B]`."""
    compiled = torch.compiler.is_compiling()
    token, weight, total = _crossed(*(_fused(logits) if compiled else _stored(logits.softmax(-1))), uniform)
    token = token.clamp(max=logits.shape[1] - 1)  # where a logit is NaN, which is refused after the rollout
    # z − log w is the same for all tokens of a row, whatever factor its weights lack.
    log_norm = logits.gather(1, token.unsqueeze(1)).squeeze(1) - weight.log() + total.log()
    return token, log_norm.to(logits.dtype)


def _stored(weights: Tensor) -> Summed:
    """Return the sums of blocks of weights that are stored, and a function that reads one block."""
    blocks = _in_blocks(weights, 0.0)
    return blocks.sum(-1), lambda which: _rows(blocks, which)


def _fused(logits: Tensor) -> Summed:
    """Return the same for exp(logits), to be compiled: one pass that stores no weights.

    Uncompiled, softmax is the fastest kernel. Compiled, the maximum of a whole row would be one long chain of
    operations, and weights that are read again would have to be stored; so each block has its own maximum.
    """
    blocks = _in_blocks(logits, FORBIDDEN)
    tops = blocks.amax(-1, keepdim=True)
    top = tops.amax(1)
    sums = (blocks - tops).exp().sum(-1) * (tops.squeeze(-1) - top).exp()
    sums = sums.masked_fill(tops.squeeze(-1) == -math.inf, 0.0)  # −∞ − (−∞) is NaN
    return sums, lambda which: (_rows(blocks, which) - top).exp()


def _in_blocks(values: Tensor, spare: float) -> Tensor:
    """Return `[B, V]` as `[B, blocks, width]`, filled up."""
    size = values.shape[1]
    width = _block_width(size)
    if size % width:
        values = F.pad(values, (0, width - size % width), value=spare)
    return values.view(len(values), -1, width)


def _rows(blocks: Tensor, which: Tensor) -> Tensor:
    """Return one block of each row, `[B, width]`."""
    return blocks[torch.arange(len(blocks), device=blocks.device), which]


def _crossed(sums: Tensor, inside: Callable[[Tensor], Tensor], uniform: Tensor) -> tuple[Tensor, ...]:
    """Return the token, its weight, and the sum of all weights in double precision, `[B]` each."""
    sums = sums.cumsum(-1, dtype=torch.float64)
    target = uniform.double().unsqueeze(1) * sums[:, -1:]
    block = _crossing(sums, target)
    before = sums.gather(1, (block - 1).clamp_(min=0)).masked_fill(block == 0, 0.0)
    weights = inside(block.squeeze(1))
    place = _crossing(weights.cumsum(-1, dtype=torch.float64), target - before)
    token = block * weights.shape[1] + place
    return token.squeeze(1), weights.gather(1, place).squeeze(1), sums[:, -1]


@lru_cache
def _block_width(size: int) -> int:
    """Return the number of tokens in a block: a divisor near 2√V, to which nothing is added, or else 2√V.

    √V would balance both levels; but short blocks waste the lanes of vector instructions.
    """
    wanted = min(2 * math.isqrt(size), size)
    near = [width for width in range(max(1, wanted // 2), 2 * wanted + 1) if size % width == 0]
    return min(near, key=lambda width: abs(width - wanted), default=wanted)


def _crossing(running: Tensor, target: Tensor) -> Tensor:
    """Return the index at which the running sums `[B, n]` first exceed `target` `[B, 1]`.

    The target stays below the last of them whatever was rounded, so that an index of weight zero is never
    chosen.
    """
    target = torch.minimum(target, running[:, -1:] * (1 - 2**-52))
    return torch.searchsorted(running, target, right=True).clamp_(max=running.shape[1] - 1)
