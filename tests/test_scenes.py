"""Scenes: what is drawn is what is told."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch

from rlseq.data import scenes as s

SCENES = s.draw(300, seed=1)
TOLD = s.tell(SCENES, seed=2)


def test_the_first_scenes_do_not_depend_on_how_many_follow() -> None:
    few = s.draw(20, seed=1)
    for name, value in vars(few).items():
        assert torch.equal(value, getattr(SCENES, name)[:20]), name
    assert s.tell(few, seed=2) == TOLD[:20]
    assert torch.equal(s.render(few), s.render(SCENES)[:20])


def test_seeds_matter() -> None:
    assert not torch.equal(s.draw(300, seed=2).cell, SCENES.cell)
    assert s.tell(SCENES, seed=3) != TOLD


def test_objects_lie_apart_and_inside() -> None:
    assert all(len(set(cells)) == s.OBJECTS for cells in SCENES.cell.tolist())
    assert set(SCENES.count.tolist()) == {2, 3}
    assert (SCENES.centre > max(s.RADII) - 1).all()
    assert (SCENES.centre < s.SIDE - max(s.RADII) + 1).all()


def one(shape: int, size: int = 1, cell: int = 4) -> s.Scenes:
    """A scene whose second object is far in the corner."""
    places = torch.tensor([[cell, 8, 0]])
    middle = (torch.stack([places % 3, places // 3], 2) + 0.5) * s.SIDE / 3
    row = torch.tensor
    return s.Scenes(
        count=row([1]),
        shape=row([[shape, 0, 0]]),
        colour=row([[0, 0, 0]]),
        size=row([[size, 0, 0]]),
        cell=places,
        centre=middle,
        background=row([0]),
    )


def test_pixels() -> None:
    """A red disc in the middle of white: its area is πr², its colour and place are right."""
    image = s.render(one(shape=0))[0]
    assert image.shape == (3, s.SIDE, s.SIDE)
    assert image.dtype == torch.uint8
    red = (image == torch.tensor(s.COLOURS["red"]).view(3, 1, 1)).all(0)
    white = (image == torch.tensor(s.BACKGROUNDS["white"]).view(3, 1, 1)).all(0)
    assert (red | white).all()
    assert int(red.sum()) == pytest.approx(3.14159 * s.RADII[1] ** 2, rel=0.05)
    y, x = red.nonzero().float().mean(0)
    assert (float(x), float(y)) == (s.SIDE / 2 - 0.5, s.SIDE / 2 - 0.5)


def test_shapes_and_sizes_look_different() -> None:
    seen = {s.render(one(shape, size))[0].numpy().tobytes() for shape in range(4) for size in range(2)}
    assert len(seen) == 8


def test_sentences_use_the_words_and_are_short_enough() -> None:
    written = {word for item in TOLD for sentence in item for word in sentence}
    assert written == set(s.all_words())  # 1,500 sentences use all of them, and no other
    assert max(len(sentence) for item in TOLD for sentence in item) <= s.longest()
    assert all(len(item) == s.REFERENCES_EACH for item in TOLD)
    assert sum(len({" ".join(x) for x in item}) == 5 for item in TOLD) > 250  # people differ


def names(scene: int, object: int) -> set[str]:
    return set(s.SHAPES[int(SCENES.shape[scene, object])])


def test_what_is_told_is_there() -> None:
    """Every noun names an object of the scene; its colour and size, where told, are that object's."""
    colours = list(s.COLOURS)
    for i, item in enumerate(TOLD):
        objects = range(int(SCENES.count[i]))
        for sentence in item:
            for at, word in enumerate(sentence):
                if not any(word in kind for kind in s.SHAPES):
                    continue
                before = sentence[max(at - 2, 0) : at]
                colour = next((w for w in before if w in colours), None)
                sizes = [k for k, kind in enumerate(s.SIZES) for w in before if w in kind]
                assert any(
                    word in names(i, k)
                    and (colour is None or colours[int(SCENES.colour[i, k])] == colour)
                    and (not sizes or int(SCENES.size[i, k]) == sizes[0])
                    for k in objects
                ), (i, sentence)


def test_relations_are_true() -> None:
    """Of "A left of B" some A lies left of some B; and so for the other three."""
    checks: dict[tuple[str, ...], Callable[[int, int], bool]] = {
        ("left", "of"): lambda a, b: a % 3 < b % 3,
        ("right", "of"): lambda a, b: a % 3 > b % 3,
        ("above",): lambda a, b: a // 3 < b // 3,
        ("over",): lambda a, b: a // 3 < b // 3,
        ("below",): lambda a, b: a // 3 > b // 3,
        ("under",): lambda a, b: a // 3 > b // 3,
        ("beneath",): lambda a, b: a // 3 > b // 3,
    }
    seen = 0
    for i, item in enumerate(TOLD):
        for sentence in item:
            for phrase, holds in checks.items():
                for at in range(len(sentence)):
                    if tuple(sentence[at : at + len(phrase)]) != phrase:
                        continue
                    (one,) = [w for w in sentence[:at] if any(w in kind for kind in s.SHAPES)]
                    (two,) = [w for w in sentence[at:] if any(w in kind for kind in s.SHAPES)]
                    cells = [(names(i, k), int(SCENES.cell[i, k])) for k in range(int(SCENES.count[i]))]
                    pairs = [(a, b) for n, a in cells for m, b in cells if one in n and two in m and a != b]
                    assert any(holds(a, b) for a, b in pairs), (i, sentence)
                    seen += 1
    assert seen > 300


def test_thousands_a_second() -> None:
    start = time.process_time()
    scenes = s.draw(1000, seed=0)
    s.render(scenes)
    s.tell(scenes, seed=0)
    assert time.process_time() - start < 1
