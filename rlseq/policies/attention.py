"""Attention, for one query and for many, and encodings of places."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlseq.policies.matmul import Linear
from rlseq.policies.packed import ALL, RealPlaces
from rlseq.policies.spec import TokenEmbedding
from rlseq.types import Shifted, WordsRead


def attention(q: Tensor, keys: Tensor, values: Tensor, seen: Tensor | None) -> Tensor:
    """softmax(q·kᵀ/√d + seen) v.

    Args:
        q: `[…, n, d]`.
        keys: `[…, m, d]`.
        values: `[…, m, d]`.
        seen: 0 for what may be looked at, else −∞, broadcastable to `[…, n, m]`; None for the words so far.
    """
    if seen is not None and q.shape[-2] == 1 and keys.dtype == torch.float32 and keys.device.type == "cpu":
        # The fused kernel is made for many queries; for one, two products take half of its time. (In
        # bfloat16 they would round what the kernel, which scores the same words later, does not.)
        shares: Tensor = (q @ keys.mT * float(q.shape[-1] ** -0.5) + seen).softmax(-1)
        return shares @ values
    a: Tensor = F.scaled_dot_product_attention(q, keys, values, attn_mask=seen, is_causal=seen is None)
    return a


def seen_where(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """Return 0 where attention is allowed, else −∞, the form that `scaled_dot_product_attention` adds."""
    return torch.zeros_like(allowed, dtype=dtype).masked_fill_(~allowed, -torch.inf)


KeysValues = tuple[Tensor, Tensor]  # `[B, heads, n, d]` each
Recall = Callable[[Tensor, Tensor], KeysValues]  # the keys and values of new words -> of all that may be seen


class TransformerLayer(nn.Module):
    """Self-attention, attention to a source if it `crosses`, and two linear maps; pre-norm, residual.

    Args:
        hidden: H.
        heads: H is divided among them.
        dropout: of what is added to x.
        crosses: look at a source, too.
    """

    def __init__(self, hidden: int, heads: int, dropout: float, crosses: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(hidden)
        self.qkv, self.out = Linear(hidden, 3 * hidden), Linear(hidden, hidden)
        if crosses:
            self.source_norm = nn.LayerNorm(hidden)
            self.source_q, self.source_kv = Linear(hidden, hidden), Linear(hidden, 2 * hidden)
            self.source_out = Linear(hidden, hidden)
        self.wide = nn.Sequential(
            nn.LayerNorm(hidden), Linear(hidden, 4 * hidden), nn.GELU(), Linear(4 * hidden, hidden)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        turn: Turn,
        seen: Tensor | None = None,
        recall: Recall = lambda *new: new,
        source: tuple[KeysValues, Tensor] | None = None,
        real: RealPlaces = ALL,
    ) -> Tensor:
        """Return the new x, `[B, n, H]`, or of the real places only, `[N, H]`.

        Args:
            x: n words of every row.
            turn: what positions do to queries and keys.
            seen: which words may be looked at (`rlseq.policies.attention`); None for the words so far.
            recall: adds the n words to a memory of m ≥ n; without it only they are seen.
            source: keys and values (see `look_at`), and what of them may be looked at, as `seen`.
            real: which places x has; queries, keys and values of padding are 0.
        """
        q, k, v = self._split(real.spread(self.qkv(self.norm(x))), 3)
        keys, values = recall(turn(k), v)
        looked = _side_by_side(attention(turn(q), keys, values, seen))
        x = x + self.dropout(self.out(real.gathered(looked)))
        if source is not None:
            (keys, values), present = source
            (q,) = self._split(real.spread(self.source_q(self.source_norm(x))), 1)
            looked = _side_by_side(attention(q, keys, values, present))
            x = x + self.dropout(self.source_out(real.gathered(looked)))
        added: Tensor = self.dropout(self.wide(x))
        return x + added

    def look_at(self, source: Tensor) -> KeysValues:
        """Return keys and values of a source `[B, S, H]`, computed once."""
        keys, values = self._split(self.source_kv(source), 2)
        return keys.contiguous(), values.contiguous()

    def _split(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """Return `[B, n, parts·H]` as `parts` tensors `[B, heads, n, d]`."""
        return x.view(*x.shape[:2], parts, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)


def _side_by_side(heads: Tensor) -> Tensor:
    """Return `[B, heads, n, d]` as `[B, n, H]`."""
    return heads.transpose(1, 2).flatten(2)


class FactorizedEmbedding(nn.Module):
    """A vector `[H]` for every word; from a narrower table where `embedding` < H (Lan et al. 2020)."""

    def __init__(self, ids: int, embedding: int, hidden: int) -> None:
        super().__init__()
        self.table = TokenEmbedding(ids, embedding)
        self.widen = nn.Identity() if embedding == hidden else Linear(embedding, hidden, bias=False)

    def forward(self, ids: WordsRead) -> Tensor:
        """Return vectors `[…, H]` of words `[…]`."""
        if isinstance(ids, Shifted):  # after the narrow table
            return self.forward(ids.words) + ids.shift
        vectors: Tensor = self.widen(self.table(ids))
        return vectors


Turn = Callable[[Tensor], Tensor]
Positions = Callable[[int, int, int], nn.Module]  # (H, heads, longest text) -> positions


class Rotary(nn.Module):
    """Rotary encoding: queries and keys are rotated by place, so that qₘ·kₙ depends on m − n.

    (x₁, x₂) ↦ (x₁ cos tθ − x₂ sin tθ,  x₂ cos tθ + x₁ sin tθ),   θᵢ = 10000^(−2i/d)

    Su et al. 2021. Attention to a source is not rotated, so words align by content alone: where they must be
    matched place by place, as in copying, that is learned more slowly than with `Learned`.
    """

    theta: Tensor

    def __init__(self, hidden: int, heads: int, length: int) -> None:
        super().__init__()
        width = hidden // heads
        if width % 2:
            raise ValueError(
                f"rotary positions need an even width per head, got {hidden} / {heads} = {width}; "
                "change hidden or heads, or pass positions=Learned"
            )
        self.register_buffer("theta", 10000.0 ** (-torch.arange(0, width, 2) / width), persistent=False)

    def forward(self, x: Tensor, place: Tensor) -> tuple[Tensor, Turn]:
        """Encode words at `place`, `[B, n]` or `[1, n]`."""
        angle = (place.unsqueeze(2) * self.theta).unsqueeze(1)
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)

        def turn(x: Tensor) -> Tensor:
            first, second = x.chunk(2, -1)
            return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)

        return x, turn


class Learned(nn.Module):
    """Learned encoding: a vector for every place, added to the words (Vaswani et al. 2017)."""

    def __init__(self, hidden: int, heads: int, length: int) -> None:
        super().__init__()
        self.table = nn.Embedding(length, hidden)

    def forward(self, x: Tensor, place: Tensor) -> tuple[Tensor, Turn]:
        """Encode words at `place`, `[B, n]` or `[1, n]`."""
        if place.shape[1] > self.table.num_embeddings:
            raise ValueError(
                f"this policy has learned {self.table.num_embeddings} places, got {place.shape[1]} words; "
                "make it with a longer task, or with positions=Rotary"
            )
        return x + self.table(place), lambda x: x
