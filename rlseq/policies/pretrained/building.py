"""`make_pretrained`: a policy of a folder, a name or a loaded model; all is checked before training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from rlseq.policies.pretrained.adapters import with_adapters
from rlseq.policies.pretrained.attention import SPED_UP
from rlseq.policies.pretrained.base import PretrainedPolicy, without_bars
from rlseq.policies.pretrained.causal import CausalPolicy
from rlseq.policies.pretrained.encoder_decoder import EncoderDecoderPolicy
from rlseq.policies.spec import TokenSpec
from rlseq.utils.arguments import shown
from rlseq.utils.errors import pick
from rlseq.utils.modules import eval_mode

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ATTENTION = ("sdpa", "eager")
FREEZABLE = ("encoder", "decoder", "embeddings", "head")
FEWEST = 0.9  # share of a model's rows that its own tokenizer has at least; the others are unused
CHECKED_STEPS = 4  # tokens on which a new policy is compared with its model
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}  # of their logits, relative to the largest


def make_pretrained(
    words: TokenSpec,
    model: Any,
    *,
    peft: Any,
    parts: tuple[str, ...],
    dtype: str,
    attention: str,
    checkpointing: bool,
    value: bool,
    trust_remote_code: bool,
    config: Mapping[str, Any] | None,
) -> PretrainedPolicy:
    """Make the policy; see `rlseq.policies.hf.pretrained`."""
    check_type(dtype)
    pick({name: name for name in ATTENTION}, attention, "attention")
    options = {"dtype": DTYPES[dtype], "attn_implementation": attention}
    if isinstance(model, nn.Module):
        inner = checked_model(model)
    elif config is not None and peft is None and not parts:
        inner = from_config(config, **options)
    else:
        check_named(words, model)
        inner = load_model(model, trust_remote_code=trust_remote_code, **options)
    check_reads(words, inner)
    check_ids(words, inner)
    check_positions(words, inner)
    freeze(inner, parts)
    if peft is not None:
        inner = with_adapters(inner, peft)
    cls = EncoderDecoderPolicy if inner.config.is_encoder_decoder else CausalPolicy
    partly = bool(parts) or hasattr(inner, "peft_config")
    policy = cls(words, inner, value=value, checkpointing=checkpointing, partly=partly)
    if not any(p.requires_grad for p in policy.parameters()):
        raise ValueError(f"freeze={list(parts)} leaves nothing to train; leave one of {list(FREEZABLE)} out")
    verify(policy)
    return policy


# ── the model ────────────────────────────────────────────────────────────────────────────────────────────


def load_model(name: str | PathLike[str], *, trust_remote_code: bool = False, **options: Any) -> Any:
    """Load a model from a folder, or by its name."""
    source = str(name)
    try:
        config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ValueError(_not_loaded(source, error)) from error
    check_writes(config, source)
    auto = (
        transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    )
    try:
        with without_bars():
            return auto.from_pretrained(source, trust_remote_code=trust_remote_code, **options)
    except (OSError, ValueError) as error:
        raise ValueError(_not_loaded(source, error)) from error


def from_config(config: Mapping[str, Any], **options: Any) -> Any:
    """Make a network of a configuration, whose weights are still random."""
    settings = dict(config)
    generation = settings.pop("generation")
    made = transformers.AutoConfig.for_model(**settings)
    auto = (
        transformers.AutoModelForSeq2SeqLM if made.is_encoder_decoder else transformers.AutoModelForCausalLM
    )
    model = auto.from_config(made, **options)
    model.generation_config = transformers.GenerationConfig.from_dict(generation)
    return model


def _not_loaded(source: str, error: Exception) -> str:
    """Return the message for a model that cannot be loaded."""
    why = str(error).strip().splitlines()[0]
    if Path(source).is_dir():
        return f"the folder {source} holds no model that can be loaded: {why}"
    return (
        f"there is no folder {source!r}, and no model of this name could be fetched ({why}); give the "
        "path of a folder that `save_pretrained` has written, or log in to the hub if the model is gated"
    )


def checked_model(model: Any) -> Any:
    """Return a loaded model, if it writes texts in a type and with an attention that are supported."""
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    if not isinstance(inner, transformers.PreTrainedModel):
        raise TypeError(
            f"model must be the folder of a model, its name, or a PreTrainedModel, got {shown(model)}"
        )
    if inner.get_output_embeddings() is None or not inner.can_generate():
        raise ValueError(
            f"{type(inner).__name__} writes no texts: it has no decoder with a head over the words; take its "
            "class for generation, such as T5ForConditionalGeneration or GPT2LMHeadModel"
        )
    check_type(str(inner.dtype).removeprefix("torch."))
    used = inner.config._attn_implementation
    if used not in (*ATTENTION, SPED_UP):  # the last where it has been made a policy before
        raise ValueError(
            f"the model's attention is {used!r}, wanted one of {list(ATTENTION)}: load it with "
            'attn_implementation="sdpa"'
        )
    return model


def check_type(name: str) -> None:
    """Refuse half precision that overflows."""
    if name == "float16":
        raise ValueError(
            "dtype float16 is refused: T5 overflows in it, and gradients vanish without scaling of the loss; "
            'use dtype="bfloat16", which has the range of float32'
        )
    pick(DTYPES, name, "dtype")


def check_writes(config: Any, source: str) -> None:
    """Refuse a model without a decoder."""
    kinds = (transformers.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING, transformers.MODEL_FOR_CAUSAL_LM_MAPPING)
    known = any(type(config) in kind for kind in kinds) or getattr(config, "auto_map", None)
    masked = [name for name in config.architectures or () if name.endswith("ForMaskedLM")]
    if not known or masked:
        raise ValueError(
            f"the model in {source} ({config.model_type}) has no decoder, so it writes no texts; take an "
            "encoder–decoder (T5, BART, Marian, …) or a causal model (GPT-2, Llama, Qwen, …)"
        )


def check_ids(words: TokenSpec, model: Any) -> None:
    """Refuse a task whose ids are not those of the model."""
    rows, read = (len(t.weight) for t in (model.get_output_embeddings(), model.get_input_embeddings()))
    advice = "make the task with the tokenizer of the model, rlseq.make(id, tokenizer=PATH)"
    if words.written > rows or max(words.prefix) >= read:
        raise ValueError(f"the task writes {words.written:,} words, the model has {rows:,}; {advice}")
    if not words.tokenizer:
        return
    if words.written < FEWEST * rows:
        raise ValueError(
            f"the task has a tokenizer of {words.written:,} tokens, the model has {rows:,}: the tokenizer "
            f"is of another model; {advice}"
        )
    first = _decoder_start(model)
    if first is not None and first != words.prefix[0]:
        raise ValueError(
            f"the task's texts begin after the token {words.prefix[0]}, the model's decoder starts with "
            f"{first}: the tokenizer is of another model; {advice}"
        )


def _decoder_start(model: Any) -> int | None:
    """Return the token that an encoder–decoder's decoder reads first, where the configuration names it."""
    if not model.config.is_encoder_decoder or model.config.model_type == "mbart":  # which a language starts
        return None
    settings = (getattr(model, "generation_config", None), model.config)
    found = (getattr(each, "decoder_start_token_id", None) for each in settings)
    return next((id for id in found if id is not None), None)


