"""From the tokenizer of a pretrained model, and the settings of that model, to the vocabularies of a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from rlseq.utils.arguments import shown
from rlseq.utils.errors import hint, in_one_line, need
from rlseq.vocab.tokenizers import (
    CHAT,
    PROBE,
    SLOT,
    AnswerVocab,
    SourceVocab,
    TokenizerFiles,
    TokenizerVocab,
    chat_text,
    target_ids,
)

PAD_STARTS = ("t5", "mt5", "umt5", "longt5", "pegasus", "marian")  # models whose decoder reads PAD first
EOS_STARTS = ("bart", "mbart", "m2m_100")  # models whose decoder reads EOS first
GENERATION_RULES = (  # of a model's generation settings, those that are rules of writing
    *("bad_words_ids", "suppress_tokens", "begin_suppress_tokens"),
    *("min_length", "min_new_tokens", "no_repeat_ngram_size", "forced_eos_token_id"),
)
MODEL_IDS = ("decoder_start", "forced_bos", "bos", "eos", "pad")
KIND_OF_TOKENIZER = {  # encoder–decoders, where a tokenizer comes without the configuration of its model
    "T5Tokenizer": "t5",
    "PegasusTokenizer": "pegasus",
    "MarianTokenizer": "marian",
    "BartTokenizer": "bart",
    "RobertaTokenizer": "bart",
    "MBartTokenizer": "mbart",
    "MBart50Tokenizer": "mbart",
    "M2M100Tokenizer": "m2m_100",
    "NllbTokenizer": "m2m_100",
}


class TokenizerPair(NamedTuple):
    """The vocabularies of a task on texts: words that are written, and words that are read."""

    vocab: TokenizerVocab
    source_vocab: SourceVocab | None


@dataclass(frozen=True)
class ModelSettings:
    """The special ids and sizes of the model that a tokenizer belongs to.

    They come from its `generation_config.json`, then from its `config.json`; without these they are empty.
    """

    kind: str = ""
    encoder_decoder: bool = False
    positions: int | None = None
    ids: Mapping[str, Any] = field(default_factory=dict)
    generation: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def at(cls, path: str, local: bool) -> ModelSettings:
        """Read the configuration of the model at a path, or of that name; `local` asks no hub for it."""
        library, found = need("transformers", "hf"), need("transformers.utils", "hf").cached_file
        there = {"local_files_only": local, "_raise_exceptions_for_missing_entries": False}
        if (
            not path
            or found(path, "config.json", _raise_exceptions_for_connection_errors=False, **there) is None
        ):
            return cls()
        config = library.AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=local)
        try:
            written = library.GenerationConfig.from_pretrained(path, local_files_only=local)
        except OSError:  # a model without settings of its own for generation
            written = library.GenerationConfig.from_model_config(config)
        ids = {name: _setting(f"{name}_token_id", written, config) for name in MODEL_IDS}
        rules = {name: getattr(written, name, None) for name in GENERATION_RULES}
        relative = getattr(config, "relative_attention_num_buckets", None)
        return cls(
            kind=config.model_type,
            encoder_decoder=bool(config.is_encoder_decoder),
            positions=None if relative else getattr(config, "max_position_embeddings", None),
            ids={name: id for name, id in ids.items() if id is not None},
            generation={name: rule for name, rule in rules.items() if rule},
        )


def tokenizer_pair(
    tokenizer: Any, prompt: str | None = None, languages: Sequence[str] | None = None, *, reads: bool
) -> TokenizerPair:
    """Return the vocabularies of a task from a tokenizer.

    Args:
        tokenizer: the folder or the name of a model or of its tokenizer, or a tokenizer of transformers.
        prompt: a template with `{source}`, or "chat" for the tokenizer's own; else the source alone.
        languages: of sources and of what is written, as the tokenizer names them.
        reads: whether the task has sources.
    """
    given, model = _opened(tokenizer)
    if getattr(given, "separate_vocabs", False):
        raise ValueError(
            f"this {type(given).__name__} has one vocabulary for sources and another for what is written, "
            "which is not supported; take a model with one for both (share_encoder_decoder_embeddings)"
        )
    language = _target_language(given, languages)
    files = TokenizerFiles.of(given)
    read = files.tokenizer  # as it is after it was stored
    prompt = _checked_prompt(read, prompt, reads)
    eos = _eos(read, model)
    begins = _begin(read, model, eos)
    prefix = _prefix(read, model, eos, language)
    causal = prefix is None
    pad = _given(model.ids.get("pad"), read.pad_token_id, eos)
    ends = _listed(model.ids.get("eos"))
    rules = {**model.generation, "other_eos": [id for id in ends if id != eos]}
    words = _words(read)
    shared: dict[str, Any] = {
        "words": words,
        "eos": eos,
        "separator": "",
        "unk": None if read.unk_token_id == eos else read.unk_token_id,
        "files": files,
        "positions": model.positions,
        "generation": {name: rule for name, rule in rules.items() if rule},
    }
    source_prompt, vocab = prompt, None
    if prefix is not None:
        vocab = TokenizerVocab(bos=prefix[-1], pad=pad, prefix=prefix, **shared)
    else:
        source_prompt, before, lead = _end_of_prompt(read, prompt) if reads else (prompt, "", "")
        own = () if reads else (begins,)
        vocab = AnswerVocab(bos=begins, pad=pad, prefix=own, before=before, lead=lead, **shared)
    if not reads:
        return TokenizerPair(vocab, None)
    source = SourceVocab(bos=vocab.bos, pad=len(words), prompt=source_prompt, causal=causal, **shared)
    return TokenizerPair(vocab, source)


def _opened(tokenizer: Any) -> tuple[Any, ModelSettings]:
    """Return a tokenizer as an object, and the settings of its model."""
    library = need("transformers", "hf")
    if not isinstance(tokenizer, (str, PathLike)):
        if not callable(tokenizer) or not hasattr(tokenizer, "save_pretrained"):
            raise TypeError(
                "tokenizer must be the path or the name of a pretrained tokenizer, or a tokenizer of "
                f"transformers with save_pretrained, got {shown(tokenizer)}; wrap one of the library "
                "tokenizers: transformers.PreTrainedTokenizerFast(tokenizer_object=…, eos_token=…)"
            )
        return tokenizer, ModelSettings.at(str(getattr(tokenizer, "name_or_path", "")), local=True)
    name = str(tokenizer)
    place = Path(name).expanduser()
    name = str(place) if place.exists() else name
    try:
        found = library.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        return found, ModelSettings.at(name, local=place.exists())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise ValueError(
            f"no tokenizer can be read from {name!r} ({in_one_line(error)}); give the path of a folder with "
            "its files, as save_pretrained writes them: of a model and its tokenizer, or of a tokenizer alone"
        ) from None


def _target_language(tokenizer: Any, languages: Sequence[str] | None) -> int | None:
    """Set the languages of a tokenizer that has several; return the token of the one that is written."""
    if not hasattr(tokenizer, "src_lang"):
        if languages is not None:
            raise ValueError(
                f"this {type(tokenizer).__name__} has no languages, got languages={shown(languages)}; leave "
                "them out, or name them in the prompt"
            )
        return None
    languages = (tokenizer.src_lang, tokenizer.tgt_lang) if languages is None else languages
    if isinstance(languages, str) or len(languages) != 2 or not all(isinstance(x, str) for x in languages):
        raise ValueError(
            "this tokenizer reads and writes several languages: give languages=(source, target), such as "
            f"{tuple(_languages(tokenizer)[:2])}, got {shown(tuple(languages))}"
        )
    for language in languages:
        if language not in _languages(tokenizer):
            raise ValueError(f"unknown language {language!r}{hint(language, _languages(tokenizer))}")
    tokenizer.src_lang, tokenizer.tgt_lang = languages
    return _language_id(tokenizer, languages[1])


def _languages(tokenizer: Any) -> list[str]:
    """The names of a tokenizer's languages."""
    codes = getattr(tokenizer, "lang_code_to_token", None) or getattr(tokenizer, "lang_code_to_id", None)
    if codes:
        return [*codes]
    usual = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token, tokenizer.pad_token)
    others = (tokenizer.mask_token, tokenizer.cls_token, tokenizer.sep_token)
    return [token for token in tokenizer.all_special_tokens if token not in (*usual, *others)]


