"""Captions of pictures from JSON: COCO's own annotations, and Karpathy's splits.

    captions_train2014.json  {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}
    dataset_coco.json        {"images": [{"filename", "split", "sentids", "sentences": [{"tokens"}]}]}

A picture is what has an id (COCO's; Karpathy's `cocoid`, or else `imgid`), a file and captions.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlseq.errors import pick
from rlseq.metrics.tokenize import penn_treebank
from rlseq.pictures import FeatureFile, Features, ImageFiles, Name, check_image, stacked

Words = tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """A picture with captions."""

    id: Name
    file: str
    captions: tuple[Words, ...]
    split: str | None = None  # train, restval, val or test, where the file says so

    @property
    def names(self) -> tuple[Name, ...]:
        """What its features may be called: its id, or its file with or without an ending."""
        return self.id, self.file, Path(self.file).stem


@dataclass
class Bad:
    """What is wrong with data, by kind: an error at once, or, where it may be skipped, a count."""

    skip: bool = False
    skipped: Counter[str] = field(default_factory=Counter)

    def __call__(self, kind: str, message: str) -> None:
        """Refuse it, or count it."""
        if not self.skip:
            raise ValueError(f"{message}; skip_bad=True leaves out what is bad, and counts it")
        self.skipped[kind] += 1


def read(path: str | Path, bad: Bad) -> list[Picture]:
    """The pictures of an annotation file, in its order, each with at least one caption."""
    path = Path(path)
    content = _json(path)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list) or not images or not all(isinstance(image, dict) for image in images):
        raise ValueError(f"{path}: {_WANTED}, got {_kind(content)}")
    if isinstance(content.get("annotations"), list):
        found = _plain(path, images, content["annotations"], bad)
    elif "sentences" in images[0]:
        found = _karpathy(path, images, bad)
    else:
        raise ValueError(f"{path}: {_WANTED}, got {_kind(content)} and images with {sorted(images[0])}")
    pictures = list(_checked(path, found, bad))
    if not pictures:
        raise ValueError(f"{path}: no picture with a caption is left; skipped: {dict(bad.skipped)}")
    return pictures


_WANTED = "wanted COCO captions (images and annotations) or Karpathy's splits (images with sentences)"


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is not there; {_WANTED}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: no JSON ({error.msg}); {_WANTED}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: no UTF-8 at byte {error.start}; {_WANTED}") from None


def _kind(content: Any) -> str:
    return f"an object with {sorted(content)}" if isinstance(content, dict) else f"a {type(content).__name__}"


def _plain(
    path: Path, images: Sequence[Mapping[str, Any]], notes: Sequence[Any], bad: Bad
) -> Iterator[Picture]:
    """COCO's own annotations."""
    captions: dict[Any, list[Words]] = {_of(path, image, "id"): [] for image in images}
    for number, note in enumerate(notes):
        text = note.get("caption") if isinstance(note, dict) else None
        if not isinstance(text, str) or "image_id" not in note:
            raise ValueError(f"{path}: annotation {number} has no caption or image_id; {_WANTED}")
        if note["image_id"] not in captions:
            message = (
                f"{path}: annotation {number} is of image {note['image_id']!r}, which is not among images"
            )
            bad("annotations without an image", message)
        elif words := tuple(penn_treebank(text)):
            captions[note["image_id"]].append(words)
        else:
            bad("empty captions", f"{path}: annotation {number}, of image {note['image_id']!r}, is empty")
    for image in images:
        yield Picture(image["id"], _of(path, image, "file_name"), tuple(captions[image["id"]]))


def _karpathy(path: Path, images: Sequence[Mapping[str, Any]], bad: Bad) -> Iterator[Picture]:
    """Karpathy's splits, whose captions are words already."""
    for image in images:
        id = image["cocoid"] if "cocoid" in image else _of(path, image, "imgid")
        captions = []
        for sentence in _of(path, image, "sentences"):
            if words := tuple(_of(path, sentence, "tokens")):
                captions.append(words)
            else:
                bad("empty captions", f"{path}: a caption of image {id!r} is empty")
        file = str(Path(image.get("filepath", "")) / _of(path, image, "filename"))
        yield Picture(id, file, tuple(captions), _of(path, image, "split"))


