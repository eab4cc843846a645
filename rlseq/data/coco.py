"""Captions of pictures from JSON: COCO's own annotations, and Karpathy's splits.

    captions_train2014.json  {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}
    dataset_coco.json        {"images": [{"filename", "split", "sentids", "sentences": [{"tokens"}]}]}

A picture is what has an id (COCO's; Karpathy's `cocoid`, or else `imgid`), a file and captions.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest
from os.path import isdir, isfile
from pathlib import Path, PurePath
from typing import Any

from rlseq.data import limits
from rlseq.data.images import FeatureFile, Features, ImageFiles, Name, check_image, stacked
from rlseq.metrics.treebank import penn_treebank
from rlseq.utils.arguments import Rule
from rlseq.utils.errors import hint, in_one_line, pick

Caption = tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """A picture with captions."""

    id: Name
    file: str
    captions: tuple[Caption, ...]
    split: str | None = None  # train, restval, val or test, where the file says so

    @property
    def names(self) -> tuple[Name, ...]:
        """The names that its features may have: its id, or its file with or without a suffix."""
        return self.id, self.file, Path(self.file).stem


@dataclass
class Bad:
    """Raises an error for bad data or, where they may be skipped, counts them by kind."""

    skip: bool = False
    skipped: Counter[str] = field(default_factory=Counter)

    def __call__(self, kind: str, message: str) -> None:
        """Raise an error with the message, or count one more of the kind."""
        if not self.skip:
            raise ValueError(f"{message}; skip_bad=True leaves out what is bad, and counts it")
        self.skipped[kind] += 1


def read_annotations(path: str | Path, bad: Bad) -> list[Picture]:
    """Return the pictures of an annotation file, in its order, each with at least one caption."""
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
        raise ValueError(f"{path}: {_WANTED}, got {_kind(content)} and images with {_keys(images[0])}")
    pictures = list(_checked(path, found, bad))
    if not pictures:
        raise ValueError(f"{path}: no picture with a caption is left; skipped: {dict(bad.skipped)}")
    return pictures


_WANTED = "wanted COCO captions (images and annotations) or Karpathy's splits (images with sentences)"


def _json(path: Path) -> Any:
    try:
        limits.check_size(str(path), path.stat().st_size, limits.JSON_BYTES)
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{path} is not there; {_WANTED}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: no JSON ({error.msg}); {_WANTED}") from None
    except OSError as error:  # a folder, or what may not be read
        raise ValueError(f"{path} cannot be read as a file ({error.strerror}); {_WANTED}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: no UTF-8 at byte {error.start}; {_WANTED}") from None
    except RecursionError:
        raise ValueError(f"{path}: lists or objects nested too deeply; {_WANTED}") from None
    except ValueError as error:  # a size beyond the limit, a name that no file can have, too many digits
        raise ValueError(
            str(error) if str(path) in str(error) else f"{path}: {in_one_line(error)}; {_WANTED}"
        ) from None


def _kind(content: Any) -> str:
    return f"an object with {_keys(content)}" if isinstance(content, dict) else f"a {type(content).__name__}"


def _keys(entry: Mapping[str, Any]) -> str:
    """List the first names of an entry."""
    more = ", …" if len(entry) > NAMES_LISTED else ""
    return f"[{', '.join(f'{name!r:.40}' for name in nsmallest(NAMES_LISTED, entry))}{more}]"


NAMES_LISTED = 8  # names that a message lists


def _plain(
    path: Path, images: Sequence[Mapping[str, Any]], notes: Sequence[Any], bad: Bad
) -> Iterator[Picture]:
    """Yield the pictures of COCO's own annotations."""
    wanted = {"id": IMAGE_ID, "file_name": TEXT}
    read = [_fields(f"{path}: images[{n}]", image, wanted, bad, IMAGES) for n, image in enumerate(images)]
    captions: dict[Name, list[Caption]] = {image["id"]: [] for image in images if IMAGE_ID.typed(image["id"])}
    for number, note in enumerate(notes):
        _caption(f"{path}: annotation {number}", note, captions, bad)
    for id, file in (fields for fields in read if fields is not None):
        yield Picture(id, file, tuple(captions[id]))