def check_named(words: TokenSpec, name: Any) -> None:
    """Refuse what is no name, and a model from a folder for a task whose words its weights do not know."""
    if not isinstance(name, (str, PathLike)):
        raise TypeError(
            f"model must be the folder of a model, its name, or a PreTrainedModel, got {shown(name)}"
        )
    if not words.tokenizer:
        raise ValueError(
            f"the task has words of its own, which the weights of {name} do not know; make it with the "
            f"model's tokenizer: rlseq.make(id, tokenizer={str(name)!r})"
        )


def check_reads(words: TokenSpec, model: Any) -> None:
    """Refuse a task that shows something else than a text, or no source to an encoder."""
    if words.observed:
        raise ValueError(
            f"the task shows {', '.join(words.observed)}, which a language model does not read; use "
            'make_policy("captioner", env), or a task whose sources are texts'
        )
    if model.config.is_encoder_decoder and words.source is None:
        raise ValueError(
            f"{type(model).__name__} has an encoder, and the task has no source for it to read; use a causal "
            "model, such as GPT-2 or Llama, or a task of pairs"
        )


def check_positions(words: TokenSpec, model: Any) -> None:
    """Refuse texts that are longer than the model has positions, or than it looks back."""
    config = model.config
    written, read = words.length + len(words.prefix) - 1, words.source_length
    limit = getattr(config, "max_position_embeddings", None)
    if config.is_encoder_decoder:
        longest = {"source": read, "text": written} if hasattr(model.get_decoder(), "embed_positions") else {}
    else:
        longest = {"prompt and text together": read + written}
    for name, length in longest.items():
        if limit is not None and length > limit:
            raise ValueError(
                f"the {name} may have {length} tokens, the model has {limit} positions; make the task with a "
                "smaller max_len, or a smaller max_source_len"
            )
    window = getattr(config, "sliding_window", None)
    slides = "sliding_attention" in (getattr(config, "layer_types", None) or ())
    if window and slides and read + written > window:
        raise ValueError(
            f"the model looks back {window} tokens in some layers, prompt and text may have "
            f"{read + written}: sliding windows are not supported; make the task with a smaller max_len"
        )


