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
from heapq import nsmallest
from os.path import isdir, isfile
from pathlib import Path, PurePath
from typing import Any

from rlseq.data import limits
from rlseq.data.images import FeatureFile, Features, ImageFiles, Name, check_image, stacked
from rlseq.metrics.treebank import penn_treebank
from rlseq.utils.errors import hint, pick, told

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
        raise ValueError(f"{path}: {_WANTED}, got {_kind(content)} and images with {_keys(images[0])}")
    pictures = list(_checked(path, found, bad))
    if not pictures:
        raise ValueError(f"{path}: no picture with a caption is left; skipped: {dict(bad.skipped)}")
    return pictures


_WANTED = "wanted COCO captions (images and annotations) or Karpathy's splits (images with sentences)"


def _json(path: Path) -> Any:
    try:
        limits.check(str(path), path.stat().st_size, limits.JSON_BYTES)
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
            str(error) if str(path) in str(error) else f"{path}: {told(error)}; {_WANTED}"
        ) from None


def _kind(content: Any) -> str:
    return f"an object with {_keys(content)}" if isinstance(content, dict) else f"a {type(content).__name__}"


def _keys(entry: Mapping[str, Any]) -> str:
    """The first names of an entry."""
    more = ", …" if len(entry) > SHOWN else ""
    return f"[{', '.join(f'{name!r:.40}' for name in nsmallest(SHOWN, entry))}{more}]"


SHOWN = 8  # names that a message lists


def _plain(
    path: Path, images: Sequence[Mapping[str, Any]], notes: Sequence[Any], bad: Bad
) -> Iterator[Picture]:
    """COCO's own annotations."""
    entry = Entry(bad, "images of wrong form")
    ids = [entry(f"{path}: images[{n}]", image, "id", NAME) for n, image in enumerate(images)]
    captions: dict[Name, list[Words]] = {id: [] for id in ids if id is not None}
    for number, note in enumerate(notes):
        _caption(f"{path}: annotation {number}", note, captions, bad)
    for n, (id, image) in enumerate(zip(ids, images, strict=True)):
        if id is not None:
            file = entry(f"{path}: images[{n}]", image, "file_name", TEXT)
            if file is not None:
                yield Picture(id, file, tuple(captions[id]))


def _caption(where: str, note: Any, captions: Mapping[Name, list[Words]], bad: Bad) -> None:
    """Put an annotation's caption among those of its image."""
    if not isinstance(note, dict) or not {"caption", "image_id"} <= set(note):
        raise ValueError(f"{where} has no caption or image_id; {_WANTED}")
    entry = Entry(bad, "captions of wrong form")
    id = entry(where, note, "image_id", NAME)
    text = None if id is None else entry(where, note, "caption", STRING)
    if id is None or text is None:
        return
    if id not in captions:
        bad("annotations without an image", f"{where} is of image {id!r:.80}, which is not among images")
    elif words := tuple(penn_treebank(text)):
        captions[id].append(words)
    else:
        bad("empty captions", f"{where}, of image {id!r:.80}, is empty")


def _karpathy(path: Path, images: Sequence[Mapping[str, Any]], bad: Bad) -> Iterator[Picture]:
    """Karpathy's splits, whose captions are words already."""
    entry = Entry(bad, "images of wrong form")
    for n, image in enumerate(images):
        where = f"{path}: images[{n}]"
        image = {"filepath": "", **image}
        names = {"cocoid" if "cocoid" in image else "imgid": NAME, "filename": TEXT, "filepath": STRING}
        read = entry.all(where, image, {**names, "split": STRING, "sentences": LIST})
        if read is None:
            continue
        id, file, folder, split, sentences = read
        if split not in _KARPATHY:
            bad(
                "images of an unknown split",
                f"{where}: unknown split {split!r:.80}{hint(split[:80], _KARPATHY)}",
            )
            continue
        captions = [_words(f"{where}: sentences[{k}]", sentence, bad) for k, sentence in enumerate(sentences)]
        yield Picture(id, str(Path(folder) / file), tuple(words for words in captions if words), split)


def _words(where: str, sentence: Any, bad: Bad) -> Words | None:
    """The words of one of Karpathy's sentences."""
    tokens = Entry(bad, "captions of wrong form")(where, sentence, "tokens", WORDS)
    if tokens == []:
        bad("empty captions", f"{where} is empty")
    return None if tokens is None else tuple(tokens)


# ── what entries hold ────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Form:
    """What a value must be."""

    wanted: str
    fits: Callable[[Any], bool]


NAME = Form(
    "an integer or a text", lambda x: isinstance(x, (int, str)) and not isinstance(x, bool) and x != ""
)


STRING = Form("a text", lambda x: isinstance(x, str))


TEXT = Form("a text, and not empty", lambda x: isinstance(x, str) and x != "")


LIST = Form("a list", lambda x: isinstance(x, list))


WORDS = Form(
    'a list of words, such as ["a", "dog"]', lambda x: isinstance(x, list) and all(map(TEXT.fits, x))
)


@dataclass(frozen=True)
class Entry:
    """Reads values of entries; of one that is not as it must be `bad` is told, under one kind."""

    bad: Bad
    kind: str

    def __call__(self, where: str, entry: Any, name: str, form: Form) -> Any:
        """A value, or None; an entry without that name is of another kind of file, and always refused."""
        if not isinstance(entry, dict) or name not in entry:
            raise ValueError(f"{where} has no {name!r}: {entry!r:.80}; {_WANTED}")
        if form.fits(entry[name]):
            return entry[name]
        self.bad(self.kind, f"{where}: {name!r} must be {form.wanted}, got {entry[name]!r:.80}")
        return None

    def all(self, where: str, entry: Any, forms: Mapping[str, Form]) -> list[Any] | None:
        """Several values, or None at the first that is wrong, so that an entry counts once."""
        values = []
        for name, form in forms.items():
            value = self(where, entry, name, form)
            if value is None:
                return None
            values.append(value)
        return values


def _checked(path: Path, pictures: Iterator[Picture], bad: Bad) -> Iterator[Picture]:
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
            continue
        if file is None:
            said = f"{folder} has no file {picture.file!r:.80}"
            bad("missing images", f"{said}, of image {picture.id!r:.80}")
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