def _language_id(tokenizer: Any, language: str) -> int:
    """The id of a language's token."""
    token = getattr(tokenizer, "lang_code_to_token", {}).get(language, language)
    id: int = tokenizer.convert_tokens_to_ids(token)
    return id


def _checked_prompt(tokenizer: Any, prompt: str | None, reads: bool) -> str:
    """Return a prompt that can be used: the source alone when none is given."""
    if prompt is None:
        return SLOT
    if not reads:
        raise ValueError(
            f"a prompt is written around a source, which this task does not have, got {prompt!r}"
        )
    if prompt == CHAT:
        if getattr(tokenizer, "chat_template", None) is None:
            raise ValueError(
                f"this {type(tokenizer).__name__} has no chat template; set tokenizer.chat_template, or give "
                f"a prompt with {SLOT}"
            )
    elif not isinstance(prompt, str) or prompt.count(SLOT) != 1:
        raise ValueError(
            f"prompt must be a text with {SLOT} in it once, such as 'summarize: {SLOT}', or {CHAT!r}, "
            f"got {shown(prompt)}"
        )
    return prompt


def _end_of_prompt(tokenizer: Any, prompt: str) -> tuple[str, str, str]:
    """Return a prompt without the blanks that it ends in, what it has behind the source, and these blanks."""
    if prompt == CHAT:
        return prompt, chat_text(tokenizer, SLOT).rpartition(SLOT)[2], ""
    bare = prompt.rstrip(" ")
    return bare, bare.partition(SLOT)[2], prompt[len(bare) :]


