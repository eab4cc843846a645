"""Every task on texts with the tokenizer of a pretrained model: data, metrics, runs, commands."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import rlseq
from rlseq.cli import main
from rlseq.data import cache
from rlseq.data.inspection import inspect
from rlseq.vocab import TokenizerVocab
from rlseq.vocab.tokenizers import SourceVocab
from tests.pretrained.tiny import TEXTS, saved, transformers

Folder = Callable[[str], Path]
NAMES = ["t5", "gpt2"]


def made(id: str, **options: Any) -> Any:
    """A task, of a type that has a corpus."""
    return rlseq.make(id, **options)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "pairs.tsv"
    nouns = ["dog", "house", "boat", "car", "teacher"]
    lines = [
        f"the {a} {b} sees the {c}\tel {c}  ve, {b} {a}."
        for a in nouns
        for b in nouns
        for c in nouns
        if a != b
    ]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("".join(f"{text} {n}\n" for n in range(12) for text in sorted(set(TEXTS))), "utf-8")
    return path


@pytest.fixture(params=NAMES)
def tokenizer(folder: Folder, request: pytest.FixtureRequest) -> Path:
    return folder(request.param)


def a_few_updates(env: Any) -> Any:
    policy = rlseq.make_policy("lstm", env, hidden=8, embedding=8)
    rlseq.train(rlseq.make_agent("mle", policy), env, updates=1)
    rlseq.train(rlseq.make_agent("reinforce", policy), env, updates=1, alarms="ignore")
    return policy


def read_back(env: Any) -> None:
    """Contexts are the ids of sources and references, with the texts that were read kept beside them."""
    env.begin()
    references, lengths = env.context["references"][:, 0], env.context["reference_lengths"][:, 0]
    index = env.context["index"]
    for row, length, kept in zip(references.tolist(), lengths.tolist(), env.corpus.texts(index), strict=True):
        decoded = env.vocab.decode(row[:length])
        assert "".join(decoded.split()) in ["".join(text.split()) for text in kept]
        assert row[length - 1] == env.vocab.eos


def test_pairs_of_texts(pairs: Path, tokenizer: Path) -> None:
    env = made("rlseq/Parallel-v0", num_envs=16, path=pairs, tokenizer=tokenizer)
    read_back(env)
    assert isinstance(env.vocab, TokenizerVocab)
    assert isinstance(env.source_vocab, SourceVocab)
    assert env.vocab.tokenizer is env.source_vocab.tokenizer
    assert env.context["source"].max() <= env.source_vocab.pad
    assert env.sources()[0].startswith("the ")
    assert "bleu" in env.parts
    test = made("rlseq/Parallel-v0", num_envs=16, path=pairs, tokenizer=tokenizer, split="test")
    scores = rlseq.evaluate(a_few_updates(env), test)
    assert {"bleu", "chrf", "rouge_l", "edit_distance", "exact"} <= scores.keys()


def test_texts(texts: Path, tokenizer: Path) -> None:
    env = made("rlseq/Text-v0", num_envs=8, path=texts, tokenizer=tokenizer)
    assert env.source_vocab is None
    assert env.vocab.prefix == (0,)
    scores = rlseq.evaluate(a_few_updates(env), env)
    assert scores["bleu_2"] >= 0
    told = torch.tensor([[*env.vocab.encode("the small dog sees"), env.vocab.eos]])
    assert env.parts["bleu_3"](told, torch.ones_like(told, dtype=torch.bool), {})[0] > 0
    (copy,), *_ = env.corpus.texts()
    told = torch.tensor([[*env.vocab.encode(copy), env.vocab.eos]])
    assert env.metrics["copied"](told, torch.ones_like(told, dtype=torch.bool), {})[0] == 1


def test_pronunciations(tmp_path: Path, tokenizer: Path) -> None:
    file, words = tmp_path / "words.dict", [a + b for a in "bcdfghk" for b in ("at", "og", "ree", "ea")]
    file.write_text("".join(f"{word} {' '.join(word.upper())}\n" for word in words))
    env = made("rlseq/G2P-v0", num_envs=8, path=file, tokenizer=tokenizer)
    read_back(env)
    rlseq.evaluate(a_few_updates(env), env)


def test_numbers(tokenizer: Path) -> None:
    env = made("rlseq/Numbers-v0", num_envs=8, below=200, tokenizer=tokenizer, reward="chrf")
    read_back(env)
    for split in ("train", "dev", "test"):
        other = made("rlseq/Numbers-v0", below=200, tokenizer=tokenizer, split=split)
        assert (other.max_len, other.corpus.source_width) == (env.max_len, env.corpus.source_width)
    rlseq.evaluate(a_few_updates(env), env, limit=20)
    several = made("rlseq/Numbers-v0", num_envs=4, below=10**6, tokenizer=tokenizer, target="all")
    several.begin(index=torch.tensor([0, 1, 2, 12345]))
    assert several.sources()[0].startswith("<cs>")


def test_errors_counted_in_words_of_texts_of_one_word_are_warned_of(folder: Folder, tmp_path: Path) -> None:
    path = tmp_path / "words.tsv"
    path.write_text("".join(f"dg{n}\tdog{n}\n" for n in range(60)), "utf-8")
    with pytest.warns(
        UserWarning, match=r"'edit' counts words.* (\d+) of \1 references .* one word.*'cer' counts"
    ):
        made("rlseq/Parallel-v0", path=path, tokenizer=folder("t5"), reward="edit")
    made("rlseq/Parallel-v0", path=path, tokenizer=folder("t5"), reward="cer")
    made("rlseq/Parallel-v0", path=path, reward="edit")


def test_captions(tokenizer: Path) -> None:
    env = made("rlseq/Captions-v0", num_envs=8, scenes=20, tokenizer=tokenizer)
    read_back(env)
    test = made("rlseq/Captions-v0", num_envs=8, scenes=20, tokenizer=tokenizer, split="test")
    assert test.max_len == env.max_len
    policy = rlseq.make_policy("captioner", env, hidden=8, embedding=8)
    rlseq.evaluate(policy, test, limit=10)


def test_a_run_stands_on_its_own(pairs: Path, folder: Folder, tmp_path: Path) -> None:
    """Without the tokenizer's files, and without storing them twice."""
    place = tmp_path / "tokenizer"
    loaded = transformers.AutoTokenizer.from_pretrained(folder("t5"))
    loaded.save_pretrained(place)
    env = made("rlseq/Parallel-v0", num_envs=8, path=pairs, tokenizer=str(place), prompt="es: {source}")
    policy = rlseq.make_policy("seq2seq", env, hidden=8, embedding=8)
    rlseq.train(rlseq.make_agent("mle", policy), env, updates=1, out=tmp_path / "run")
    stored = (tmp_path / "run" / "words.json").read_text("utf-8")
    assert stored.count('"tokenizer_config.json"') == 1
    for file in place.iterdir():
        file.unlink()
    model = rlseq.load(tmp_path / "run")
    assert model.spec.vocab == env.vocab
    assert model.spec.source_vocab == env.source_vocab
    assert len(model.generate(["the dog sees the car"])) == 1
    test = model.task(split="test", num_envs=4)
    rlseq.evaluate(model.policy, test, limit=10)
    with pytest.raises(ValueError, match="contradicts the vocabularies of the run"):
        model.task(tokenizer="other")
    with pytest.raises(ValueError, match="contradicts the vocabularies of the run"):
        model.task(prompt="{source}")
    saved = rlseq.load(model.save(tmp_path / "model.zip"))
    assert saved.spec.vocab == env.vocab
    with pytest.warns(UserWarning, match=r"the policy reads 6 at most: \d+ of \d+ sources are cut"):
        assert model.task(split="test", num_envs=4, max_source_len=6).items["source"].shape[1] == 6
    whole = model.task(split="test", num_envs=4, max_source_len=99)
    assert whole.items["source"].shape == env.items["source"].shape


