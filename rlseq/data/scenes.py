"""Scenes of coloured shapes: drawn at random, rendered as small images, told by a small grammar.

Five people who see one scene do not say the same. A sentence tells of one object and its place, of two and
how they lie, or of all; the large ones are told of first, most of the time; sizes, colours and the background
may be left out; and most things have more than one name. So references differ, and yet agree on a good deal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

SIDE = 36  # pixels; the least that stable-baselines3 takes for an image
GRID = 3  # cells a side; no two objects share one
OBJECTS = 3  # at most; and at least two
REFERENCES_EACH = 5  # sentences a scene

COLOURS = {
    "red": (220, 40, 40),
    "green": (50, 170, 60),
    "blue": (50, 80, 220),
    "yellow": (235, 215, 50),
    "purple": (150, 60, 180),
    "orange": (245, 140, 30),
}

BACKGROUNDS = {"white": (250, 250, 250), "grey": (128, 128, 128), "black": (10, 10, 10)}
SHAPES = (("circle", "disc"), ("square", "box"), ("triangle",), ("cross", "plus"))  # each by its names
SIZES = (("small", "little", "tiny"), ("large", "big"))
RADII = (2.9, 5.2)  # of small and large ones, in pixels
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "middle", "right")

SIDEWAYS = {
    1: (("left", "of"), ("to", "the", "left", "of")),
    -1: (("right", "of"), ("to", "the", "right", "of")),
}

UPWARDS = {1: (("above",), ("over",)), -1: (("below",), ("under",), ("beneath",))}
BESIDE = (("next", "to"), ("beside",))
OPENINGS = (("there", "is"), ("we", "see"))


@dataclass(frozen=True, eq=False)
class Scenes:
    """N scenes of up to K objects; an object that is not there comes after those that are."""

    count: Tensor  # [N] objects of a scene
    shape: Tensor  # [N, K] of SHAPES
    colour: Tensor  # [N, K] of COLOURS
    size: Tensor  # [N, K] of SIZES
    cell: Tensor  # [N, K] row · GRID + column
    centre: Tensor  # [N, K, 2] x and y, in pixels
    background: Tensor  # [N] of BACKGROUNDS

    def __len__(self) -> int:
        return len(self.count)


def draw(scenes: int, seed: int) -> Scenes:
    """Scenes at random; the first n are the same, however many follow."""
    places = GRID * GRID
    random = torch.rand(scenes, 2 + OBJECTS * 5 + places, generator=torch.Generator().manual_seed(seed))
    alone, each, order = random[:, :2], random[:, 2 : 2 + OBJECTS * 5], random[:, 2 + OBJECTS * 5 :]
    shape, colour, size, right, down = each.view(scenes, 5, OBJECTS).unbind(1)
    cell = order.argsort(1)[:, :OBJECTS]
    middle = (torch.stack([cell % GRID, cell // GRID], 2) + 0.5) * SIDE / GRID
    return Scenes(
        count=2 + (alone[:, 0] * (OBJECTS - 1)).long(),
        shape=(shape * len(SHAPES)).long(),
        colour=(colour * len(COLOURS)).long(),
        size=(size * len(SIZES)).long(),
        cell=cell,
        centre=middle + torch.stack([right, down], 2) - 0.5,
        background=(alone[:, 1] * len(BACKGROUNDS)).long(),
    )


def render(scenes: Scenes) -> Tensor:
    """Images, uint8 `[N, 3, SIDE, SIDE]`."""
    colours, grounds = (torch.tensor(list(c.values()), dtype=torch.uint8) for c in (COLOURS, BACKGROUNDS))
    pixel = torch.arange(SIDE) + 0.5
    image = grounds[scenes.background][:, :, None, None].repeat(1, 1, SIDE, SIDE)
    for k in range(OBJECTS):
        radius = torch.tensor(RADII)[scenes.size[:, k], None, None]
        x, y = (scenes.centre[:, k, axis, None, None] for axis in (0, 1))
        covered = _covered((pixel - x) / radius, (pixel[:, None] - y) / radius, scenes.shape[:, k])
        covered &= (k < scenes.count)[:, None, None]
        image = torch.where(covered[:, None], colours[scenes.colour[:, k]][:, :, None, None], image)
    return image


def _covered(x: Tensor, y: Tensor, shape: Tensor) -> Tensor:
    """Return the pixels that an object covers, bool `[N, SIDE, SIDE]`; x, y are from its centre, in radii."""
    across, along = x.abs(), y.abs()
    kinds = (
        x * x + y * y <= 1,
        torch.maximum(across, along) <= 0.85,
        (across <= 0.6 * (y + 1)) & (y <= 0.8),
        ((across <= 0.33) & (along <= 1)) | ((along <= 0.33) & (across <= 1)),
    )
    covered = torch.zeros_like(kinds[0])
    for kind, pixels in enumerate(kinds):
        covered |= pixels & (shape == kind)[:, None, None]
    return covered


def tell(scenes: Scenes, seed: int, references: int = REFERENCES_EACH) -> list[list[list[str]]]:
    """Sentences of every scene, as words; the first scenes are told alike, however many follow."""
    columns = (scenes.shape, scenes.colour, scenes.size, scenes.cell)
    objects = torch.stack(columns, 2).tolist()
    random = Random(seed)
    colours, grounds = list(COLOURS), list(BACKGROUNDS)
    told = []
    for things, count, ground in zip(objects, scenes.count.tolist(), scenes.background.tolist(), strict=True):
        seen = [_Object(shape, colours[c], size, cell) for shape, c, size, cell in things[:count]]
        told.append([_sentence(random, seen, grounds[ground]) for _ in range(references)])
    return told


@dataclass(frozen=True)
class _Object:
    shape: int
    colour: str
    size: int
    cell: int


def all_words() -> list[str]:
    """Every word that the grammar can write."""
    relations = (*SIDEWAYS.values(), *UPWARDS.values())
    phrases = [*BESIDE, *OPENINGS, *(phrase for relation in relations for phrase in relation)]
    names = [*COLOURS, *BACKGROUNDS, *ROWS, *COLUMNS, *(name for kind in (*SHAPES, *SIZES) for name in kind)]
    glue = ["a", "an", "and", "at", "background", "in", "on", "the"]
    return sorted({*glue, *names, *(word for phrase in phrases for word in phrase)})


def longest() -> int:
    """Words of the longest sentence: an opening, two objects with all they have, a relation, a background."""
    return 2 + 4 + 4 + 4 + 4


def _sentence(random: Random, seen: Sequence[_Object], ground: str) -> list[str]:
    """Return a sentence that somebody may say about a scene."""
    told = sorted(seen, key=lambda thing: random.random() * (3 if thing.size else 1), reverse=True)
    kind = random.random()
    if kind < 0.6:
        body = [*_noun(random, told[0]), *_relation(random, told[0], told[1]), *_noun(random, told[1])]
    elif kind < 0.8:
        body = [*_noun(random, told[0]), *_place(random, told[0])]
    else:
        body = _noun(random, told[0])
        for thing in told[1:]:
            body += ["and", *_noun(random, thing)]
        return body
    if random.random() < 0.3:
        body = [*random.choice(OPENINGS), *body]
    if random.random() < 0.3:
        body += ["on", "a", ground, "background"]
    return body


def _noun(random: Random, thing: _Object) -> list[str]:
    words = [random.choice(SHAPES[thing.shape])]
    if random.random() < 0.85:
        words.insert(0, thing.colour)
    if random.random() < 0.5:
        words.insert(0, random.choice(SIZES[thing.size]))
    return ["an" if words[0] == "orange" else "a", *words]


def _relation(random: Random, one: _Object, other: _Object) -> Sequence[str]:
    """Return the relation of two objects along the axis on which they are further apart, or along either."""
    down, right = (b - a for a, b in zip(divmod(one.cell, GRID), divmod(other.cell, GRID), strict=True))
    if abs(down) + abs(right) == 1 and random.random() < 0.25:
        return random.choice(BESIDE)
    sideways = abs(right) > abs(down) or (abs(right) == abs(down) and random.random() < 0.5)
    if sideways:
        return random.choice(SIDEWAYS[1 if right > 0 else -1])
    return random.choice(UPWARDS[1 if down > 0 else -1])


def _place(random: Random, thing: _Object) -> Sequence[str]:
    """Return the words for the place of an object in the image."""
    row, column = ROWS[thing.cell // GRID], COLUMNS[thing.cell % GRID]
    if row == column == "middle":
        return "in", "the", "middle"
    if column == "middle":
        return "at", "the", row
    if row == "middle":
        return "on", "the", column
    return random.choice(("in", "at")), "the", row, column