def _of(path: Path, entry: Any, name: str) -> Any:
    if not isinstance(entry, dict) or name not in entry:
        raise ValueError(f"{path}: an entry has no {name!r}: {entry!r:.80}; {_WANTED}")
    return entry[name]


def _checked(path: Path, pictures: Iterator[Picture], bad: Bad) -> Iterator[Picture]:
    seen = set()
    for picture in pictures:
        if picture.id in seen:
            bad("images given twice", f"{path}: image {picture.id!r} is given twice")
        elif not picture.captions:
            bad("images without a caption", f"{path}: image {picture.id!r} has no caption")
        else:
            seen.add(picture.id)
            yield picture


# ── splits ───────────────────────────────────────────────────────────────────────────────────────────

_HELD_OUT = {19: "dev", 17: "test", 18: "test"}  # of every twenty, where the file has no splits
_KARPATHY = {"train": "train", "restval": "train", "val": "dev", "test": "test"}
SPLITS: dict[str, Callable[[str], bool]] = {
    "train": lambda part: part == "train",
    "dev": lambda part: part == "dev",
    "test": lambda part: part == "test",
    "all": lambda part: True,
}


def of_split(pictures: Sequence[Picture], split: str) -> list[Picture]:
    """Those of "train", "dev", "test" or "all": as the file says (restval trains), or by number.

    Where the file has no splits, pictures are numbered in its order: n mod 20 = 19 is dev, 17 and 18 test.
    """
    wanted = pick(SPLITS, split, "split")
    parts = [
        _HELD_OUT.get(n % 20, "train") if picture.split is None else pick(_KARPATHY, picture.split, "split")
        for n, picture in enumerate(pictures)
    ]
    return [picture for picture, part in zip(pictures, parts, strict=True) if wanted(part)]


# ── their pictures ───────────────────────────────────────────────────────────────────────────────────


def with_images(
    pictures: Sequence[Picture], folder: str | Path, side: int, bad: Bad
) -> tuple[list[Picture], ImageFiles]:
    """The pictures whose files are in a folder, and the files."""
    kept, files = [], []
    if not Path(folder).is_dir():
        raise FileNotFoundError(
            f"images={str(folder)!r} is no folder; wanted the one that {pictures[0].file} is in"
        )
    for picture in pictures:
        places = (Path(folder) / picture.file, Path(folder) / Path(picture.file).name)
        file = next((place for place in places if place.is_file()), None)
        if file is None:
            bad("missing images", f"{places[0]} is not there, the file of image {picture.id!r}")
            continue
        try:
            check_image(file)
        except ValueError as error:
            bad("images that cannot be read", str(error))
            continue
        kept.append(picture)
        files.append(file)
    return _some(kept, pictures, f"folder {folder}", bad), ImageFiles(files, side)


def with_features(pictures: Sequence[Picture], path: str | Path, bad: Bad) -> tuple[list[Picture], Features]:
    """The pictures that a file has features of, and the features."""
    with FeatureFile(Path(path)) as file:
        found = {picture: file.find(picture.names) for picture in pictures}
        there = {picture: name for picture, name in found.items() if name is not None}
        for picture in (p for p in found if p not in there):
            bad(
                "missing features",
                f"{path} has no features of {len(found) - len(there)} of {len(found)} images, such as "
                f"{picture.id!r}; it has {len(file.names)} entries, such as "
                f"{', '.join(sorted(file.names)[:3])}: are they of another image set?",
            )
        right = file.right(there.values(), bad)
    kept = _some([picture for picture, name in there.items() if name in right], pictures, str(path), bad)
    return kept, stacked(right[there[picture]] for picture in kept)


def _some(kept: list[Picture], pictures: Sequence[Picture], where: str, bad: Bad) -> list[Picture]:
    if not kept:
        raise ValueError(
            f"{where} has none of the {len(pictures)} images, such as {pictures[0].id!r}, as they must be; "
            f"skipped: {dict(bad.skipped)}"
        )
    return kept
