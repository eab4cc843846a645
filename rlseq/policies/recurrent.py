"""Recurrent policies: a language model, or an encoder–decoder where the task has a source.

hₜ = g(hₜ₋₁, xₜ),   π(yₜ | y₍₁…ₜ₋₁₎, source) = softmax(W hₜ + b)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rlseq.policies.head import token_scores
from rlseq.types import RAW, Behaviour, Context, Evaluation

State = tuple[Tensor, ...]  # (memory…, [B, H] each; the encoded source last, if there is one)


class Recurrent(nn.Module):
    """LSTM or GRU language model; with `source_ids`, another one reads the source for it.

    The source is summed up in one vector (the encoder's state after its last real token), from which the
    decoder starts and which it sees at every step (Cho et al. 2014).

    Args:
        cell: `nn.LSTM` or `nn.GRU`; `step` and `evaluate` use the same weights.
        words: V, tokens that can be written.
        ids: rows of the embedding, V and the ids that are only read.
        bos: id read before the first token.
        hidden: H, width of the state.
        embedding: width of the embeddings.
        source_ids: rows of the source's embedding; None for a language model.
        source_pad: id that fills up short sources.
        value: add a value head V(sₜ) on the shared trunk.
    """

    def __init__(
        self,
        cell: type[nn.LSTM] | type[nn.GRU],
        *,
        words: int,
        ids: int,
        bos: int,
        hidden: int = 256,
        embedding: int = 128,
        source_ids: int | None = None,
        source_pad: int = 0,
        value: bool = False,
    ) -> None:
        super().__init__()
        self.bos, self.source_pad, self.hidden = bos, source_pad, hidden
        self.embedding = nn.Embedding(ids, embedding)
        self.source_embedding = None if source_ids is None else nn.Embedding(source_ids, embedding)
        self.encoder = None if source_ids is None else cell(embedding, hidden, batch_first=True)
        self.bridge = None if source_ids is None else nn.Linear(hidden, hidden)
        self.decoder = cell(embedding + hidden * (source_ids is not None), hidden, batch_first=True)
        self.head = nn.Linear(hidden, words)
        self.value_head = nn.Linear(hidden, 1) if value else None

    def start(self, context: Context) -> State:
        """Encode the source, if there is one."""
        if self.encoder is None or self.source_embedding is None or self.bridge is None:
            zero = self.head.weight.new_zeros(len(context["index"]), self.hidden)
            return (zero,) * self._memories
        source = context["source"]
        outputs, _ = self.encoder(self.source_embedding(source))
        last = (source != self.source_pad).sum(1).sub_(1).clamp_(min=0)  # padding is read after it, unseen
        summary = outputs[torch.arange(len(source), device=source.device), last]
        first = self.bridge(summary).tanh()
        return (first, *[torch.zeros_like(first)] * (self._memories - 1), summary)

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """One token: the same weights as `evaluate`, without the sequence machinery."""
        memory, source = state[: self._memories], state[self._memories :]
        x = torch.cat([self.embedding(token), *source], 1)
        memory = self._cell(x, memory)
        return self.head(memory[0]), (*memory, *source)

    def evaluate(self, actions: Tensor, context: Context, behaviour: Behaviour = RAW) -> Evaluation:
        """All steps at once, reading the given actions."""
        state = self.start(context)
        memory, source = state[: self._memories], state[self._memories :]
        read = torch.cat([torch.full_like(actions[:, :1], self.bos), actions[:, :-1]], 1)
        x = torch.cat(
            [self.embedding(read), *[s.unsqueeze(1).expand(-1, read.shape[1], -1) for s in source]], 2
        )
        first = tuple(m.unsqueeze(0).contiguous() for m in memory)
        features, _ = self.decoder(x, first if len(first) > 1 else first[0])
        scores = token_scores(features, self.head.weight, self.head.bias, actions, behaviour)
        values = None if self.value_head is None else self.value_head(features).squeeze(2)
        return Evaluation(*scores, values)

    def train(self, mode: bool = True) -> Recurrent:
        """Without dropout the mode means nothing here, and cuDNN only differentiates RNNs that train."""
        super().train(mode)
        for module in (self.encoder, self.decoder):
            if module is not None:
                module.train(True)
        return self

    @property
    def _memories(self) -> int:
        return 2 if isinstance(self.decoder, nn.LSTM) else 1

    def _cell(self, x: Tensor, memory: State) -> State:
        d: Any = self.decoder
        weights = d.weight_ih_l0, d.weight_hh_l0, d.bias_ih_l0, d.bias_hh_l0
        if len(memory) == 2:
            return torch.lstm_cell(x, memory, *weights)
        return (torch.gru_cell(x, memory[0], *weights),)