def freeze(model: Any, parts: tuple[str, ...]) -> None:
    """Exclude parts of a model from training, and always its positions where they are sine waves."""
    for module in model.modules():
        if type(module).__name__.endswith("SinusoidalPositionalEmbedding"):
            module.requires_grad_(False)
    for part in parts:
        for parameter in _parameters(model, pick({name: name for name in FREEZABLE}, part, "part to freeze")):
            parameter.requires_grad_(False)


def _parameters(model: Any, part: str) -> Iterator[nn.Parameter]:
    """Yield the parameters of a part; embeddings that encoder, decoder and head share are "embeddings"."""
    if part == "encoder" and not model.config.is_encoder_decoder:
        raise ValueError('freeze="encoder" needs an encoder–decoder; this model is a causal one')
    tables = [m for m in model.modules() if isinstance(m, nn.Embedding)]
    shared = {id(p) for table in tables for p in table.parameters()}
    if part == "embeddings":
        yield from (p for p in model.parameters() if id(p) in shared)
        return
    within = {
        "encoder": lambda: model.get_encoder(),
        "decoder": lambda: model.get_decoder() if model.config.is_encoder_decoder else model.base_model,
        "head": lambda: model.get_output_embeddings(),
    }[part]()
    yield from (p for p in within.parameters() if part == "head" or id(p) not in shared)


# ── the comparison of a new policy with its model ────────────────────────────────────────────────────────


@torch.no_grad()
def verify(policy: Any) -> None:
    """Refuse a model whose own forward pass gives other logits than the policy's `features` and `step`.

    A family of models may scale its embeddings or its logits in ways that the policy does not know.
    """
    with eval_mode(policy):
        context, actions, wanted = _own_logits(policy)
        one_pass = policy.logits(policy.features(policy.words.before(actions), context).flatten(0, 1))
        state, token, steps = policy.start(context), torch.full_like(actions[:, 0], policy.words.bos), []
        for t in range(actions.shape[1]):
            logits, state = policy.step(token, state)
            token = actions[:, t]
            steps.append(logits)
    largest = max(1.0, float(wanted.abs().max()))
    for name, got in (("features", one_pass.view_as(wanted)), ("step", torch.stack(steps, 1))):
        gap = float((got - wanted).abs().max()) / largest
        if not gap <= TOLERANCE[policy.inner.dtype]:
            raise ValueError(
                f"{type(policy.inner).__name__} is not supported: the policy's `{name}` differs from the "
                f"model's own logits by {gap:.2g} of the largest, wanted ≤ {TOLERANCE[policy.inner.dtype]}"
            )


def _own_logits(policy: Any) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Return a small context, actions and the logits `[B, T, V]` that the model itself gives."""
    words, config = policy.words, policy.inner.config
    device = policy.inner.device
    actions = _drawn(words.written, config.pad_token_id, 2, min(CHECKED_STEPS, words.length)).to(device)
    context, read = {"index": torch.arange(2, device=device)}, words.before(actions)
    if words.source is not None:
        context["source"] = _drawn(
            min(words.source, len(policy.inner.get_input_embeddings().weight)), words.source_pad, 2, 3
        ).to(device)
        source, present = policy.source(context)
    if config.is_encoder_decoder:
        before = torch.tensor(words.prefix[:-1], dtype=torch.int64, device=device)
        whole = torch.cat([before.expand(2, -1), read], 1)
        logits = policy.model(input_ids=source, attention_mask=present, decoder_input_ids=whole).logits
    else:
        whole = read if words.source is None else torch.cat([source, read[:, 1:]], 1)
        logits = policy.model(input_ids=whole).logits
    return context, actions, logits[:, -actions.shape[1] :, : words.written]


def _drawn(ids: int, pad: int | None, *shape: int) -> Tensor:
    """Return random ids, none of which is the padding where there are others."""
    usable = torch.tensor([i for i in range(ids) if i != pad] or [0])
    return usable[torch.randint(len(usable), shape, generator=torch.Generator().manual_seed(0))]
