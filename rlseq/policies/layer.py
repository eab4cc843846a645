"""A transformer's layer, and its word embeddings."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from rlseq.policies.attention import attention
from rlseq.policies.positions import Turn
from rlseq.policies.words import Embedding as WordVectors
from rlseq.types import Soft

KeysValues = tuple[Tensor, Tensor]  # `[B, heads, n, d]` each
Recall = Callable[[Tensor, Tensor], KeysValues]  # the keys and values of new words -> of all that may be seen


class Layer(nn.Module):
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
        self.qkv, self.out = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        if crosses:
            self.source_norm = nn.LayerNorm(hidden)
            self.source_q, self.source_kv = nn.Linear(hidden, hidden), nn.Linear(hidden, 2 * hidden)
            self.source_out = nn.Linear(hidden, hidden)
        self.wide = nn.Sequential(
            nn.LayerNorm(hidden), nn.Linear(hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, hidden)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        turn: Turn,
        seen: Tensor | None = None,
        recall: Recall = lambda *new: new,
        source: tuple[KeysValues, Tensor] | None = None,
    ) -> Tensor:
        """The new x `[B, n, H]`.

        Args:
            x: n words.
            turn: what positions do to queries and keys.
            seen: which words may be looked at (`rlseq.policies.attention`); None for the words so far.
            recall: adds the n words to a memory of m ≥ n; without it only they are seen.
            source: keys and values (see `look_at`), and what of them may be looked at, as `seen`.
        """
        q, k, v = self._split(self.qkv(self.norm(x)), 3)
        keys, values = recall(turn(k), v)
        x = x + self.dropout(self.out(_side_by_side(attention(turn(q), keys, values, seen))))
        if source is not None:
            (keys, values), present = source
            (q,) = self._split(self.source_q(self.source_norm(x)), 1)
            x = x + self.dropout(self.source_out(_side_by_side(attention(q, keys, values, present))))
        added: Tensor = self.dropout(self.wide(x))
        return x + added

    def look_at(self, source: Tensor) -> KeysValues:
        """Keys and values of a source `[B, S, H]`, made once."""
        keys, values = self._split(self.source_kv(source), 2)
        return keys.contiguous(), values.contiguous()

    def _split(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """`[B, n, parts·H]` as `parts` times `[B, heads, n, d]`."""
        return x.view(*x.shape[:2], parts, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)


def _side_by_side(heads: Tensor) -> Tensor:
    """`[B, heads, n, d]` as `[B, n, H]`."""
    return heads.transpose(1, 2).flatten(2)


class Embedding(nn.Module):
    """A vector `[H]` for every word; from a narrower table where `embedding` < H (Lan et al. 2020)."""

    def __init__(self, ids: int, embedding: int, hidden: int) -> None:
        super().__init__()
        self.table = WordVectors(ids, embedding)
        self.widen = nn.Identity() if embedding == hidden else nn.Linear(embedding, hidden, bias=False)

    def forward(self, ids: Tensor | Soft) -> Tensor:
        """`[…]` to `[…, H]`."""
        vectors: Tensor = self.widen(self.table(ids))
        return vectors
