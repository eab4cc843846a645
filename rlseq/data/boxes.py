"""Scenes of overlapping objects with noisy candidate boxes: drawn and rendered, or read from a file.

A box is (x₁, y₁, x₂, y₂) in shares of the picture's width and height.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlseq.data.encode import Problems, refuse_problems, warn_of_skipped
from rlseq.data.formats import Problem, lines

PIXELS = 36  # pixels of a rendered picture
EACH = 3  # candidates of an object
COLOURED = torch.tensor(
    [[220, 40, 40], [50, 170, 60], [50, 80, 220], [235, 215, 50], [150, 60, 180], [245, 140, 30]]
)
BACKGROUND = 128.0
PIXEL_NOISE, SCORE_NOISE = 20.0, 0.15
JITTER = torch.tensor([0.07, 0.12, 0.25])  # of an object's candidates, in shares of its size


@dataclass(frozen=True, eq=False)
class BoxScenes:
    """S scenes of at most M objects and N candidates, the surest candidates first; absent boxes are all 0."""

    objects: Tensor  # [S, M, 4]
    candidates: Tensor  # [S, N, 5 + A]: box, score, and what was seen inside
    pictures: Tensor | None = None  # [S, 3, PIXELS, PIXELS], bytes

    def __len__(self) -> int:
        return len(self.objects)

    @property
    def overlap(self) -> Tensor:
        """The overlap of every candidate with every object, `[S, N, M]`."""
        return iou(self.candidates[..., :4], self.objects)

    def take(self, rows: Tensor) -> BoxScenes:
        """Return some of the scenes."""
        pictures = None if self.pictures is None else self.pictures[rows]
        return replace(self, objects=self.objects[rows], candidates=self.candidates[rows], pictures=pictures)


def iou(some: Tensor, others: Tensor) -> Tensor:
    """Return intersection over union of boxes `[S, N, 4]` and `[S, M, 4]`, as `[S, N, M]`."""
    a, b = some.unsqueeze(2), others.unsqueeze(1)
    sides = torch.minimum(a[..., 2:4], b[..., 2:4]) - torch.maximum(a[..., :2], b[..., :2])
    both = sides.clamp(min=0).prod(-1)
    areas = [(boxes[..., 2:4] - boxes[..., :2]).prod(-1) for boxes in (a, b)]
    return both / (areas[0] + areas[1] - both).clamp(min=1e-9)


# ── scenes at random ─────────────────────────────────────────────────────────────────────────────────


def draw_boxes(scenes: int, objects: int, seed: int) -> BoxScenes:
    """Draw scenes of two to M objects, most of which lie partly behind another one."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(scenes, *shape, generator=generator)

    size = uniform(0.2, 0.4, objects, 2)
    centre = uniform(0.2, 0.8, objects, 2)
    near, shift = uniform(0, 1, objects, 1) < 0.7, uniform(-0.7, 0.7, objects, 2)
    for m in range(1, objects):  # beside the object before it
        beside = centre[:, m - 1] + shift[:, m] * size[:, m - 1]
        centre[:, m] = torch.where(near[:, m], beside.clamp(0.15, 0.85), centre[:, m])
    there = torch.arange(objects) < (2 + uniform(0, objects - 1)).long().unsqueeze(1)
    found = torch.cat([centre - size / 2, centre + size / 2], 2).clamp(0, 1) * there.unsqueeze(2)
    colour = (uniform(0, len(COLOURED), objects)).long()
    pictures = render_boxes(found, colour, generator)
    candidates = _candidates(found, there, pictures, generator)
    return BoxScenes(found, candidates, pictures.round().to(torch.uint8))


def render_boxes(objects: Tensor, colour: Tensor, generator: torch.Generator) -> Tensor:
    """Paint objects one over the other, with noise: floats 0 … 255, `[S, 3, PIXELS, PIXELS]`."""
    pictures = torch.full((len(objects), 3, PIXELS, PIXELS), BACKGROUND)
    place = (torch.arange(PIXELS) + 0.5) / PIXELS
    for box, shade in zip(objects.unbind(1), COLOURED[colour].unbind(1), strict=True):
        across = (place >= box[:, :1]) & (place < box[:, 2:3])
        down = (place >= box[:, 1:2]) & (place < box[:, 3:])
        inside = (down.unsqueeze(2) & across.unsqueeze(1)).unsqueeze(1)
        pictures = torch.where(inside, shade.float()[:, :, None, None], pictures)
    noise = PIXEL_NOISE * torch.randn(pictures.shape, generator=generator)
    return (pictures + noise).clamp(0, 255)


