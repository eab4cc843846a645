"""Poems: write quatrains like those of a file, or by the rules of their form alone."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from os import PathLike
from random import Random
from typing import Annotated, ClassVar

from typing_extensions import Unpack

from rlseq.data.encode import load
from rlseq.data.formats import Pair
from rlseq.data.locate import Origin, Where, find
from rlseq.data.poems import Syllable, as_poem, commonest_form, poem_formats, readings_of, syllable_of
from rlseq.envs.corpus_task import CorpusTask, CountedOptions, reading_of
from rlseq.envs.poem_rules import PoemRules
from rlseq.envs.text import AgainstAll, copied
from rlseq.types import HeldOut, Reward, RewardLike
from rlseq.utils.arguments import Range, checked_arguments


class Poems(CorpusTask):
    """Write a Chinese quatrain, character by character. Reward: the mean of three rules of its form.

    `lines` is the share of lines of the right length, `tones` that of the rules of regulated verse that hold,
    and `rhyme` is 1 if the second and the fourth line rhyme. They know nothing of meaning: likelihood, BLEU
    or a discriminator do.

    Args:
        path: a .txt with a poem a line (docs/tasks/poems.md); a small grammar when not given.
        split: "train", "dev" or "test".
        readings: a table of characters and their pinyin, `光 TAB guang1`; of the package `pypinyin` (`pip
            install 'rlseq[poems]'`) when not given.
        lines: of every poem; others are refused. The commonest number is wanted when not given.
        syllables: of every line; others are refused. The commonest number is wanted when not given.
        reward: "form", the three rules; "lines", "tones" or "rhyme"; "bleu_2", "bleu_3" or "bleu_4" with all
            poems as references; a sum such as "form + 0.5*bleu_3"; another name of `rlseq metrics`, or any
            reward.
        **options: see `CountedOptions`; a pretrained model's tokenizer has no word for each character.
    """

    held_out: ClassVar[HeldOut] = {"split": "test"}

    @checked_arguments
    def __init__(
        self,
        *,
        path: Where | Mapping[str, Where] | None = None,
        split: str = "train",
        readings: str | PathLike[str] | None = None,
        lines: Annotated[int, Range(2, 64)] | None = None,
        syllables: Annotated[int, Range(3, 32)] | None = None,
        reward: RewardLike = "form",
        **options: Unpack[CountedOptions],
    ) -> None:
        if path is None and (lines not in (None, 4) or syllables not in (None, 5)):
            raise ValueError(f"generated poems have 4 lines of 5 syllables, got lines={lines}, {syllables=}")
        toy = Origin(lambda: iter(toy_poems()))
        origins = {"all": toy} if path is None else find(path, poem_formats(lines, syllables))
        corpus = load(origins, split, reading_of(options, "char", reads=False))
        common = commonest_form(text for texts in corpus.texts() for text in texts)
        form = lines or common[0], syllables or common[1]
        rules = PoemRules(corpus.vocab, readings_of(readings, READ if path is None else None), form)
        own: dict[str, Reward] = {**rules.rules, "form": rules.form, "copied": partial(copied, corpus)}
        own |= {f"bleu_{n}": AgainstAll(corpus, n) for n in (2, 3, 4)}
        reported = ("form", *rules.rules, "bleu_3", "distinct_2", "copied")
        super().__init__(corpus, reward=reward, metrics=reported, own=own, **options)


# ── the embedded default ─────────────────────────────────────────────────────────────────────────────

THINGS = """
光guang1 霜shuang1 香xiang1 江jiang1 乡xiang1 塘tang2 山shan1 烟yan1 船chuan2 天tian1 泉quan2 边bian1 风feng1
城cheng2 声sheng1 灯deng1 藤teng2 秋qiu1 舟zhou1 楼lou2 洲zhou1 云yun2 村cun1 门men2 林lin2 春chun1 心xin1
月yue4 水shui3 雨yu3 夜ye4 雪xue3 鸟niao3 树shu4 酒jiu3 梦meng4 路lu4 岸an4 草cao3 柳liu3 叶ye4 浪lang4 燕yan4
"""
QUALITIES = """
清qing1 空kong1 新xin1 寒han2 青qing1 红hong2 高gao1 孤gu1 明ming2 闲xian2 深shen1
古gu3 远yuan3 冷leng3 小xiao3 旧jiu4 静jing4 翠cui4 碧bi4 野ye3 晚wan3 淡dan4
"""
DEEDS = """
归gui1 来lai2 迷mi2 随sui2 穿chuan1 飞fei1 吹chui1 临lin2 摇yao2 连lian2
照zhao4 入ru4 过guo4 映ying4 上shang4 下xia4 满man3 送song4 绕rao4 带dai4 望wang4
"""
READ: dict[str, Syllable] = {
    word[0]: reading for word in (THINGS + QUALITIES + DEEDS).split() if (reading := syllable_of(word[1:]))
}
# Tones of the second, fourth and fifth syllable, + level, - oblique, in the two kinds of quatrain.
PATTERNS = ("-+- +-+ +-- -++", "+-- -++ -+- +-+")


@lru_cache(maxsize=1)
def toy_poems(poems: int = 3000, seed: int = 0) -> tuple[Pair, ...]:
    """Draw quatrains of regulated verse in which no character comes twice."""
    draw, found = Random(seed), dict[str, None]()
    rhymes = sorted({READ[word[0]].rhyme for word in THINGS.split() if READ[word[0]].level})
    while len(found) < poems:
        left, rhyme = draw.sample([*READ], len(READ)), draw.choice(rhymes)
        ends = [_take(left, THINGS, "+", rhyme) for _ in range(2)]
        verses = []
        for second, fourth, fifth in map(list, draw.choice(PATTERNS).split()):
            verse = [_take(left, QUALITIES), _take(left, THINGS, second), _take(left, DEEDS)]
            verse += [
                _take(left, QUALITIES, fourth),
                ends.pop() if fifth == "+" else _take(left, THINGS, fifth),
            ]
            verses.append("".join(verse))
        found[as_poem(verses)] = None
    return tuple(Pair(None, text) for text in found)


def _take(left: list[str], role: str, tones: str = "+-", rhyme: str | None = None) -> str:
    """Take the first character of a role, a tone and a rhyme from those that are left."""
    taken = next(
        character
        for character in left
        if character in role
        and "-+"[READ[character].level] in tones
        and rhyme in (None, READ[character].rhyme)
    )
    left.remove(taken)
    return taken
