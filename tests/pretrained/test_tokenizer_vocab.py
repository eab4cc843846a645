"""Tokenizers of pretrained models as vocabularies: ids, prefixes, round trips, prompts."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from rlseq.vocab import TokenizerVocab, pair_from_json, pair_to_json
from rlseq.vocab.pretrained import TokenizerPair, tokenizer_pair
from rlseq.vocab.tokenizers import AnswerVocab, SourceVocab
from tests.pretrained.tiny import MADE, READS_FIRST, TEXTS, WRITES_BEHIND, tokenizers, transformers

pytestmark = pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
Folder = Callable[[str], Path]
SPOKEN = {
    "nllb": ("eng_Latn", "spa_Latn"),
    "m2m100": ("en", "es"),
    "mbart": ("en_XX", "ro_RO"),
    "mbart50": ("en_XX", "de_DE"),
}
PREFIXES = {  # as the models' own `generate` begins
    "t5": ["<pad>"],
    "bart": ["</s>"],
    "bart_forced": ["</s>", "<s>"],
    "pegasus": ["<pad>"],
    "marian": ["<pad>"],
    "bert": ["[CLS]"],
    "nllb": ["</s>", "spa_Latn"],
    "mbart": ["ro_RO"],
    "mbart50": ["</s>", "de_DE"],
    "m2m100": ["</s>", "__es__"],
}


@cache
def pair(folder: Folder, name: str, **options: Any) -> TokenizerPair:
    return tokenizer_pair(folder(name), languages=SPOKEN.get(name), **{"reads": True, **options})


@pytest.mark.parametrize("name", MADE)
def test_words_are_the_tokenizers_ids(folder: Folder, name: str) -> None:
    vocab, source = pair(folder, name)
    tokenizer = vocab.tokenizer
    assert len(vocab) >= len(tokenizer)
    assert len(set(vocab.words)) == len(vocab)
    for token, id in tokenizer.get_vocab().items():
        assert vocab.words[id] == token
    assert source is not None
    assert source.words == vocab.words
    assert source.pad == len(vocab)  # every token of the tokenizer may stand in a source


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("text", sorted(set(TEXTS)))
def test_targets_round_trip(folder: Folder, name: str, text: str) -> None:
    vocab, _ = pair(folder, name)
    ids = vocab.encode(text)
    assert vocab.eos is not None
    assert vocab.eos not in ids
    assert max(ids) < len(vocab)
    written = vocab.decode([*ids, vocab.eos, ids[0]])
    if name == "bert":  # small letters without accents, and "isn ' t": so its own tokenizer writes
        bare = unicodedata.normalize("NFD", text.lower())
        text = "".join(letter for letter in bare if unicodedata.category(letter) != "Mn")
        assert "".join(written.split()) == "".join(text.split())
    else:
        assert written == text
    assert vocab.encode(written) == ids
    assert vocab.encode_batch([text, "the dog"]) == [ids, vocab.encode("the dog")]


@pytest.mark.parametrize("name", READS_FIRST)
def test_a_decoder_reads_its_prefix_first(folder: Folder, name: str) -> None:
    vocab, _ = pair(folder, name)
    assert [vocab.words[id] for id in vocab.prefix] == PREFIXES[name]
    assert vocab.bos == vocab.prefix[-1]
    assert type(vocab) is TokenizerVocab


@pytest.mark.parametrize("name", READS_FIRST)
def test_targets_are_those_that_the_model_is_trained_on(folder: Folder, name: str) -> None:
    """The prefix, the actions and EOS are those that `shift_tokens_right` makes of labels."""
    vocab, _ = pair(folder, name)
    labels = vocab.tokenizer(text_target="the small dog")["input_ids"]
    assert vocab.eos is not None
    ids = [*vocab.encode("the small dog"), vocab.eos]
    if name == "mbart":  # its labels end in the language, which `shift_tokens_right` puts first
        assert [*ids, vocab.prefix[0]] == labels
    else:
        assert [*vocab.prefix[1:], *ids] == (labels[1:] if name == "bert" else labels)
    if name == "bart":
        assert vocab.words[ids[0]] == "<s>"  # nothing forces it, so that the model itself writes it


@pytest.mark.parametrize("name", WRITES_BEHIND)
def test_a_causal_model_reads_its_prompt_and_writes_behind_it(folder: Folder, name: str) -> None:
    vocab, source = pair(folder, name)
    assert isinstance(vocab, AnswerVocab)
    assert vocab.prefix == ()
    assert isinstance(source, SourceVocab)
    assert vocab.eos not in source.encode("the small dog")[-1:]
    alone, nothing = pair(folder, name, reads=False)
    assert nothing is None
    assert alone.prefix == (alone.bos,)


@pytest.mark.parametrize("name", WRITES_BEHIND)
@pytest.mark.parametrize(
    "prompt", ["en: {source} es:", "en: {source} es: ", "{source}\n", "{source}", "{source} = "]
)
def test_an_answer_is_what_follows_the_prompt(folder: Folder, name: str, prompt: str) -> None:
    """Prompt and answer are together what the tokenizer makes of both as one text, where that is possible."""
    vocab, source = pair(folder, name, prompt=prompt)
    assert source is not None
    answer = vocab.encode("the small dog")
    together = source.encode("a red car") + answer
    whole = vocab.tokenizer(prompt.replace("{source}", "a red car") + "the small dog")["input_ids"]
    if prompt != "{source}":  # where source and answer would melt into one word
        assert together == whole
    assert vocab.decode(answer) == "the small dog"


@pytest.mark.parametrize("name", MADE)
def test_sources_are_shown_without_their_prompt(folder: Folder, name: str) -> None:
    _, source = pair(folder, name, prompt="never the {source} today .")
    assert source is not None
    for text in ("the small dog sees the boat", "green trees"):
        ids = source.encode(text)
        assert source.decode_batch([ids], [len(ids)]) == [text]


@pytest.mark.parametrize("name", READS_FIRST)
def test_sources_are_encoded_as_the_tokenizer_does(folder: Folder, name: str) -> None:
    _, source = pair(folder, name, prompt="never: {source}")
    assert source is not None
    assert source.encode("the small dog") == source.tokenizer("never: the small dog")["input_ids"]


@pytest.mark.parametrize("name", MADE)
def test_what_is_cut_keeps_its_end(folder: Folder, name: str) -> None:
    _, source = pair(folder, name, prompt="{source} today .")
    assert source is not None
    ids = source.encode("the small dog sees the boat of the old teacher")
    tail = len(source.encode("x y z")) - 3
    cut = source.cut(ids, len(ids) - 4)
    assert len(cut) == len(ids) - 4
    assert cut[-source.kept :] == ids[-source.kept :]
    assert cut[: -source.kept] == ids[: len(ids) - 4 - source.kept]
    assert source.kept <= max(tail, source.least)


def test_a_chat_template_is_a_prompt(folder: Folder) -> None:
    vocab, source = pair(folder, "qwen", prompt="chat")
    assert source is not None
    tokenizer = vocab.tokenizer
    message = [{"role": "user", "content": "the small dog"}]
    whole = tokenizer.apply_chat_template(
        message, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    ids = source.encode("the small dog")
    assert ids == whole
    assert source.decode_batch([ids], [len(ids)]) == ["the small dog"]
    answer = "el perro\nve"
    text = tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False) + answer
    assert ids + vocab.encode(answer) == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert vocab.generation == {"other_eos": [0]}  # which would end a text, too


@pytest.mark.parametrize("name", MADE)
def test_they_are_kept_whole_and_once(folder: Folder, name: str) -> None:
    found = pair(folder, name)
    text = json.dumps(pair_to_json(*found))
    again = pair_from_json(json.loads(text))
    assert again == (found.vocab, found.source_vocab)
    assert isinstance(again[0], TokenizerVocab)
    assert isinstance(again[1], TokenizerVocab)
    assert again[1].files is again[0].files
    assert again[0].encode("the small dog") == found.vocab.encode("the small dog")
    names = [*found.vocab.files.contents]
    assert all(text.count(json.dumps(name) + ":") == 1 for name in names)


def test_an_object_is_as_good_as_its_path(folder: Folder) -> None:
    place = folder("t5")
    loaded = transformers.AutoTokenizer.from_pretrained(place)
    assert tokenizer_pair(loaded, reads=True) == tokenizer_pair(place, reads=True)


def test_ids_without_a_token_have_names(folder: Folder) -> None:
    from rlseq.vocab.pretrained import _words

    class Holes:
        def get_vocab(self) -> dict[str, int]:
            return {"a": 0, "b": 2, "<unused1>": 4}

        def __len__(self) -> int:
            return 3

    assert _words(Holes()) == ("a", "<unused1>_", "b", "<unused3>", "<unused1>")


# ── bad input ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("t5", {"prompt": "summarize:"}, "prompt must be a text with {source} in it once"),
        ("t5", {"prompt": "chat"}, "has no chat template; set tokenizer.chat_template"),
        ("t5", {"languages": ("en", "de")}, "has no languages"),
        ("nllb", {"languages": None}, "give languages=(source, target)"),
        ("nllb", {"languages": ("eng_Latn", "spa_Lat")}, "did you mean 'spa_Latn'"),
        ("m2m100", {"languages": ("en", "xx")}, "unknown language 'xx'"),
        ("t5", {"prompt": "{source}", "reads": False}, "which this task does not have"),
    ],
)
def test_options_that_cannot_be(folder: Folder, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)").replace("{", r"\{")):
        tokenizer_pair(folder(name), **{"reads": True, **options})


def test_a_tokenizer_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for name in (str(tmp_path), str(tmp_path / "absent"), "no-such-owner/no-such-name"):
        with pytest.raises(ValueError, match="give the path of a folder with its files"):
            tokenizer_pair(name, reads=True)
    with pytest.raises(TypeError, match="PreTrainedTokenizerFast"):
        tokenizer_pair(object(), reads=True)


def test_two_vocabularies_of_one_tokenizer_are_refused(folder: Folder, tmp_path: Path) -> None:
    """Of some Marian models, whose encoder and decoder share no embeddings."""
    place = folder("marian")
    pieces, words = str(place / "source.model"), str(place / "all.json")
    own = {"source_spm": pieces, "target_spm": pieces, "vocab": words, "target_vocab_file": words}
    tokenizer = transformers.MarianTokenizer(**own, separate_vocabs=True)
    with pytest.raises(ValueError, match="one vocabulary for sources and another for what is written"):
        tokenizer_pair(tokenizer, reads=True)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="one vocabulary for sources and another for what is written"):
        tokenizer_pair(tmp_path, reads=True)


def test_a_token_that_ends_is_needed() -> None:
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"the": 0, "dog": 1}, unk_token="the"))
    bare = transformers.PreTrainedTokenizerFast(tokenizer_object=words)
    with pytest.raises(ValueError, match=r"has no token that ends a text: set tokenizer\.eos_token"):
        tokenizer_pair(bare, reads=True)
    with pytest.raises(TypeError, match="wrap one of the library tokenizers"):
        tokenizer_pair(words, reads=True)


def test_a_decoder_needs_a_token_to_start_from(tmp_path: Path) -> None:
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"the": 0, "dog": 1}, unk_token="the"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="dog").save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5", "pad_token_id": None}))
    with pytest.raises(ValueError, match=r"set decoder_start_token_id .* or tokenizer.pad_token"):
        tokenizer_pair(tmp_path, reads=True)