@pytest.mark.parametrize("id", ["rlseq/Numbers-v0", "rlseq/Captions-v0"])
def test_tasks_without_files_are_made_again(id: str, folder: Folder, tmp_path: Path) -> None:
    place = tmp_path / "tokenizer"
    transformers.AutoTokenizer.from_pretrained(folder("gpt2")).save_pretrained(place)
    small: dict[str, Any] = {"below": 100, "reward": "cer"} if "Numbers" in id else {"scenes": 20}
    env = made(id, num_envs=4, tokenizer=str(place), **small)
    kind = "captioner" if "Captions" in id else "seq2seq"
    policy = rlseq.make_policy(kind, env, hidden=8, embedding=8)
    rlseq.train(rlseq.make_agent("mle", policy), env, updates=1, out=tmp_path / "run")
    for file in place.iterdir():
        file.unlink()
    model = rlseq.load(tmp_path / "run")
    test = model.task(split="test", num_envs=4)
    assert test.vocab == env.vocab
    rlseq.evaluate(model.policy, test, limit=4)


def test_a_tokenizer_as_an_object_needs_not_be_given_again(
    pairs: Path, folder: Folder, tmp_path: Path
) -> None:
    loaded = transformers.AutoTokenizer.from_pretrained(folder("gpt2"))
    env = made("rlseq/Parallel-v0", num_envs=8, path=pairs, tokenizer=loaded, prompt="{source} = ")
    policy = rlseq.make_policy("seq2seq", env, hidden=8, embedding=8)
    rlseq.train(rlseq.make_agent("mle", policy), env, updates=1, out=tmp_path / "run")
    assert (
        json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))["options"]["prompt"] == "{source} = "
    )
    test = rlseq.load(tmp_path / "run").task(split="test")
    assert test.vocab == env.vocab


