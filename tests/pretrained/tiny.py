"""Tokenizers of every family, trained on a few sentences, and saved with the settings of a model."""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

transformers: Any = pytest.importorskip("transformers")
tokenizers: Any = pytest.importorskip("tokenizers")
sentencepiece: Any = pytest.importorskip("sentencepiece")

TEXTS = [
    "the small dog sees the house today .",
    "a red car, isn't it?",
    "el perro pequeño ve la casa hoy",
    "now the old teacher wants the boat!",
    "never the green girl finds 123,456.7 trees",
    "Bäume über Straße – ok",
] * 10
LEARNED = [*TEXTS, string.ascii_letters, " ".join(string.ascii_letters), string.digits, "- : ; = < > ( ) é è"]
SIZES: dict[str, Any] = {"d_model": 16, "max_position_embeddings": 64, "vocab_size": 400}
LANGUAGES = ["eng_Latn", "spa_Latn", "deu_Latn"]


def unigram(first: Sequence[str], size: int = 200) -> list[tuple[str, float]]:
    """Pieces of a unigram model, after special ones."""
    made = tokenizers.Tokenizer(tokenizers.models.Unigram())
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=size, special_tokens=[*first], unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator(LEARNED, trainer)
    return [(piece, score) for piece, score in json.loads(made.to_str())["model"]["vocab"]]


def merges(first: Sequence[str], byte_level: bool) -> tuple[dict[str, int], list[tuple[str, ...]]]:
    """Pieces and merges of byte-pair encoding, of bytes or of characters."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token=None if byte_level else "<unk>"))
    kinds = tokenizers.pre_tokenizers
    made.pre_tokenizer = kinds.ByteLevel(add_prefix_space=False) if byte_level else kinds.Metaspace()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400 + len(first),
        special_tokens=[*first],
        initial_alphabet=kinds.ByteLevel.alphabet() if byte_level else [],
        show_progress=False,
    )
    made.train_from_iterator(LEARNED, trainer)
    model = json.loads(made.to_str())["model"]
    pairs = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in model["merges"]]
    return model["vocab"], pairs


def pieces(folder: Path, name: str) -> Path:
    """A model of the sentencepiece package."""
    (folder / "texts.txt").write_text("\n".join(LEARNED), "utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "texts.txt"),
        model_prefix=str(folder / name),
        vocab_size=120,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return folder / f"{name}.model"


def t5(folder: Path) -> Any:
    transformers.T5Config(d_model=16, decoder_start_token_id=0, vocab_size=400).save_pretrained(folder)
    return transformers.T5TokenizerFast(vocab=unigram(["<pad>", "</s>", "<unk>"]), extra_ids=5)


def bart(folder: Path) -> Any:
    transformers.BartConfig(**SIZES).save_pretrained(folder)
    vocab, pairs = merges(["<s>", "<pad>", "</s>", "<unk>", "<mask>"], byte_level=True)
    return transformers.BartTokenizerFast(vocab=vocab, merges=pairs)


def bart_forced(folder: Path) -> Any:
    """As BART's large models, whose first token is forced to be BOS."""
    made = bart(folder)
    settings = transformers.GenerationConfig.from_model_config(transformers.BartConfig(**SIZES))
    settings.forced_bos_token_id = 0
    settings.save_pretrained(folder)
    return made


def pegasus(folder: Path) -> Any:
    transformers.PegasusConfig(**SIZES).save_pretrained(folder)
    vocab = unigram(["<pad>", "</s>", "<mask_1>", "<mask_2>", "<unk>"])
    return transformers.PegasusTokenizerFast(vocab=vocab, offset=5)


def marian(folder: Path) -> Any:
    folder.mkdir(exist_ok=True)
    source = pieces(folder, "source")
    words = sentencepiece.SentencePieceProcessor(model_file=str(source))
    names = ["</s>", "<unk>", *(words.id_to_piece(i) for i in range(3, words.get_piece_size())), "<pad>"]
    (folder / "all.json").write_text(json.dumps({name: id for id, name in enumerate(names)}))
    pad = len(names) - 1
    config = transformers.MarianConfig(
        **SIZES, pad_token_id=pad, eos_token_id=0, decoder_start_token_id=pad, bos_token_id=None
    )
    config.save_pretrained(folder)
    (folder / "generation_config.json").write_text(
        json.dumps({"bad_words_ids": [[pad]], "eos_token_id": 0, "decoder_start_token_id": pad})
    )
    return transformers.MarianTokenizer(str(source), str(source), str(folder / "all.json"))


def nllb(folder: Path) -> Any:
    transformers.M2M100Config(**SIZES).save_pretrained(folder)
    vocab, pairs = merges(["<s>", "<pad>", "</s>", "<unk>"], byte_level=False)
    return transformers.NllbTokenizerFast(
        vocab=vocab, merges=pairs, additional_special_tokens=[*LANGUAGES, "<mask>"]
    )