def _eos(tokenizer: Any, model: ModelSettings) -> int:
    """The id with which a text ends: the tokenizer's, unless the model ends with others only."""
    ends = _listed(model.ids.get("eos"))
    own = _given(tokenizer.eos_token_id, tokenizer.sep_token_id)
    if own is None and not ends:
        raise ValueError(
            f"this {type(tokenizer).__name__} has no token that ends a text: set tokenizer.eos_token, or "
            "eos_token_id in the model's generation_config.json"
        )
    id: int = own if own is not None and (own in ends or not ends) else ends[0]
    return id


def _begin(tokenizer: Any, model: ModelSettings, eos: int) -> int:
    """The id with which a causal model begins a text."""
    id: int = _given(tokenizer.bos_token_id, model.ids.get("bos"), tokenizer.cls_token_id, eos)
    return id


def _prefix(tokenizer: Any, model: ModelSettings, eos: int, language: int | None) -> tuple[int, ...] | None:
    """The tokens that a decoder reads before the first that it writes; None of a causal model."""
    kind = model.kind or KIND_OF_TOKENIZER.get(type(tokenizer).__name__, "")
    if not (model.encoder_decoder if model.kind else kind):
        return None
    start, forced = model.ids.get("decoder_start"), model.ids.get("forced_bos")
    if language is not None:  # mBART reads it as its start, others write it as their first token
        target = target_ids(tokenizer, [PROBE])[0]
        start, forced = (language, None) if target[-1] == language else (start, language)
    if start is None:
        pad = _given(model.ids.get("pad"), tokenizer.pad_token_id)
        start = (
            pad
            if kind in PAD_STARTS
            else eos
            if kind in EOS_STARTS
            else _given(model.ids.get("bos"), tokenizer.bos_token_id)
        )
    if start is None:
        raise ValueError(
            f"a decoder of {kind} has no token that it starts from: set decoder_start_token_id in the "
            "model's generation_config.json or config.json"
            + ", or tokenizer.pad_token"
            * (kind in PAD_STARTS)
        )
    return (start,) if forced is None else (start, forced)


def _words(tokenizer: Any) -> tuple[str, ...]:
    """The names of all ids, one of its own for every id without a token."""
    languages = getattr(tokenizer, "lang_token_to_id", {})  # which M2M100 has beside its vocabulary
    names = {id: token for token, id in {**tokenizer.get_vocab(), **languages}.items()}
    known = set(names.values())
    size = max(len(tokenizer), max(names) + 1)
    return tuple(names[id] if id in names else _unused(id, known) for id in range(size))


def _unused(id: int, known: set[str]) -> str:
    name = f"<unused{id}>"
    while name in known:  # some tokenizers have tokens of such names for other ids
        name += "_"
    return name


def _setting(name: str, *configs: Any) -> Any:
    """Return the first setting of that name that there is."""
    return _given(*(getattr(config, name, None) for config in configs))


def _given(*values: Any) -> Any:
    """Return the first value that is given."""
    return next((value for value in values if value is not None), None)


def _listed(ids: Any) -> list[int]:
    """Return one id or several as a list."""
    return [] if ids is None else [*ids] if isinstance(ids, (list, tuple)) else [ids]