def test_commands(pairs: Path, tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "run")
    options = ["--option", f"path={pairs}", f"tokenizer={tokenizer}", "prompt=es: {source} ="]
    small = ["--policy", "seq2seq", "hidden=8", "embedding=8", "--budget-tokens", "500", "--evaluations", "1"]
    first = ["train", "mle", "--env", "rlseq/Parallel-v0", *options, *small, "--texts", "10"]
    main([*first, "--out", run])
    main(["evaluate", run, "--texts", "10"])
    main(["generate", run, "the dog sees the car"])
    again = ["train", "rloo", "--start", run, "--budget-tokens", "500", "--evaluations", "1", "--texts", "10"]
    main([*again, "--out", str(tmp_path / "next")])
    capsys.readouterr()
    words = json.loads((tmp_path / "next" / "words.json").read_text("utf-8"))
    assert words["source_vocab"]["prompt"].startswith("es: {source}")


# ── data ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def always_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "WORTH", 0)


def test_the_cache_knows_tokenizers_apart(pairs: Path, folder: Folder, always_cached: None) -> None:
    several = [
        made("rlseq/Parallel-v0", num_envs=4, path=pairs, tokenizer=folder(name), prompt=prompt)
        for _ in range(2)
        for name in NAMES
        for prompt in (None, "es: {source}")
    ]
    ids = [env.corpus.sources.ids.tolist() for env in several]
    assert ids[:4] == ids[4:]
    assert len({tuple(row) for row in ids[:4]}) == 4
    for env in several:
        read_back(env)
        assert env.corpus.texts()[0][0].startswith("el ")


def test_references_are_kept_as_they_were_read(pairs: Path, tokenizer: Path) -> None:
    """Also what a tokenizer does not keep, such as two blanks."""
    env = made("rlseq/Parallel-v0", num_envs=4, path=pairs, tokenizer=tokenizer)
    read = {line.split("\t")[1] for line in pairs.read_text("utf-8").splitlines()}
    assert {text for item in env.corpus.texts() for text in item} <= read
    assert any("  " in text for item in env.corpus.texts() for text in item)
    fewer = env.corpus.without_longer_than(int(env.corpus.references.lengths.float().median()))
    assert {text for item in fewer.texts() for text in item} < read


def test_sources_that_are_cut_keep_their_end(pairs: Path, tokenizer: Path) -> None:
    options: dict[str, Any] = {"path": pairs, "tokenizer": tokenizer, "prompt": "es: {source} today ."}
    whole = made("rlseq/Parallel-v0", num_envs=4, **options)
    long = whole.source_width
    with pytest.warns(
        UserWarning, match=rf"sources have up to {long} tokens, the policy reads {long - 4} at most"
    ):
        cut = made("rlseq/Parallel-v0", num_envs=4, max_source_len=long - 4, **options)
    whole.begin(index=torch.arange(4))
    cut.begin(index=torch.arange(4))
    for row, short in zip(whole.context["source"].tolist(), cut.context["source"].tolist(), strict=True):
        row = [id for id in row if id != whole.source_vocab.pad]
        assert [id for id in short if id != cut.source_vocab.pad] == whole.source_vocab.cut(row, long - 4)
    with pytest.raises(ValueError, match=r"shorten \d+ of \d+ sources, or choose too_long='cut'"):
        made("rlseq/Parallel-v0", max_source_len=long - 4, too_long="refuse", **options)


