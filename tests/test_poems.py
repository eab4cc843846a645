"""Poems: rules of form, readings of characters, files, and the state-action pairs of a text."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import rlseq
from rlseq.cli.listing import list_or_show
from rlseq.data.formats import DataError
from rlseq.data.poems import commonest_form, rhyme_of, table_of_readings, verses_of
from rlseq.engine.references import sample_references
from rlseq.mdp.sequence_env import SequenceEnv
from rlseq.metrics import BLEU

MOON = "床前明月光，疑是地上霜。举头望明月，低头思故乡。"
STORKS = "白日依山尽，黄河入海流。欲穷千里目，更上一层楼。"
SOUNDS = """
床chuang2 前qian2 明ming2 月yue4 光guang1 疑yi2 是shi4 地di4 上shang4 霜shuang1 举ju3 头tou2 望wang4
低di1 思si1 故gu4 乡xiang1 白bai2 日ri4 依yi1 山shan1 尽jin4 黄huang2 河he2 入ru4 海hai3 流liu2
欲yu4 穷qiong2 千qian1 里li3 目mu4 更geng4 一yi1 层ceng2 楼lou2
"""


def poems(rows: int = 4, **options: Any) -> Any:
    return rlseq.make("rlseq/Poems-v0", num_envs=rows, **options)


@pytest.fixture
def own(tmp_path: Path) -> dict[str, Any]:
    """Two poems as files of all parts, and the readings of their characters."""
    table = tmp_path / "pinyin.tsv"
    table.write_text("".join(f"{word[0]}\t{word[1:]}\n" for word in SOUNDS.split()), "utf-8")
    for part in ("train", "dev", "test"):
        (tmp_path / f"{part}.txt").write_text(f"{MOON}\n{STORKS}\n", "utf-8")
    return {"path": str(tmp_path), "readings": str(table)}


def judged(env: Any, *texts: str) -> dict[str, list[float]]:
    rows = [[*env.vocab.encode(text), env.vocab.eos] for text in texts]
    width = max(map(len, rows))
    tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.arange(width) < torch.tensor([[len(row)] for row in rows])
    context = {"index": torch.zeros(len(rows), dtype=torch.int64)}
    return {name: metric(tokens, mask, context).tolist() for name, metric in env.metrics.items()}


# ── readings ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("syllables", "rhyme"),
    [
        ("ba hua jia ya", "a"),
        ("bo guo wo he", "e"),
        ("jie xue ye yue lüe", "ie"),
        ("zhi si ri yi qi yu ju lü er", "i"),
        ("wu zhu", "u"),
        ("hai kuai wai", "ai"),
        ("fei shui wei", "ei"),
        ("gao xiao yao", "ao"),
        ("shou liu you", "ou"),
        ("shan tian yuan juan wan yan", "an"),
        ("shen lin yun jun chun wen yin", "en"),
        ("guang xiang yang wang", "ang"),
        ("feng ming dong xiong yong weng ying", "eng"),
    ],
)
def test_the_thirteen_rhymes(syllables: str, rhyme: str) -> None:
    assert {syllable: rhyme_of(syllable) for syllable in syllables.split()} == dict.fromkeys(
        syllables.split(), rhyme
    )


def test_a_table_is_refused_by_its_line(tmp_path: Path) -> None:
    table = tmp_path / "pinyin.tsv"
    table.write_text("光\tguang1\n山\n", "utf-8")
    with pytest.raises(DataError, match=r"pinyin.tsv:2: expected a character, a tab and its pinyin"):
        table_of_readings(table)


def test_without_a_table_the_package_is_asked(own: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    sounds = {word[0]: word[1:] for word in SOUNDS.split()}
    package = SimpleNamespace(
        Style=SimpleNamespace(TONE3="tone3"),
        pinyin=lambda text, **_: [[sounds[text]]] if text in sounds else [],
    )
    monkeypatch.setitem(sys.modules, "pypinyin", package)
    env, told = poems(path=own["path"]), poems(**own)
    assert judged(env, MOON, STORKS) == judged(told, MOON, STORKS)
    monkeypatch.setitem(sys.modules, "pypinyin", None)
    with pytest.raises(ImportError, match=r"pypinyin is not installed here; pip install 'rlseq\[poems\]'"):
        poems(path=own["path"])


# ── rules ────────────────────────────────────────────────────────────────────────────────────────────


def test_rules_hold_in_the_data() -> None:
    env = poems(200, seed=0)
    batch = sample_references(env)
    for name in ("form", "lines", "tones", "rhyme"):
        found = env.metrics[name](batch.actions, batch.mask, batch.context)
        assert found.tolist() == pytest.approx([1.0] * 200)


def test_a_famous_regular_poem_and_an_irregular_one(own: dict[str, Any]) -> None:
    """By hand: 床前 alternates in two of four lines, has one couplet opposed, none joined, good ends."""
    found = judged(poems(**own), STORKS, MOON)
    assert found["lines"] == found["rhyme"] == [1, 1]
    assert found["tones"] == pytest.approx([1, 6 / 10])
    assert found["form"] == pytest.approx([1, 2.6 / 3])


def test_rules_are_broken_one_by_one(own: dict[str, Any]) -> None:
    regular = STORKS
    found = judged(
        poems(**own),
        regular.replace("楼", "山"),  # no rhyme, the same tone
        regular.replace("楼", "流"),  # the same character
        regular.replace("楼", "海"),  # neither rhyme nor tone
        regular.replace("依山", "依"),  # a short line, with a tone less and one wrong
        regular + "白日依山尽，",  # a line too many
        regular[:12],  # half of it
        "",
        "，。，。",
    )
    assert found["rhyme"] == [0, 0, 0, 1, 1, 0, 0, 0]
    assert found["lines"] == pytest.approx([1, 1, 1, 3 / 4, 4 / 5, 2 / 4, 0, 0])
    assert found["tones"][:3] == pytest.approx([1, 1, 9 / 10])
    assert found["tones"][3] < 1
    assert found["tones"][4] == 1
    assert found["tones"][5:] == pytest.approx([4 / 10, 0, 0])


def test_a_couplet_rhymes_in_itself(tmp_path: Path, own: dict[str, Any]) -> None:
    for part in ("train", "dev", "test"):
        (tmp_path / f"{part}.txt").write_text("疑是地上霜 低头思故乡\n床前明月光/欲穷千里目\n", "utf-8")
    found = judged(poems(**own), "疑是地上霜，低头思故乡。", "床前明月光，欲穷千里目。")
    assert found["lines"] == [1, 1]
    assert found["rhyme"] == [1, 0]


def test_bleu_has_all_poems_as_references(own: dict[str, Any]) -> None:
    env = poems(reward="0.5*form + bleu_2", **own)
    tokens = torch.tensor([[*env.vocab.encode(STORKS[:6] + MOON[6:]), 0]])
    parts = env.reward_parts(tokens, tokens >= 0, {"index": torch.zeros(1, dtype=torch.int64)})
    assert list(parts) == ["form", "bleu_2"]
    both = [" ".join([*poem, "<eos>"]) for poem in (MOON, STORKS)]
    wanted = BLEU([both], order=2).score([" ".join([*STORKS[:6], *MOON[6:], "<eos>"])])
    assert parts["bleu_2"].sum().item() == pytest.approx(wanted.item() / 100, abs=1e-5)


# ── files ────────────────────────────────────────────────────────────────────────────────────────────


def test_lines_of_any_punctuation() -> None:
    assert (
        verses_of(MOON)
        == verses_of("床前明月光/疑是地上霜 举头望明月; 低头思故乡")
        == MOON[:-1].replace("。", "，").split("，")
    )
    assert commonest_form([MOON, STORKS, "床前明月光，疑是地上霜。", "床，前明。"]) == (4, 5)


def test_poems_of_another_form_are_refused_by_line(tmp_path: Path, own: dict[str, Any]) -> None:
    short = f"{MOON}\n床前明月光，疑是地上。\n\n{STORKS}\n"
    (tmp_path / "train.txt").write_text(short, "utf-8")
    with pytest.raises(DataError, match=r"train.txt:3: expected a poem, got an empty line"):
        poems(**own)
    says = r"train.txt:2: expected 4 lines of 5 syllables, got 2 of 5, 4: '床前明月光"
    with pytest.raises(DataError, match=says):
        poems(lines=4, syllables=5, **own)
    with pytest.warns(UserWarning, match="skipped 2 lines: .*train.txt:2.*train.txt:3"):
        env = poems(lines=4, syllables=5, skip_bad=True, **own)
    assert env.size == 2
    with pytest.raises(ValueError, match="generated poems have 4 lines of 5 syllables, got lines=8"):
        poems(lines=8)


@pytest.mark.parametrize("option", ["tokenizer", "prompt", "languages"])
@pytest.mark.parametrize("name", ["Poems", "Music", "Molecules"])
def test_options_of_a_tokenizer_are_neither_listed_nor_taken(name: str, option: str) -> None:
    assert option not in list_or_show("envs", f"rlseq/{name}-v0").split("options: ")[-1]
    given: dict[str, Any] = {option: "t5-small"}
    with pytest.raises(TypeError, match=f"{name} has no option '{option}'"):
        rlseq.make(f"rlseq/{name}-v0", **given)


# ── a text as states and actions ─────────────────────────────────────────────────────────────────────


def states_and_actions(env: SequenceEnv) -> list[tuple[str, str]]:
    """Write the reference of item 0; every prefix as it is observed, with what is written behind it."""
    env.reset(options={"index": torch.zeros(1, dtype=torch.int64)})
    source = f"{env.sources()[0]}, " if env.source_vocab else ""
    text = env.corpus.texts(torch.zeros(1, dtype=torch.int64))[0][0]  # type: ignore[attr-defined]
    pairs = []
    for action in [*env.vocab.encode(text), env.vocab.eos]:
        seen = env._observe()
        prefix = env.vocab.decode(seen["prefix"][0, : int(seen["length"][0])].tolist())
        pairs.append((source + (prefix or "<BOS>"), env.vocab.words[action or 0]))
        env.step(torch.tensor([action]))
    return pairs


def test_a_poem_is_a_trajectory_of_prefixes_and_characters(own: dict[str, Any]) -> None:
    pairs = states_and_actions(poems(1, **own))
    assert pairs[:3] == [("<BOS>", "床"), ("床", "前"), ("床前", "明")]
    assert pairs[-1] == (MOON, "<eos>")


def test_with_a_condition_the_input_belongs_to_every_state(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_text("how are you\tI am fine\n", "utf-8")
    env = rlseq.make("rlseq/Parallel-v0", path={"train": str(path)}, level="word")
    pairs = states_and_actions(env)
    assert pairs[:2] == [("how are you, <BOS>", "I"), ("how are you, I", "am")]
    assert pairs[-1] == ("how are you, I am fine", "<eos>")
