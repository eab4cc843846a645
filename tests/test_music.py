"""Music: ABC in files, rules on melodies, pictures, and sums of rewards by name."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

import rlseq
from rlseq.cli import main
from rlseq.data.abc import abc_tunes
from rlseq.data.formats import DataError, Pair, Problem
from rlseq.data.notes import scale_of, signature, sound_of, word_of
from rlseq.engine.references import sample_references
from rlseq.envs.piano_roll import piano_roll

HEAD = "X:1\nM:4/4\nL:1/8\nK:G\n"


def music(rows: int = 4, **options: Any) -> Any:
    return rlseq.make("rlseq/Music-v0", num_envs=rows, **options)


def read(folder: Path, text: str, bars: int = 2) -> list[Any]:
    path = folder / "tunes.abc"
    path.write_text(text, "utf-8")
    return list(abc_tunes(path, bars))


def tune(folder: Path, body: str, head: str = HEAD, bars: int = 2) -> str:
    """All bars of a tune."""
    (found,) = read(folder, head + body, bars)
    assert isinstance(found, Pair), found
    return " ".join((str(found.source), found.target)).split(maxsplit=3)[3]


def problem(folder: Path, body: str, head: str = HEAD) -> tuple[int, str]:
    (found,) = read(folder, head + body)
    assert isinstance(found, Problem), found
    return found.line, found.what


# ── notes ────────────────────────────────────────────────────────────────────────────────────────────


def test_every_pitch_has_one_word() -> None:
    for pitch in range(36, 96):
        for eighths in (Fraction(1), Fraction(2), Fraction(3, 2), Fraction(1, 2), Fraction(2, 3)):
            sound = sound_of(word_of(pitch, eighths))
            assert sound is not None
            assert sound == (pitch, eighths)
    assert word_of(60, Fraction(1)) == "C"
    assert word_of(73, Fraction(1, 2)) == "^c/2"
    assert word_of(46, Fraction(3)) == "_B,,3"
    assert word_of(None, Fraction(2)) == "z2"
    assert [sound_of(word) for word in ("|", "H", "M:4/4", "<unk>", "a/0", "^_a")] == [None] * 6


def test_keys_have_their_notes() -> None:
    assert signature("D", "major") == {"F": 1, "C": 1}
    assert signature("Eb", "major") == {"B": -1, "E": -1, "A": -1}
    assert signature("D", "dorian") == {}
    assert signature("F#", "minor") == {"F": 1, "C": 1, "G": 1}
    assert scale_of("A", "minor") == [9, 11, 0, 2, 4, 5, 7]
    assert scale_of("G", "mixolydian") == [7, 9, 11, 0, 2, 4, 5]
    assert scale_of("Bb", "lydian") == [10, 0, 2, 4, 5, 7, 9]


# ── files ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "bars"),
    [
        ("G2AB c2d2|f8|", "G2 A B c2 d2 | ^f8"),  # the key raises
        ("=f2 f2 F2 ^c2|c4 f4|", "f2 f2 F2 ^c2 | c4 ^f4"),  # an accidental holds in its bar, in all octaves
        ("G>A B<c d>>e f4/2|g8|", "G3/2 A/2 B/2 c3/2 d7/4 e/4 ^f2 | g8"),
        ("(3GAB (3:2:2c2d e2 (B/c/B/A/)|g8|", "G2/3 A2/3 B2/3 c4/3 d2/3 e2 B/2 c/2 B/2 A/2 | g8"),
        ('"G"G2 {ab}!trill!A2 ~[Bd]2 .c-c\\\n|vG4 z4|', "G2 A2 B2 c c | G4 z4"),
        ("d|G4 B4|d6 c:|", "G4 B4 | d6 c z"),  # no upbeat, and a rest where the next one would be
        ("|:G8|1A8:|2B8||c8|", "G8 | A8 | c8"),  # the first ending
        ("G4A4|Z|", "G4 A4 | z8"),
    ],
)
def test_abc_is_read(tmp_path: Path, body: str, bars: str) -> None:
    assert tune(tmp_path, body, bars=bars.count("|") + 1) == bars


def test_heads_are_read(tmp_path: Path) -> None:
    text = "M:6/8\n\nX:1\nT:one\nK:Dmix\nf3f3|A6|]\nw:la la\n\nnotes on it\n\n"
    text += "X:2\nM:C|\nL:1/4\nK:F# minor\nfg ab|f4|\n"
    first, second = read(tmp_path, text)
    assert first == Pair("M:6/8 K:D mixolydian ^f3 ^f3 |", "A6")
    assert second == Pair("M:2/2 K:F# minor ^f2 ^g2 a2 b2 |", "^f8")


@pytest.mark.parametrize(
    ("body", "head", "line", "says"),
    [
        ("G8|G8A|", HEAD, 5, "expected bars of 4/4, 8 eighths, got one of 9"),
        ("G8|A6|B8|", HEAD, 5, "expected bars of 4/4, 8 eighths, got one of 6: 'A6'"),
        ("G8|", HEAD, 1, "expected at least 2 bars, got 1; read fewer: bars=1"),
        ("G8 % a remark\n|w8|", HEAD, 6, "expected notes in ABC notation, got '8|'"),
        ("G8|§|", HEAD, 5, "expected notes in ABC notation, got '§|'"),
        ("G8|\nK:D\nA8|", HEAD, 6, r"expected one metre, key and voice in a tune, got [K:D]"),
        ("G8|A8|", "X:1\nM:4/4\nK:H\n", 3, "expected a key such as K:G, K:Am or K:Ddor, got 'H'"),
        ("G8|A8|", "X:1\nM:free\nK:G\n", 2, "expected a metre such as M:6/8, got 'free'"),
        ("G8|A8|", "X:1\nK:G\n", 1, "expected a metre such as M:6/8, got ''"),
        ("G8|A8|", "X:1\nG8\nK:G\n", 2, "expected a field such as M:6/8 before the key, K:, got 'G8'"),
        ("G0|A8|", HEAD, 5, "expected a length above 0, got '0'"),
    ],
)
def test_what_cannot_be_read_is_named_by_line(
    tmp_path: Path, body: str, head: str, line: int, says: str
) -> None:
    found = problem(tmp_path, body, head)
    assert found[0] == line
    assert found[1].startswith(says)


def test_a_file_without_tunes_says_what_is_expected(tmp_path: Path) -> None:
    (found,) = read(tmp_path, "G8|A8|\n")
    assert str(found).endswith(
        "tunes.abc:1: expected tunes, each of which begins with a line X:1 (ABC notation), got none"
    )


def test_a_user_s_tunes_are_a_task(tmp_path: Path) -> None:
    path = tmp_path / "mine.abc"
    openings = [a + b + c + a for a in "abcd" for b in "efg" for c in "ABC"]
    head = "M:2/4\nL:1/8\nK:D\n"
    good = "".join(f"X:{n}\n{head}{bar}|f4|e4|d4|\n\n" for n, bar in enumerate(openings))
    path.write_text(f"{good}X:99\n{head}d4|f4|ef|d4|\n", "utf-8")
    other = path.with_suffix(".mid")
    other.touch()
    with pytest.raises(DataError, match=r"expected a file .abc, a folder .* got .mid$"):
        music(path=str(other))
    with pytest.raises(
        DataError, match=r"mine.abc:221: expected bars of 2/4, 4 eighths, got one of 2: 'e \^f'"
    ):
        music(path=str(path), bars=4)
    with pytest.warns(UserWarning, match=r"skipped 1 line: .*mine.abc:221"):
        env = music(path=str(path), bars=4, skip_bad=True)
    assert env.corpus.texts(torch.tensor([0])) == [["^f4 | e4 | d4"]]
    assert env.max_len == 6


# ── rules ────────────────────────────────────────────────────────────────────────────────────────────


def judged(env: Any, item: int, *texts: str) -> dict[str, list[float]]:
    rows = [[*env.vocab.encode(text), env.vocab.eos] for text in texts]
    width = max(map(len, rows))
    tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.arange(width) < torch.tensor([[len(row)] for row in rows])
    context = env.context_of(torch.full((len(rows),), item))
    return {name: metric(tokens, mask, context).tolist() for name, metric in env.metrics.items()}


def item_of(env: Any, begins: str) -> int:
    source = env.contexts(torch.arange(env.size))["source"]
    texts = env.source_vocab.decode_batch(source.tolist(), (source != 0).sum(1).tolist())
    return next(i for i, text in enumerate(texts) if text.startswith(begins))


def test_rules_hold_in_the_data_and_fail_where_they_are_broken() -> None:
    env = music(200, seed=0)
    batch = sample_references(env)
    for name in ("form", "key", "metre", "closure"):
        assert env.metrics[name](batch.actions, batch.mask, batch.context).tolist() == pytest.approx(
            [1.0] * 200
        )
    found = judged(
        env,
        item_of(env, "M:4/4 K:G major"),
        "G4 B4 | d4 ^f4 | G4 G4",
        "G4 B4 | d4 ^f2 | G4 G4",  # a bar that is not full
        "G4 f4 | f4 B4 | B4 B4",  # off key, and no end on the tonic
        "G4 G4",  # too short
        "G4 B4 | d4 ^f4 | G4 G4 | G4 G4",  # too long
        "",
    )
    assert found["key"] == pytest.approx([1, 1, 4 / 6, 1, 1, 0])
    assert found["metre"] == pytest.approx([1, 2 / 3, 1, 1 / 3, 3 / 4, 0])
    assert found["closure"] == [1, 1, 0, 1, 1, 0]
    assert found["form"] == pytest.approx([1, 8 / 9, 5 / 9, 7 / 9, 11 / 12, 0])


def test_tunes_without_references_are_judged_by_tokens_alone() -> None:
    """Notes behind the end of a text do not count, nor does an unknown metre."""
    env = music()
    item = item_of(env, "M:4/4 K:G major")
    tokens = torch.tensor([[*env.vocab.encode("G4 G4 | G4"), 0, *env.vocab.encode("G4 G4")]])
    mask = torch.tensor([[True] * 5 + [False] * 2])
    context = dict(env.context_of(torch.tensor([item])))
    assert env.metrics["metre"](tokens, mask, context).tolist() == pytest.approx([1 / 3])
    context["source"] = context["source"].clone()
    context["source"][:, :2] = 1
    assert [env.metrics[name](tokens, mask, context).item() for name in ("metre", "closure")] == [0, 0]


# ── rewards by a sum of names ────────────────────────────────────────────────────────────────────────


def test_a_sum_of_names_is_a_reward() -> None:
    env = music(3, reward="metre + 0.5*closure + -2*distinct_1", seed=0)
    batch = rlseq.rollout(rlseq.make_policy("seq2seq", env, hidden=8, embedding=4), env)
    parts = env.reward_parts(env.tokens, env.mask, batch.context)
    assert list(parts) == ["metre", "closure", "distinct_1"]
    rules, distinct = env.metrics, rlseq.metrics.DistinctN(order=1)
    written = env.tokens, env.mask, batch.context
    wanted = rules["metre"](*written) + 0.5 * rules["closure"](*written) - 2 * distinct(*written)
    assert env.total_reward(*written).sum(1).tolist() == pytest.approx(wanted.tolist(), abs=1e-6)


@pytest.mark.parametrize("reward", ["metre + metre", "metre + ", "0.5*", "2 *", "metre * 2"])
def test_what_is_no_sum_of_names(reward: str) -> None:
    with pytest.raises(ValueError, match="a reward is a name or a sum of different names, such as"):
        music(reward=reward)


def test_an_unknown_name_in_a_sum_is_named() -> None:
    with pytest.raises(ValueError, match="unknown reward 'metra'; did you mean 'metre'"):
        music(reward="0.5*metra + closure")


# ── pictures ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_piano_roll_has_a_bar_for_every_note() -> None:
    drawn = ElementTree.fromstring(piano_roll("M:2/4 K:D major d2 e2 |", "f2 z2 | ^f d3 <unk>"))
    notes = [part for part in drawn if part.tag.endswith("rect")]
    colours = [note.get("fill", "")[6:9] for note in notes]
    assert colours == ["sof", "sof", "bad", "acc", "acc"]
    assert [float(note.get("x", 0)) for note in notes] == [0.5, 24.5, 48.5, 96.5, 108.5]
    heights = [float(note.get("y", 0)) for note in notes]
    assert heights[2] > heights[3]
    assert heights[0] == heights[4] > heights[1]
    assert drawn.get("viewBox", "").startswith("0 0 144 ")
    empty = ElementTree.fromstring(piano_roll("M:2/4 <unk> major d2 |", ""))
    assert len([part for part in empty if part.tag.endswith("rect")]) == 1


def test_a_run_s_report_shows_its_last_texts_as_pictures(tmp_path: Path) -> None:
    run = tmp_path / "run"
    small = [
        "--policy",
        "gru",
        "hidden=8",
        "embedding=4",
        "--budget-tokens",
        "2000",
        "--texts",
        "4",
        "--quiet",
    ]
    main(
        [
            "train",
            "rloo",
            "--env",
            "rlseq/Music-v0",
            "--reward",
            "metre + 0.5*closure",
            *small,
            "--out",
            str(run),
        ]
    )
    main(["report", str(run)])
    page = (run / "report.html").read_text("utf-8")
    assert page.count('aria-label="Piano roll') == 4
    results = json.loads((run / "results.json").read_text("utf-8"))
    final = results["final"]
    assert final["metre + 0.5*closure"] == pytest.approx(final["metre"] + 0.5 * final["closure"])


def test_an_opening_of_several_bars() -> None:
    env = music(opening=2, seed=0)
    env.begin()
    assert all(source.count("|") == 2 for source in env.sources())
    assert all(text.count("|") == 1 for item in env.corpus.texts() for text in item)
    assert env.metrics["metre"].__self__.bars == 2
    with pytest.raises(ValueError, match="opening must be less than bars, which are 4, got 4"):
        music(opening=4)