def test_a_source_is_cut_to_the_positions_of_the_model(tmp_path: Path, folder: Folder) -> None:
    path = tmp_path / "long.tsv"
    path.write_text("".join(f"{'the dog ' * 40}{n}\tel perro {n}\n" for n in range(40)), "utf-8")
    with pytest.warns(UserWarning, match="the policy reads 64 at most: 34 of 34 sources are cut"):
        env = made("rlseq/Parallel-v0", path=path, tokenizer=folder("bart"))
    env.begin()
    assert env.context["source"][0, -1] == env.vocab.eos
    with pytest.warns(UserWarning, match="sources are cut"):
        env = made("rlseq/Parallel-v0", path=path, tokenizer=folder("gpt2"), prompt="{source} :")
    assert env.source_width + env.max_len - 1 == 64  # one sequence
    env.begin()
    assert env.vocab.words[env.context["source"][0, -1]].endswith(":")
    with pytest.raises(ValueError, match="max_source_len=65 is more than the model has room for"):
        made("rlseq/Parallel-v0", path=path, tokenizer=folder("bart"), max_source_len=65)
    with pytest.raises(ValueError, match="the prompt leaves no room for a source"):
        made("rlseq/Parallel-v0", path=path, tokenizer=folder("gpt2"), prompt="the dog " * 80 + "{source}")


def test_a_reference_has_at_most_the_positions_of_the_model(tmp_path: Path, folder: Folder) -> None:
    path = tmp_path / "long.tsv"
    path.write_text("".join(f"the dog {n}\t{'el perro ' * (n * 3)}{n}\n" for n in range(40)), "utf-8")
    with pytest.warns(UserWarning, match=r"left out \d+ of \d+ references, longer than max_len=64"):
        env = made("rlseq/Parallel-v0", path=path, tokenizer=folder("bart"))
    assert env.max_len == 64


@pytest.mark.parametrize(
    ("id", "options", "message"),
    [
        ("rlseq/Parallel-v0", {"level": "bpe"}, "level='bpe' contradicts tokenizer="),
        ("rlseq/Parallel-v0", {"vocab_size": 100}, "vocab_size=100 contradicts tokenizer="),
        ("rlseq/Text-v0", {"min_count": 2}, "min_count=2 contradicts tokenizer="),
        ("rlseq/Captions-v0", {"min_count": 2}, "min_count=2 contradicts tokenizer="),
        ("rlseq/Captions-v0", {"vocab": rlseq.Vocab(("a", "b"))}, "vocab=.* contradicts tokenizer="),
        ("rlseq/Parallel-v0", {"tokenizer": None, "prompt": "{source}"}, "prompt goes with a tokenizer"),
        ("rlseq/Parallel-v0", {"too_long": "drop"}, "unknown too_long 'drop'"),
        ("rlseq/Text-v0", {"prompt": "{source}"}, "which this task does not have"),
    ],
)
def test_options_that_contradict_each_other(
    folder: Folder, id: str, options: dict[str, Any], message: str
) -> None:
    with warnings.catch_warnings(), pytest.raises(ValueError, match=message):
        made(id, **{"tokenizer": folder("t5"), **options})


# ── rlseq data inspect ───────────────────────────────────────────────────────────────────────────────


def test_tokens_are_counted_before_training(pairs: Path, tokenizer: Path) -> None:
    seen = inspect(pairs, tokenizer=tokenizer, prompt="es: {source} =", max_len=9)
    env = made("rlseq/Parallel-v0", path=pairs, tokenizer=tokenizer, prompt="es: {source} =")
    lengths = seen.parts["train"].sides[0].lengths
    assert sorted(lengths) == sorted(env.corpus.sources.lengths.tolist())
    assert seen.parts["train"].too_long == int((env.corpus.references.lengths > 9).sum())
    shown = str(seen)
    assert "lengths, by token" in shown
    assert "unknown to tokenizer" in shown
    with pytest.raises(ValueError, match="level='char' contradicts a tokenizer"):
        inspect(pairs, tokenizer=tokenizer, level="char")


