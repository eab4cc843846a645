"""`EncoderDecoderPolicy`: T5, mT5, BART, mBART, Marian, Pegasus, M2M100 and NLLB as policies.

These decoders do not take positions as an argument. With a cache they count from its length, the same in all
rows, while rows here may stand at different places. So the cache reports the length 0, and the policy adds
the difference to place 0 itself: to the embedding, where the model adds a vector for each position; or to the
attention mask, where the model adds a bias for each distance (T5). For a query at place 0 that bias is the
same number for all keys of a head, which does not change a softmax.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from rlseq.policies.pretrained.base import PretrainedPolicy, additive
from rlseq.policies.pretrained.cache import LayerCache, cache_of, layers_of, with_room, with_source
from rlseq.policies.sharing import runs_of_rows
from rlseq.policies.spec import TokenSpec
from rlseq.types import Context, WordsRead

EncoderDecoderState = tuple[Tensor, tuple[LayerCache, ...], tuple[LayerCache, ...], Tensor]


class EncoderDecoderPolicy(PretrainedPolicy):
    """A pretrained encoder–decoder; the encoder reads each source once, and its rows share what it returns.

    Args:
        words: what is written and read; the decoder reads `words.prefix` before it writes.
        model: of transformers, or one that peft has wrapped.
        **options: see `PretrainedPolicy`.
    """

    def __init__(self, words: TokenSpec, model: Any, **options: bool) -> None:
        super().__init__(words, model, **options)
        self.length = len(words.prefix) - 1 + words.length  # places of a text
        self.biased = [m for m in self.decoder.modules() if getattr(m, "has_relative_attention_bias", False)]
        self.first_position = self._first_position()

    @property
    def decoder(self) -> Any:
        """The decoder of the model."""
        return self.inner.get_decoder()

    def start(self, context: Context) -> EncoderDecoderState:
        """Read the source and all tokens of the prefix but the last, which the first step reads."""
        read, present = self._encoded(context)
        before = self._prefix(len(read))[:, : max(1, len(self.words.prefix) - 1)]
        filled = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self.run(inputs_embeds=self.embed(before), cache=filled, **_attended(read, present))
        room = self.length - before.shape[1]  # the last token of a prefix of one is written over
        own = with_room(layers_of(filled.self_attention_cache), room)
        place = torch.full_like(context["index"], len(self.words.prefix) - 1)
        return place, own, layers_of(filled.cross_attention_cache), present

    def step(self, token: WordsRead, state: EncoderDecoderState) -> tuple[Tensor, EncoderDecoderState]:
        """Read a token; its place is a tensor, so that neither the host nor a captured graph must know it."""
        place, own, source, present = state
        x = self.embed(token).unsqueeze(1)
        if self.first_position is not None:
            positions = self._positions()
            x = x + (positions[place + self.first_position] - positions[self.first_position]).unsqueeze(1)
        cache = with_source(cache_of(own, place), source)
        h = self.run(
            inputs_embeds=x,
            attention_mask=self._mask(place, x),
            encoder_hidden_states=present.unsqueeze(2).to(x.dtype),  # whose keys and values are in the cache
            encoder_attention_mask=additive(present[:, None, None], x),
            cache=cache,
        ).last_hidden_state
        return self.logits(h.squeeze(1)), (place + 1, own, source, present)

    def features(self, read: WordsRead, context: Context) -> Tensor:
        """Read all tokens at once."""
        encoded, present = self._encoded(context)
        x = self.embed(read)
        before = self._prefix(len(x))[:, :-1]
        if before.shape[1]:
            x = torch.cat([self.embed(before), x], 1)
        h: Tensor = self.run(inputs_embeds=x, **_attended(encoded, present)).last_hidden_state
        return h[:, before.shape[1] :]

    def _encoded(self, context: Context) -> tuple[Tensor, Tensor]:
        """Return the vectors of the source, and True where it is present; equal neighbours are read once."""
        source, present = self.source(context)
        rows, run = runs_of_rows(source, present)
        read = self.inner.get_encoder()(
            input_ids=source[rows], attention_mask=present[rows]
        ).last_hidden_state
        return read[run] if len(rows) < len(source) else read, present

    def _prefix(self, rows: int) -> Tensor:
        """Return the tokens that are read before any is written, `[B, P]`."""
        device = self.inner.get_output_embeddings().weight.device
        return torch.tensor(self.words.prefix, device=device).expand(rows, -1)

    def _mask(self, place: Tensor, x: Tensor) -> Tensor:
        """Return the mask of the tokens so far, with the biases of distances, `[B, heads or 1, 1, L]`."""
        distance = place.unsqueeze(1) - torch.arange(self.length, device=place.device)
        mask = additive((distance >= 0)[:, None, None], x)
        for attention in self.biased[:1]:
            steps = torch.arange(self.length, device=place.device)
            bucket = attention._relative_position_bucket(
                -steps,
                bidirectional=False,
                num_buckets=attention.relative_attention_num_buckets,
                max_distance=attention.relative_attention_max_distance,
            )
            bias = attention.relative_attention_bias(bucket)[distance.clamp(min=0)]  # [B, L, heads]
            mask = mask + bias.permute(0, 2, 1).unsqueeze(2).to(x.dtype)
        return mask

    def _positions(self) -> Tensor:
        """Return the vectors of all positions, of which `first_position` belongs to place 0."""
        table = self.decoder.embed_positions
        found: Tensor = table.weight if hasattr(table, "weight") else table.weights
        return found

    @torch.no_grad()
    def _first_position(self) -> int | None:
        """Return the row of place 0 in the table of positions; None where positions have no vectors."""
        if getattr(self.decoder, "embed_positions", None) is None:
            return None
        seen: list[Tensor] = []
        hook = self.decoder.embed_positions.register_forward_hook(lambda *call: seen.append(call[2]))
        try:
            x = self.embed(self._prefix(1))
            source = {"encoder_hidden_states": x, "encoder_attention_mask": None}
            self.run(inputs_embeds=x, **source)
        finally:
            hook.remove()
        vector = seen[0].reshape(-1, seen[0].shape[-1])[0]
        return int((self._positions() == vector).all(1).nonzero()[-1])


def _attended(read: Tensor, present: Tensor) -> dict[str, Tensor]:
    return {"encoder_hidden_states": read, "encoder_attention_mask": present}