def _caption(where: str, note: Any, captions: Mapping[Name, list[Caption]], bad: Bad) -> None:
    """Put an annotation's caption among those of its image."""
    if not isinstance(note, dict) or not {"caption", "image_id"} <= set(note):
        raise ValueError(f"{where} has no caption or image_id; {_WANTED}")
    fields = _fields(where, note, {"image_id": IMAGE_ID, "caption": STRING}, bad, CAPTIONS)
    if fields is None:
        return
    id, text = fields
    if id not in captions:
        bad("annotations without an image", f"{where} is of image {id!r:.80}, which is not among images")
    elif words := tuple(penn_treebank(text)):
        captions[id].append(words)
    else:
        bad("empty captions", f"{where}, of image {id!r:.80}, is empty")


def _karpathy(path: Path, images: Sequence[Mapping[str, Any]], bad: Bad) -> Iterator[Picture]:
    """Yield the pictures of Karpathy's splits, whose captions are words already."""
    for n, image in enumerate(images):
        where = f"{path}: images[{n}]"
        wanted = {"cocoid" if "cocoid" in image else "imgid": IMAGE_ID, "filename": TEXT, "filepath": STRING}
        wanted |= {"split": STRING, "sentences": LIST}
        fields = _fields(where, {"filepath": "", **image}, wanted, bad, IMAGES)
        if fields is None:
            continue
        id, file, folder, split, sentences = fields
        if split not in _KARPATHY:
            said = f"{where}: unknown split {split!r:.80}{hint(split[:80], _KARPATHY)}"
            bad("images of an unknown split", said)
            continue
        captions = [_words(f"{where}: sentences[{k}]", sentence, bad) for k, sentence in enumerate(sentences)]
        yield Picture(id, str(Path(folder) / file), tuple(words for words in captions if words), split)


def _words(where: str, sentence: Any, bad: Bad) -> Caption:
    """Return the words of one of Karpathy's sentences; none where `bad` is told that it is bad."""
    fields = _fields(where, sentence, {"tokens": WORDS}, bad, CAPTIONS)
    if fields == [[]]:
        bad("empty captions", f"{where} is empty")
    return () if fields is None else tuple(fields[0])


IMAGE_ID = Rule("an integer or a text", lambda x: type(x) in (int, str) and x != "")
STRING = Rule("a text", lambda x: isinstance(x, str))
TEXT = Rule("a text, and not empty", lambda x: isinstance(x, str) and x != "")
LIST = Rule("a list", lambda x: isinstance(x, list))
WORDS = Rule('a list of words, such as ["a", "dog"]', lambda x: LIST.typed(x) and all(map(TEXT.typed, x)))
IMAGES, CAPTIONS = "images of wrong form", "captions of wrong form"


def _fields(where: str, entry: Any, wanted: Mapping[str, Rule], bad: Bad, kind: str) -> list[Any] | None:
    """Return the values of an entry, or None where one is not as wanted, which `bad` is told once.

    An entry without one of the names belongs to another kind of file, and is always refused.
    """
    for name in wanted:
        if not isinstance(entry, dict) or name not in entry:
            raise ValueError(f"{where} has no {name!r}: {entry!r:.80}; {_WANTED}")
    for name, rule in wanted.items():
        if not rule.typed(entry[name]):
            bad(kind, f"{where}: {name!r} must be {rule.wanted}, got {entry[name]!r:.80}")
            return None
    return [entry[name] for name in wanted]