def test_sources_to_cut_are_counted_before_training(tmp_path: Path, folder: Folder) -> None:
    path = tmp_path / "long.tsv"
    path.write_text("".join(f"{'the dog ' * n}{n}\tel perro {n}\n" for n in range(60)), "utf-8")
    seen = inspect(path, tokenizer=folder("bart"))
    assert seen.max_source_len == 64
    with pytest.warns(UserWarning, match="sources are cut"):
        env = made("rlseq/Parallel-v0", path=path, tokenizer=folder("bart"))
    assert seen.parts["train"].longer_sources(64) == env.cut_sources
    assert "sources to cut" in str(seen)


def test_the_command_counts_tokens(pairs: Path, folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    main(["data", "inspect", str(pairs), "--tokenizer", str(folder("t5"))])
    assert "lengths, by token" in capsys.readouterr().out


# ── with the model that the tokenizer belongs to ─────────────────────────────────────────────────────

SPEAKS = {
    "nllb": ("eng_Latn", "spa_Latn"),
    "m2m100": ("en", "es"),
    "mbart": ("en_XX", "ro_RO"),
    "mbart50": ("en_XX", "de_DE"),
}
ONE = ("encoder_layers", "decoder_layers", "num_layers", "num_decoder_layers", "n_layer", "num_hidden_layers")
TWO = ("encoder_attention_heads", "decoder_attention_heads", "num_heads", "n_head", "num_attention_heads")
WIDE = ("encoder_ffn_dim", "decoder_ffn_dim", "d_ff", "intermediate_size", "head_dim", "d_kv")
SMALL = {
    **dict.fromkeys(ONE, 1),
    **dict.fromkeys((*TWO, "num_key_value_heads"), 2),
    **dict.fromkeys(WIDE, 32),
}


@pytest.mark.parametrize("name", ["t5", "bart", "bart_forced", "pegasus", "marian", *SPEAKS, "gpt2", "llama"])
@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
def test_the_greedy_text_is_that_of_transformers(
    folder: Folder, name: str, tmp_path: Path, pairs: Path
) -> None:
    """From text to text, of a folder as it is on a hub: prefix, prompt, padding, rules and decoding."""
    saved(name, tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    config.update({size: value for size, value in SMALL.items() if hasattr(config, size)})
    languages = SPEAKS.get(name)
    prompt = None if config.is_encoder_decoder else "es: {source} ="
    env = made(
        "rlseq/Parallel-v0", num_envs=4, path=pairs, tokenizer=tmp_path, languages=languages, prompt=prompt
    )
    config.vocab_size = len(env.vocab)
    auto = (
        transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    )
    torch.manual_seed(1)
    model = auto.from_config(config).eval()
    for weight in model.parameters():
        weight.data *= 2  # so that it does not write one token over and over
    if (tmp_path / "generation_config.json").exists():
        model.generation_config = transformers.GenerationConfig.from_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    model = auto.from_pretrained(tmp_path).eval()
    policy = rlseq.make_policy("hf", env, model=str(tmp_path))
    written = rlseq.rollout(policy, env, decode=rlseq.Greedy())
    if languages is not None:
        tokenizer.src_lang, tokenizer.tgt_lang = languages
    prefix = env.vocab.prefix
    told = {"forced_bos_token_id": prefix[1]} if languages and len(prefix) > 1 else {}
    told |= {"decoder_start_token_id": prefix[0]} if config.is_encoder_decoder else {}
    for source, text in zip(env.sources(), env.texts(written.actions, written.mask), strict=True):
        read = tokenizer((prompt or "{source}").replace("{source}", source), return_tensors="pt")["input_ids"]
        new = env.max_len + max(len(prefix) - 1, 0)
        (ids,) = model.generate(read, max_new_tokens=new, do_sample=False, **told)
        ids = ids[len(prefix) :] if config.is_encoder_decoder else ids[read.shape[1] :]
        assert text == tokenizer.decode(ids, skip_special_tokens=True)