def _candidates(objects: Tensor, there: Tensor, pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Return candidates, the surest first; those of objects that are not there are anywhere."""
    scenes, number = there.shape
    shape = scenes, number, EACH, 4
    noise, anywhere = torch.randn(shape, generator=generator), torch.rand(shape, generator=generator)
    corner, extent = 0.75 * anywhere[..., :2], 0.1 + 0.3 * anywhere[..., 2:]
    size = (objects[..., 2:] - objects[..., :2]).repeat(1, 1, 2).unsqueeze(2)
    near = objects.unsqueeze(2) + noise * size * JITTER[:, None]
    boxes = torch.where(there[..., None, None], near, torch.cat([corner, corner + extent], 3))
    boxes = boxes.flatten(1, 2).clamp(0, 1)
    low, high = torch.minimum(boxes[..., :2], boxes[..., 2:]), torch.maximum(boxes[..., :2], boxes[..., 2:])
    boxes = torch.cat([low, torch.maximum(high, low + 0.02)], 2)
    wobble = SCORE_NOISE * torch.randn(boxes.shape[:2], generator=generator)
    score = (0.25 + 0.6 * iou(boxes, objects).amax(2) + wobble).clamp(0.01, 0.99)
    order = score.argsort(1, descending=True)
    found = torch.cat([boxes, score.unsqueeze(2), seen_inside(pictures, boxes)], 2)
    return found.gather(1, order.unsqueeze(2).expand_as(found))


def seen_inside(pictures: Tensor, boxes: Tensor) -> Tensor:
    """Return the mean colour, 0 … 1, of nine pixels around the middle of boxes: `[S, N, 3]`."""
    share = torch.tensor([0.35, 0.5, 0.65])
    x = boxes[..., :1] + share * (boxes[..., 2:3] - boxes[..., :1])
    y = boxes[..., 1:2] + share * (boxes[..., 3:4] - boxes[..., 1:2])
    column, row = ((p * PIXELS).long().clamp(0, PIXELS - 1) for p in (x, y))
    place = (row.unsqueeze(3) * PIXELS + column.unsqueeze(2)).flatten(1)  # [S, 9N]
    flat = pictures.flatten(2)  # [S, 3, PIXELS²]
    seen = flat.gather(2, place.unsqueeze(1).expand(-1, 3, -1)).reshape(*flat.shape[:2], -1, 9)
    return seen.mean(3).transpose(1, 2) / 255


# ── rules to compare with ────────────────────────────────────────────────────────────────────────────

Decay = Callable[[Tensor], Tensor]  # overlap with a chosen box -> by what a score is multiplied


def greedy_nms(threshold: float) -> Decay:
    """Drop candidates that overlap a chosen one by more than the threshold."""
    return lambda overlap: (overlap <= threshold).float()


def soft_nms(sigma: float) -> Decay:
    """Lower the scores of candidates that overlap a chosen one: exp(−overlap² / σ) (Bodla et al. 2017)."""
    return lambda overlap: (-(overlap**2) / sigma).exp()


def suppress(candidates: Tensor, decay: Decay, least: float) -> Tensor:
    """Choose candidates by score, while one has the least score: their places, then −1, `[S, N]`."""
    scores, overlap = candidates[..., 4].clone(), iou(candidates[..., :4], candidates[..., :4])
    rows, chosen = torch.arange(len(scores)), []
    for _ in range(scores.shape[1]):
        score, best = scores.max(1)
        chosen.append(best.where(score >= least, -1))
        scores = scores * decay(overlap[rows, best])
        scores[rows, best] = -1.0
    return torch.stack(chosen, 1)


# ── a file of boxes ──────────────────────────────────────────────────────────────────────────────────


def read_boxes(path: Path, skip_bad: bool = False) -> BoxScenes:
    """Read a picture a line: `{"size": [w, h], "objects": [[x1, y1, x2, y2], …], "candidates": [… score]}`.

    Candidates have their score after the box, and then any numbers that tell of what is inside, as many
    everywhere. Pixels become shares of the size.
    """
    found: list[tuple[Tensor, Tensor]] = []
    problems, width = Problems(), 0
    for number, line in lines(path):
        entry = line if isinstance(line, Problem) else _entry(line, width)
        if isinstance(entry, tuple):
            found.append(entry)
            width = entry[1].shape[1]
        else:
            problems.add(entry if isinstance(entry, Problem) else Problem(path, number, entry))
    refuse_problems(problems, skip_bad)
    warn_of_skipped(problems.count, problems.first)
    if not found:
        raise ValueError(f"{path}: expected pictures with boxes, got none")
    stacked = [torch.nn.utils.rnn.pad_sequence(list(part), True) for part in zip(*found, strict=True)]
    return BoxScenes(*stacked)


def _entry(line: str, width: int) -> tuple[Tensor, Tensor] | str:
    """Return objects and candidates of a line, or what is wrong with it."""
    try:
        entry: Any = json.loads(line)
        size = torch.tensor(entry["size"] * 2, dtype=torch.float32)
        objects = torch.tensor(entry["objects"], dtype=torch.float32)
        candidates = torch.tensor(entry["candidates"], dtype=torch.float32)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        return f"expected size, objects and candidates, lists of numbers, got {line!r:.60} ({error!s:.60})"
    if size.shape != (4,) or objects.ndim != 2 or objects.shape[1] != 4:
        return f"expected a size [w, h], and objects of 4 numbers each, at least one: {line!r:.60}"
    if candidates.ndim != 2 or candidates.shape[1] < 5 or (width and candidates.shape[1] != width):
        return f"expected candidates of {width or 'at least 5'} numbers, got {list(candidates.shape)}"
    for name, boxes in (("object", objects), ("candidate", candidates[:, :4])):
        inside = (boxes >= 0) & (boxes <= size) & (boxes[:, 2:] > boxes[:, :2]).repeat(1, 2)
        if not inside.all():
            which = int((~inside.all(1)).nonzero()[0])
            wanted = f"expected {name} boxes [x1, y1, x2, y2] inside the picture of {entry['size']}"
            return f"{wanted}, got {boxes[which].tolist()} for number {which + 1}"
    if not candidates.isfinite().all():
        return "expected candidates of finite numbers"
    candidates = torch.cat([candidates[:, :4] / size, candidates[:, 4:]], 1)
    order = candidates[:, 4].argsort(descending=True, stable=True)
    return objects / size, candidates[order]
