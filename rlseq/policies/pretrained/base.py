"""`PretrainedPolicy`: the part that encoder–decoders and causal models have in common."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import GenerationConfig
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import logging

from rlseq.policies.head import LinearLogits, TokenPolicy, token_scores
from rlseq.policies.matmul import affine, speed_up
from rlseq.policies.pretrained.adapters import ReferenceAdapters
from rlseq.policies.pretrained.attention import speed_up_attention
from rlseq.policies.spec import TokenSpec
from rlseq.types import RAW, Behaviour, Context, Evaluation, Shifted, SoftTokens, WordsRead
from rlseq.vocab import TokenizerVocab, Vocab

FROZEN = "frozen_weights_sha256"  # the entry of a state that stands for the weights that it leaves out


class PretrainedPolicy(TokenPolicy):
    """A language model of transformers as a policy: the state is a cache of fixed size with rows first.

    `step` writes keys and values of each token into their place of the cache, **in place**, as
    `rlseq.policies.Transformer` does; the same rules hold.

    Args:
        words: what is written and read.
        model: of transformers, or one that peft has wrapped.
        value: add a value head V(sₜ) on the last hidden state.
        checkpointing: compute the activations of the layers again in the backward pass.
        partly: only some of the weights are trained, and saved.
    """

    differentiable_step = False  # the cache is written in place

    def __init__(
        self,
        words: TokenSpec,
        model: Any,
        *,
        value: bool = False,
        checkpointing: bool = False,
        partly: bool = False,
    ) -> None:
        super().__init__()
        self.words, self.model, self.partly = words, model, partly
        weight = self.inner.get_output_embeddings().weight
        self.value = nn.Linear(weight.shape[1], 1, dtype=weight.dtype) if value else None
        speed_up(self.inner)
        speed_up_attention(self.inner)
        self.cache_name = _cache_name(self.decoder)
        if checkpointing:
            for layer in self.inner.modules():
                if isinstance(layer, GradientCheckpointingLayer):
                    layer.forward = partial(_recomputed, layer.forward)
        self._saved, self._frozen = self._parts_of_state()

    @property
    def inner(self) -> Any:
        """The model itself, also where peft has wrapped it."""
        return self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model

    @property
    def decoder(self) -> Any:
        """The network that maps the tokens read to hidden states, without the head."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Return the configuration of the network, from which it can be made again without its folder."""
        settings = (
            self.inner.config.to_json_string(use_diff=False),
            self.inner.generation_config.to_json_string(),
        )
        config, generation = map(json.loads, settings)
        return {"config": {**config, "generation": generation}}

    # ── scores ───────────────────────────────────────────────────────────────────────────────────────

    def evaluate(
        self,
        actions: Tensor,
        context: Context,
        behaviour: Behaviour = RAW,
        inputs: WordsRead | None = None,
    ) -> Evaluation:
        """Score whole sequences, reading the given actions, or `inputs` in their place."""
        h = self.features(self.words.before(actions if inputs is None else inputs), context)
        scaled, weight = h * self.scale, self.head_weight()
        log_probs, entropy, top = token_scores(scaled, weight, actions, behaviour)
        values = None if self.value is None else self.value(h).squeeze(2)
        return Evaluation(log_probs, entropy, values, top, LinearLogits(scaled, weight, behaviour))

    @property
    def scale(self) -> float:
        """The factor of the last hidden state before the head: some T5 models divide it by √d."""
        config = self.inner.config
        return float(config.d_model**-0.5) if getattr(config, "scale_decoder_outputs", False) else 1.0

    def head_weight(self) -> Tensor:
        """Return W `[V, H]` of the words that can be written; a bias is one more column."""
        head = self.inner.get_output_embeddings()
        weight: Tensor = head.weight[: self.words.written]
        bias = getattr(self.inner, "final_logits_bias", None)
        bias = getattr(head, "bias", None) if bias is None else bias
        if bias is None:
            return weight
        return torch.cat([weight, bias.flatten()[: self.words.written].unsqueeze(1).to(weight.dtype)], 1)

    def logits(self, h: Tensor) -> Tensor:
        """Return logits `[B, V]` of last hidden states `[B, H]`."""
        scaled, weight = h * self.scale, self.head_weight()
        if weight.shape[1] == h.shape[1]:
            return affine(scaled, weight)
        return affine(scaled, weight[:, :-1], weight[:, -1])

    def embed(self, read: WordsRead) -> Tensor:
        """Return the vectors of tokens; of several tokens in one place, their weighted mean."""
        if isinstance(read, Shifted):
            return self.embed(read.words) + read.shift
        table = getattr(self.decoder, "embed_tokens", None) or self.inner.get_input_embeddings()
        if isinstance(read, SoftTokens):
            mean: Tensor = (table(read.words) * read.weights.unsqueeze(-1)).sum(-2)
            return mean
        vectors: Tensor = table(read)
        return vectors

    def source(self, context: Context) -> tuple[Tensor, Tensor]:
        """Return the source, padded with an id that the model has, and True where it is present, `[B, S]`."""
        present, pad = self.words.present(context["source"]), self.inner.config.pad_token_id
        return context["source"].where(present, pad if isinstance(pad, int) and pad >= 0 else 0), present

    def run(self, **inputs: Any) -> Any:
        """Run the decoder; `cache` is the keys and values to read and to write."""
        cache = inputs.pop("cache", None)
        given = {} if cache is None else {self.cache_name: cache}
        return self.decoder(**inputs, **given, use_cache=cache is not None)

    def save_pretrained(self, path: Path, vocab: Vocab, max_len: int, *, merge: bool) -> None:
        """Write the model with its tokenizer and the settings with which it writes as the policy does.

        Args:
            path: the folder.
            vocab: of the task; that of a tokenizer is saved, too.
            max_len: T.
            merge: add adapters to the weights of the model.
        """
        model = deepcopy(self.model).cpu() if merge else self.model
        if merge and hasattr(model, "peft_config"):
            model = model.merge_and_unload()
        settings = GenerationConfig.from_dict({**self.inner.generation_config.to_dict(), "do_sample": False})
        settings.max_length, settings.max_new_tokens = None, max_len
        if isinstance(vocab, TokenizerVocab):
            settings.eos_token_id, settings.pad_token_id = vocab.eos, min(vocab.pad, len(vocab) - 1)
            if self.inner.config.is_encoder_decoder:
                settings.decoder_start_token_id, *forced = vocab.prefix
                settings.forced_bos_token_id = forced[0] if forced else None
                settings.max_new_tokens = max_len + len(forced)
            vocab.tokenizer.save_pretrained(path)
        with without_bars():
            model.save_pretrained(path)
        settings.save_pretrained(path)

    def frozen_copy(self) -> nn.Module:
        """Return the policy as it is now, to be a reference; with adapters it shares the base."""
        if hasattr(self.model, "peft_config"):
            return ReferenceAdapters(self)
        return super().frozen_copy()

    # ── state ────────────────────────────────────────────────────────────────────────────────────────

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the weights that training changes, and a checksum of the others, if there are any.

        With adapters, these are the adapters and the value head alone: the weights below them are those of
        the pretrained model, and the checksum refuses another one.
        """
        state = super().state_dict(*args, **kwargs)
        for name in [name for name in state if name not in self._saved]:
            del state[name]
        if self._frozen is not None:
            state[FROZEN] = self._frozen
        return state

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Take weights that `state_dict` has returned."""
        state = dict(state_dict)
        frozen = state.pop(FROZEN, None)
        if frozen is not None and self._frozen is not None and not torch.equal(frozen.cpu(), self._frozen):
            raise ValueError(
                "the frozen weights of the pretrained model are others than those with which these weights "
                "were trained (their checksums differ); use the same model"
            )
        if strict and state.keys() != self._saved:
            lacking, more = sorted(self._saved - state.keys()), sorted(state.keys() - self._saved)
            raise RuntimeError(
                f"the weights are of another policy: missing {lacking[:3]}, unknown {more[:3]}"
            )
        return super().load_state_dict(state, strict=False, assign=assign)

    def _parts_of_state(self) -> tuple[frozenset[str], Tensor | None]:
        """Return the names of the weights that a state holds, tied ones once; a checksum of the others."""
        named: dict[Any, str] = {}
        weights = super().state_dict()
        for name, value in weights.items():
            named.setdefault((value.data_ptr(), value.shape), name)
        trained = {name for name, p in self.named_parameters(remove_duplicate=False) if p.requires_grad}
        every = frozenset(named.values())
        if not self.partly:
            return every, None
        return every & trained, _checksum(weights[name] for name in sorted(every - trained))


@contextmanager
def without_bars() -> Iterator[None]:
    """Hide the progress bars with which transformers loads and saves weights."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def additive(seen: Tensor, like: Tensor) -> Tensor:
    """Return a mask for attention, of the type of `like`: 0 where it may look, else the least number."""
    return torch.zeros_like(seen, dtype=like.dtype).masked_fill(~seen, torch.finfo(like.dtype).min)


def _checksum(weights: Iterable[Tensor]) -> Tensor:
    """Return the SHA-256 of weights, 32 bytes."""
    found = sha256()
    for weight in weights:
        found.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return torch.frombuffer(bytearray(found.digest()), dtype=torch.uint8)


def _cache_name(decoder: Any) -> str:
    """Return the keyword of a cache, which was `past_key_values` before transformers 5.24."""
    return "cache" if "cache" in inspect.signature(type(decoder).forward).parameters else "past_key_values"


def _recomputed(forward: Any, *args: Any, **kwargs: Any) -> Any:
    """Run a layer; its activations are computed again when they are differentiated."""
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)
