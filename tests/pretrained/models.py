"""Tiny random models of every supported family."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import rlseq

transformers = pytest.importorskip("transformers")

ENDS = {"decoder_start_token_id": 0, "eos_token_id": 0, "bos_token_id": 0}
T5 = {
    "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "pad_token_id": 0,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 6,
}  # fmt: skip
BART = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "pad_token_id": 1,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 64,
    "forced_eos_token_id": None,
}  # fmt: skip
LLAMA = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "bos_token_id": 0, "eos_token_id": 0, "max_position_embeddings": 64,
}  # fmt: skip
GPT2 = {
    "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip

ENCODER_DECODERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "t5": ("T5ForConditionalGeneration", "T5Config", {**T5, **ENDS}),
    "t5-v1.1": (
        "T5ForConditionalGeneration",
        "T5Config",
        {**T5, **ENDS, "tie_word_embeddings": False, "feed_forward_proj": "gated-gelu"},
    ),
    "mt5": ("MT5ForConditionalGeneration", "MT5Config", {**T5, **ENDS}),
    "bart": ("BartForConditionalGeneration", "BartConfig", {**BART, **ENDS}),
    "mbart": ("MBartForConditionalGeneration", "MBartConfig", {**BART, **ENDS}),
    "marian": ("MarianMTModel", "MarianConfig", {**BART, **ENDS}),
    "pegasus": ("PegasusForConditionalGeneration", "PegasusConfig", {**BART, **ENDS}),
    "m2m100": ("M2M100ForConditionalGeneration", "M2M100Config", {**BART, **ENDS}),
}
CAUSAL: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", GPT2),
    "llama": ("LlamaForCausalLM", "LlamaConfig", LLAMA),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", LLAMA),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", {**LLAMA, "head_dim": 8}),
}
FAMILIES = {**ENCODER_DECODERS, **CAUSAL}


def model_of(family: str, words: int, **changes: Any) -> Any:
    """Return a random model of a family, whose distributions are far from uniform."""
    model, config, sizes = FAMILIES[family]
    torch.manual_seed(1)
    made = getattr(transformers, model)(
        getattr(transformers, config)(vocab_size=words, **{**sizes, **changes})
    )
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return made.eval()


def pairs(rows: int = 6, **options: Any) -> tuple[Any, int]:
    """Return a task of short pairs, and the number of ids that a model needs for it."""
    env = rlseq.make("rlseq/Parallel-v0", num_envs=rows, seed=0, **{"max_len": 12, **options})
    vocabs: Any = env.vocab, env.source_vocab
    return env, max(vocab.num_ids for vocab in vocabs)
