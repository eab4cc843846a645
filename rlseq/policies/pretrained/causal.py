"""`CausalPolicy`: GPT-2, Llama, Qwen and their like as policies; the source is the prompt.

The cache has S − 1 lines for the prompt and T for the text. Sources are padded on the right, and a mask and
the position of every token make that the same as padding on the left: the text follows the last real token of
the prompt in its position, whatever lies between them in the cache. That last token is what the first step
reads, and has no line of the prompt.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlseq.policies.pretrained.base import PretrainedPolicy, additive
from rlseq.policies.pretrained.cache import (
    LayerCache,
    after,
    cache_of,
    cache_to_fill,
    layers_of,
    with_room,
)
from rlseq.policies.sharing import runs_of_rows
from rlseq.types import Context, Shifted, SoftTokens, WordsRead

CausalState = tuple[Tensor, Tensor, Tensor, Tensor, tuple[LayerCache, ...]]


class CausalPolicy(PretrainedPolicy):
    """A pretrained causal language model, which writes after a prompt, or from the beginning."""

    @property
    def decoder(self) -> Any:
        """The model below its head."""
        return self.inner.base_model

    def start(self, context: Context) -> CausalState:
        """Read the prompt; the first step reads its last token, and writes it behind all prompts."""
        prompt, present, last = self._prompt(context)
        own = with_room(self._read(prompt, present), self.words.length)
        seen = torch.nn.functional.pad(present, (0, self.words.length))
        return torch.zeros_like(last), present.sum(1), last, additive(seen, self._like()), own

    def step(self, token: WordsRead, state: CausalState) -> tuple[Tensor, CausalState]:
        """Read a token; its place is a tensor, so that neither the host nor a captured graph must know it."""
        place, position, last, seen, own = state
        line = place + (seen.shape[1] - self.words.length)
        seen = seen.scatter(1, line.unsqueeze(1), 0.0)  # not in place: other texts of the row go on from it
        h = self.run(
            inputs_embeds=self.embed(_first_is(last, token, place)).unsqueeze(1),
            attention_mask=seen[:, None, None],
            position_ids=position.unsqueeze(1),
            cache=cache_of(own, line),
        ).last_hidden_state
        return self.logits(h.squeeze(1)), (place + 1, position + 1, last, seen, own)

    def features(self, read: WordsRead, context: Context) -> Tensor:
        """Read each prompt once, whatever the number of its texts, and then the texts, all tokens at once."""
        prompt, present, last = self._prompt(context)
        words = read.words if isinstance(read, Shifted) else read
        steps = words.words if isinstance(words, SoftTokens) else words
        place = torch.arange(steps.shape[1], device=steps.device).expand(steps.shape[:2])
        seen = torch.cat([present, torch.ones_like(place, dtype=torch.bool)], 1)
        rows, run = runs_of_rows(prompt, present)
        layers = self._read(prompt[rows], present[rows])
        h: Tensor = self.run(
            inputs_embeds=self.embed(_first_is(last, read, place)),
            attention_mask=additive(_causal(seen)[:, :, prompt.shape[1] :], self._like()),
            position_ids=present.sum(1, keepdim=True) + place,
            cache=after(layers, run),
        ).last_hidden_state
        return h

    def _read(self, prompt: Tensor, present: Tensor) -> tuple[LayerCache, ...]:
        """Return the keys and values of prompts, by layer."""
        filled = cache_to_fill(self.inner.config.num_hidden_layers)
        self.run(
            inputs_embeds=self.embed(prompt),
            attention_mask=additive(_causal(present), self._like()),
            position_ids=_places(present),
            cache=filled,
        )
        return layers_of(filled)

    def _prompt(self, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Return the tokens before the last of a prompt, where they are, `[B, S − 1]`, and the last, `[B]`.

        A prompt of one token has a column, too, in which nothing is present. Without a source it is BOS.
        """
        if self.words.source is None:
            last = torch.full_like(context["index"], self.words.bos)
            return last.unsqueeze(1), torch.zeros_like(last, dtype=torch.bool).unsqueeze(1), last
        prompt, present = self.source(context)
        before, last = _without_last(present), _last_of(prompt, present)
        columns = max(1, prompt.shape[1] - 1)
        return prompt[:, :columns], before[:, :columns], last

    def _like(self) -> Tensor:
        weight: Tensor = self.inner.get_output_embeddings().weight
        return weight


def _causal(seen: Tensor) -> Tensor:
    """Return the tokens `[B, 1, n, n]` at which each looks: those before it that are seen, and itself."""
    n = seen.shape[1]
    earlier = torch.ones(n, n, dtype=torch.bool, device=seen.device).tril()
    itself = torch.eye(n, dtype=torch.bool, device=seen.device)
    return (earlier & seen.unsqueeze(1) | itself).unsqueeze(1)


def _places(present: Tensor) -> Tensor:
    """Return the position of every token, `[B, n]`."""
    return (present.cumsum(1) - 1).clamp(min=0)


def _last_of(prompt: Tensor, present: Tensor) -> Tensor:
    """Return the last token of every prompt, `[B]`."""
    return prompt.gather(1, present.sum(1, keepdim=True) - 1).squeeze(1)


def _without_last(present: Tensor) -> Tensor:
    """Return the mask of the prompt's tokens but the last one, `[B, S]`."""
    return present & (present.cumsum(1) < present.sum(1, keepdim=True))


def _first_is(last: Tensor, token: Any, place: Tensor) -> Any:
    """Return the tokens read, of which that at place 0 is the last one of the prompt."""
    if isinstance(token, Shifted):
        return token._replace(words=_first_is(last, token.words, place))
    if isinstance(token, SoftTokens):
        words = torch.where((place == 0).unsqueeze(-1), last.view(-1, *[1] * place.dim()), token.words)
        return SoftTokens(words, token.weights)
    return torch.where(place == 0, last.view(-1, *[1] * (place.dim() - 1)), token)