def mbart(folder: Path) -> Any:
    transformers.MBartConfig(**SIZES).save_pretrained(folder)
    vocab = unigram(["<s>", "<pad>", "</s>", "<unk>"])
    return transformers.MBartTokenizer(vocab=vocab, src_lang="en_XX", tgt_lang="ro_RO")


def mbart50(folder: Path) -> Any:
    transformers.MBartConfig(**SIZES).save_pretrained(folder)
    vocab = unigram(["<s>", "<pad>", "</s>", "<unk>"])
    return transformers.MBart50Tokenizer(vocab=vocab, src_lang="en_XX", tgt_lang="de_DE")


def m2m100(folder: Path) -> Any:
    folder.mkdir(exist_ok=True)
    spm = pieces(folder, "spm")
    words = sentencepiece.SentencePieceProcessor(model_file=str(spm))
    first = ["<s>", "<pad>", "</s>", "<unk>"]
    names = first + [words.id_to_piece(i) for i in range(3, words.get_piece_size())]
    (folder / "all.json").write_text(json.dumps({name: id for id, name in enumerate(names)}))
    transformers.M2M100Config(**SIZES).save_pretrained(folder)
    return transformers.M2M100Tokenizer(str(folder / "all.json"), str(spm), src_lang="en", tgt_lang="de")


def bert(folder: Path) -> Any:
    """Word pieces; of a decoder that is warm-started from BERT, with an encoder."""
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    first = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = tokenizers.trainers.WordPieceTrainer(vocab_size=200, special_tokens=first, show_progress=False)
    made.train_from_iterator([text.lower() for text in LEARNED], trainer)
    small = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=400
    )
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(small, small)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 2, 0, 3
    config.save_pretrained(folder)
    return transformers.BertTokenizerFast(vocab=json.loads(made.to_str())["model"]["vocab"])


def gpt2(folder: Path) -> Any:
    transformers.GPT2Config(
        n_embd=16, n_positions=64, vocab_size=400, bos_token_id=0, eos_token_id=0
    ).save_pretrained(folder)
    vocab, pairs = merges(["<|endoftext|>"], byte_level=True)
    return transformers.GPT2TokenizerFast(vocab=vocab, merges=pairs)


def llama(folder: Path) -> Any:
    config = transformers.LlamaConfig(hidden_size=64, max_position_embeddings=64, vocab_size=700)
    config.save_pretrained(folder)
    vocab, pairs = merges(["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256))], byte_level=False)
    return transformers.LlamaTokenizerFast(vocab=vocab, merges=pairs)


CHAT = (
    "<|im_start|>system\nYou help.<|im_end|>\n{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def qwen(folder: Path) -> Any:
    config = transformers.Qwen2Config(
        hidden_size=64, max_position_embeddings=128, vocab_size=400, eos_token_id=2
    )
    config.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 0], "pad_token_id": 0}))
    vocab, pairs = merges(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], byte_level=True)
    return transformers.Qwen2TokenizerFast(
        vocab=vocab,
        merges=pairs,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHAT,
    )


Makers = dict[str, Callable[[Path], Any]]
WRITES_BEHIND: Makers = {"gpt2": gpt2, "llama": llama, "qwen": qwen}  # causal models
READS_FIRST: Makers = {  # models with an encoder
    "t5": t5,
    "bart": bart,
    "bart_forced": bart_forced,
    "pegasus": pegasus,
    "marian": marian,
    "bert": bert,
    "nllb": nllb,
    "mbart": mbart,
    "mbart50": mbart50,
    "m2m100": m2m100,
}
MADE: Makers = {**READS_FIRST, **WRITES_BEHIND}


def saved(name: str, folder: Path) -> Path:
    """A folder as a user has it: the settings of a model, and its tokenizer."""
    MADE[name](folder).save_pretrained(folder)
    return folder


# ── weights ──────────────────────────────────────────────────────────────────────────────────────────

SMALL: dict[str, Any] = {
    "d_kv": 8,
    "d_ff": 32,
    "num_layers": 1,
    "num_decoder_layers": 1,
    "num_heads": 2,
    "n_layer": 1,
    "n_head": 2,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
}


def auto_class(config: Any) -> Any:
    """The class that loads a model of a configuration."""
    library = transformers
    return library.AutoModelForSeq2SeqLM if config.is_encoder_decoder else library.AutoModelForCausalLM


def with_weights(settings: Path, folder: Path) -> Path:
    """A folder with random weights, and the tokenizer and the settings of another folder."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(settings)
    config = transformers.AutoConfig.from_pretrained(settings)
    ids = {**tokenizer.get_vocab(), **getattr(tokenizer, "lang_token_to_id", {})}.values()
    for key, value in {**SMALL, "vocab_size": max(ids) + 1}.items():
        if hasattr(config, key):
            setattr(config, key, value)
    torch.manual_seed(0)
    model = auto_class(config).from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    if (settings / "generation_config.json").exists():
        model.generation_config = transformers.GenerationConfig.from_pretrained(settings)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
