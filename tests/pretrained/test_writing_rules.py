"""Generation settings as rules of writing: the masks and the greedy texts of transformers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import rlseq
from rlseq.mdp.writing_rules import WritingRules
from rlseq.types import RuleSupport
from rlseq.vocab import TokenizerVocab
from rlseq.vocab.pretrained import tokenizer_pair
from tests.pretrained.tiny import transformers

V, T, EOS = 12, 6, 2
VOCAB = TokenizerVocab(tuple(map(str, range(V))), EOS, bos=1, pad=0, prefix=(1,))
FORCED = replace(VOCAB, prefix=(1, 5), bos=5)
CAUSAL = replace(VOCAB, prefix=())
Folder = Callable[[str], Path]
SETTINGS: list[dict[str, Any]] = [
    {"suppress_tokens": [3, 7]},
    {"begin_suppress_tokens": [EOS, 4]},
    {"bad_words_ids": [[3], [4, 5], [5, 5, 6], [EOS], [1, 8]]},
    {"min_length": 4},
    {"min_new_tokens": 3},
    {"forced_eos_token_id": EOS},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2},
    {"no_repeat_ngram_size": 3},
    {"no_repeat_ngram_size": 9},
    {"suppress_tokens": [9], "bad_words_ids": [[4, 5]], "min_length": 3, "forced_eos_token_id": EOS},
]


def allowed_by_transformers(settings: dict[str, Any], vocab: TokenizerVocab, ids: Tensor) -> Tensor:
    """The tokens to which the processors of `generate` leave a probability behind `ids` `[B, n]`."""
    kinds, read = transformers.generation.logits_process, len(vocab.prefix)
    made = {
        "suppress_tokens": lambda x: kinds.SuppressTokensLogitsProcessor(x),
        "begin_suppress_tokens": lambda x: kinds.SuppressTokensAtBeginLogitsProcessor(x, read),
        "bad_words_ids": lambda x: kinds.NoBadWordsLogitsProcessor(x, eos_token_id=torch.tensor([EOS])),
        "min_length": lambda x: kinds.MinLengthLogitsProcessor(x, torch.tensor([EOS])),
        "min_new_tokens": lambda x: kinds.MinNewTokensLengthLogitsProcessor(
            min(read, 1), x, torch.tensor([EOS])
        ),
        "no_repeat_ngram_size": kinds.NoRepeatNGramLogitsProcessor,
        "forced_eos_token_id": lambda x: kinds.ForcedEOSTokenLogitsProcessor(read + T, x),
    }
    scores = torch.zeros(len(ids), V)
    for name, value in settings.items():
        scores = made[name](value)(ids, scores)
    return scores > -torch.inf


@pytest.mark.parametrize("vocab", [VOCAB, FORCED, CAUSAL], ids=["start", "forced", "causal"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_legal_tokens_are_those_of_transformers(vocab: TokenizerVocab, settings: dict[str, Any]) -> None:
    if vocab is CAUSAL:
        settings = {n: v for n, v in settings.items() if n != "min_length"}  # which would count the prompt
    rules = WritingRules.of(replace(vocab, generation=settings))
    if not settings:
        assert rules is None
        return
    assert rules is not None
    tokens = torch.randint(1, 7, (200, T), generator=torch.Generator().manual_seed(0))
    prefix = torch.tensor([vocab.prefix], dtype=torch.int64).expand(200, -1)
    for length in range(T):
        legal = rules.legal(tokens, torch.full((200,), length))
        assert legal is not None
        written = torch.cat([prefix, tokens[:, :length]], 1)
        expected = allowed_by_transformers(settings, vocab, written) if written.shape[1] else None
        if expected is not None:
            assert torch.equal(legal.expand(200, V), expected), length


def test_rows_of_many_lengths_are_as_rows_of_one() -> None:
    settings = {"bad_words_ids": [[4, 5], [5, 5, 6]], "min_length": 4, "no_repeat_ngram_size": 2}
    settings["forced_eos_token_id"] = EOS
    rules = WritingRules.of(replace(VOCAB, generation=settings))
    assert rules is not None
    tokens, length = torch.randint(1, 7, (60, T)), torch.arange(60) % T
    every = rules.legal(tokens, length)
    assert every is not None
    for n in range(T):
        alone = rules.legal(tokens[length == n], torch.full((int((length == n).sum()),), n))
        assert alone is not None
        assert torch.equal(every[length == n], alone)


def test_what_is_always_suppressed_is_one_mask() -> None:
    """A rollout then holds [V] in place of [B, T, V]."""
    rules = WritingRules.of(replace(VOCAB, generation={"suppress_tokens": [3], "other_eos": [4]}))
    assert rules is not None
    tokens = torch.zeros(2, T, dtype=torch.int64)
    mask = rules.legal(tokens, torch.zeros(2, dtype=torch.int64))
    assert mask is not None
    assert mask.shape == (V,)
    assert (~mask).nonzero().flatten().tolist() == [3, 4]
    assert rules.legal(tokens, torch.ones(2, dtype=torch.int64)) is mask
    assert WritingRules.of(VOCAB) is None


def test_a_least_length_that_counts_the_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match=r"min_length=4 .* counts the prompt.*as min_new_tokens"):
        WritingRules.of(replace(CAUSAL, generation={"min_length": 4}))
    rules = WritingRules.of(replace(CAUSAL, generation={"min_new_tokens": 4}))
    assert rules is not None
    assert rules.min_length == 4


def test_rules_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="suppress must be token ids, 0 … 11, got 12"):
        WritingRules(V, EOS, suppress=(12,))
    with pytest.raises(ValueError, match="suppress holds the token that ends a text"):
        WritingRules(V, EOS, suppress=(EOS,))


@pytest.mark.parametrize("name", ["t5", "bart", "bart_forced"])
def test_the_greedy_text_is_that_of_generate(folder: Folder, tmp_path: Path, name: str) -> None:
    """Under all settings at once, of a random model, from the files of a folder."""
    loaded = transformers.AutoTokenizer.from_pretrained(folder(name))
    config = transformers.AutoConfig.from_pretrained(folder(name))
    sizes = {
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
    }
    if name == "t5":
        sizes = {"num_layers": 1, "num_decoder_layers": 1, "num_heads": 2}
    config.update(
        {**sizes, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "d_ff": 16, "vocab_size": len(loaded)}
    )
    torch.manual_seed(3)
    model = transformers.AutoModelForSeq2SeqLM.from_config(config).eval()
    settings, eos = model.generation_config, model.config.eos_token_id
    likely = model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=8, do_sample=False)[0].tolist()
    likely = [id for id in dict.fromkeys([*likely, 20, 21, 22, 23]) if id != eos]
    settings.suppress_tokens, settings.begin_suppress_tokens = likely[1:2], likely[2:3]
    settings.bad_words_ids = [likely[3:4], [likely[0]] * 2, [9, 10], [11, 11]]
    settings.no_repeat_ngram_size = 3
    settings.min_length, settings.forced_eos_token_id = 5, eos
    settings.forced_bos_token_id = 0 if name == "bart_forced" else None
    model.save_pretrained(tmp_path)
    loaded.save_pretrained(tmp_path)
    vocab, _ = tokenizer_pair(tmp_path, reads=True)
    rules = WritingRules.of(vocab)
    assert rules is not None
    sources = torch.randint(5, len(loaded), (8, 4))
    steps, read = 8, len(vocab.prefix)
    expected = model.generate(sources, max_length=read + steps, do_sample=False)
    tokens, length = torch.zeros(8, steps, dtype=torch.int64), torch.zeros(8, dtype=torch.int64)
    prefix = torch.tensor(vocab.prefix).expand(8, -1)
    for t in range(steps):
        logits = model(input_ids=sources, decoder_input_ids=torch.cat([prefix, tokens[:, :t]], 1)).logits[
            :, -1
        ]
        legal = rules.legal(tokens, length)
        assert legal is not None
        tokens[:, t] = logits.masked_fill(~legal, -torch.inf).argmax(1)
        length += 1
    ends = tokens.eq(eos)
    ended = ends.cumsum(1) - ends.long() > 0
    found = torch.cat([prefix, tokens.masked_fill(ended, vocab.pad)], 1)
    assert torch.equal(found[:, : expected.shape[1]], expected)
    assert ends[:, -1].any()  # forced


def test_they_are_rules_of_the_task_also_after_loading(folder: Folder, tmp_path: Path) -> None:
    place = tmp_path / "model"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder("t5"))
    tokenizer.save_pretrained(place)
    transformers.T5Config(d_model=16, decoder_start_token_id=0, vocab_size=400).save_pretrained(place)
    settings = transformers.GenerationConfig(eos_token_id=1, suppress_tokens=[5], min_new_tokens=3)
    settings.save_pretrained(place)
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("".join(f"the dog {n}\tel perro {n}\n" for n in range(60)), "utf-8")
    env = rlseq.make("rlseq/Parallel-v0", num_envs=16, path=pairs, tokenizer=place)
    policy = rlseq.make_policy("lstm", env, hidden=8, embedding=8)
    written = rlseq.rollout(policy, env)
    assert not (written.actions[written.mask] == 5).any()
    assert written.mask.sum(1).min() >= 4
    assert isinstance(written.behaviour.support, RuleSupport)  # no masks are kept
    rlseq.train(rlseq.make_agent("reinforce", policy), env, updates=1, out=tmp_path / "run")
    (place / "tokenizer.json").unlink()
    model = rlseq.load(tmp_path / "run")
    assert model.env is not None
    assert model.env.writing_rules == env.writing_rules
    for (candidate,) in model.generate(["the dog 1", "the dog 2"], decode=rlseq.Sample()):
        assert candidate.text
