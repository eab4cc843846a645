"""The policy "hf": a pretrained model of transformers, whole, in part, or with adapters of peft."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from rlseq.policies.spec import TokenSpec
from rlseq.utils.errors import need


def pretrained(
    words: TokenSpec,
    *,
    model: Any,
    peft: Any = None,
    freeze: str | Sequence[str] = (),
    dtype: str = "float32",
    attention: str = "sdpa",
    checkpointing: bool = False,
    value: bool = False,
    trust_remote_code: bool = False,
    config: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Make a policy of a pretrained model: an encoder–decoder, or a causal model whose prompt is the source.

    Args:
        words: what is written and read.
        model: the folder of a model, its name, or a `PreTrainedModel`.
        peft: adapters, a `peft.LoraConfig` or its settings (`{"r": 8}`): only they are trained, and saved.
        freeze: parts that are not trained: "encoder", "decoder", "embeddings" or "head".
        dtype: type of the weights, "float32" or "bfloat16".
        attention: "sdpa" or "eager".
        checkpointing: compute activations again in the backward pass: less memory, a third more time.
        value: add a value head V(sₜ) on the last hidden state.
        trust_remote_code: run code that comes with the model; never done unless asked.
        config: the model's configuration, with its settings for generation, from which its network is made
            where all its weights come from elsewhere, as in `rlseq.load`.
    """
    need("transformers", "hf")
    from rlseq.policies.pretrained.building import make_pretrained

    return make_pretrained(
        words,
        model,
        peft=peft,
        parts=(freeze,) if isinstance(freeze, str) else tuple(freeze),
        dtype=dtype,
        attention=attention,
        checkpointing=checkpointing,
        value=value,
        trust_remote_code=trust_remote_code,
        config=config,
    )