def _checked(path: Path, pictures: Iterator[Picture], bad: Bad) -> Iterator[Picture]:
    """Yield the pictures that have a caption and are given for the first time."""
    seen = set()
    for picture in pictures:
        if picture.id in seen:
            bad("images given twice", f"{path}: image {picture.id!r:.80} is given twice")
        elif not picture.captions:
            bad("images without a caption", f"{path}: image {picture.id!r:.80} has no caption")
        else:
            seen.add(picture.id)
            yield picture


# ── splits ───────────────────────────────────────────────────────────────────────────────────────────

_HELD_OUT = {19: "dev", 17: "test", 18: "test"}  # of every twenty, where the file has no splits
_KARPATHY = {"train": "train", "restval": "train", "val": "dev", "test": "test"}


def of_split(pictures: Sequence[Picture], split: str) -> list[Picture]:
    """Select "train", "dev", "test" or "all": as the file says (restval trains), or by number.

    Where the file has no splits, pictures are numbered in its order: n mod 20 = 19 is dev, 17 and 18 test.
    """
    pick(dict.fromkeys((*_KARPATHY.values(), "all")), split, "split")
    parts = [
        _HELD_OUT.get(n % 20, "train") if picture.split is None else _KARPATHY[picture.split]
        for n, picture in enumerate(pictures)
    ]
    return [picture for picture, part in zip(pictures, parts, strict=True) if split in (part, "all")]


# ── their pictures ───────────────────────────────────────────────────────────────────────────────────


def with_images(
    pictures: Sequence[Picture], folder: str | Path, side: int, bad: Bad
) -> tuple[list[Picture], ImageFiles]:
    """Return the pictures whose files are in a folder, and the files."""
    kept: dict[Picture, Path] = {}
    if not isdir(folder):
        raise FileNotFoundError(
            f"images={str(folder)!r} is no folder; wanted the one that {pictures[0].file!r:.80} is in"
        )
    inside = Path(folder).resolve()
    for picture in pictures:
        name = PurePath(picture.file)
        places = [Path(folder) / name, Path(folder) / name.name]
        file = next((place for place in places if isfile(place)), None)
        if name.is_absolute() or ".." in name.parts or (file and not file.resolve().is_relative_to(inside)):
            said = f"image {picture.id!r:.80} has the file {picture.file!r:.80}"
            bad("images outside their folder", f"{said}, which is not in images={str(folder)!r}")
        elif file is None:
            said = f"{folder} has no file {picture.file!r:.80}"
            bad("missing images", f"{said}, of image {picture.id!r:.80}")
        else:
            try:
                check_image(file)
                kept[picture] = file
            except ValueError as error:
                bad("images that cannot be read", str(error))
    return _some(list(kept), pictures, f"folder {folder}", bad), ImageFiles(list(kept.values()), side)


def with_features(pictures: Sequence[Picture], path: str | Path, bad: Bad) -> tuple[list[Picture], Features]:
    """Return the pictures that a file has features of, and the features."""
    with FeatureFile(Path(path)) as file:
        found = {picture: file.find(picture.names) for picture in pictures}
        there = {picture: name for picture, name in found.items() if name is not None}
        without = f"{path} has no features of {len(found) - len(there)} of {len(found)} images, such as"
        first = ", ".join(f"{name!r:.40}" for name in nsmallest(3, file.names))
        some = f"it has {len(file.names)} entries, such as {first}"
        for picture in (p for p in found if p not in there):
            bad("missing features", f"{without} {picture.id!r:.80}; {some}: are they of another image set?")
        right = file.right(there.values(), bad)
    kept = _some([picture for picture, name in there.items() if name in right], pictures, str(path), bad)
    return kept, stacked([right[there[picture]] for picture in kept], Path(path))


def _some(kept: list[Picture], pictures: Sequence[Picture], where: str, bad: Bad) -> list[Picture]:
    if not kept:
        raise ValueError(
            f"{where} has none of the {len(pictures)} images, such as {pictures[0].id!r:.80}, as they must "
            f"be; skipped: {dict(bad.skipped)}"
        )
    return kept
