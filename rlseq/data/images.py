"""Pictures of a data set, by item: images or features, held in memory or decoded when they are first used.

A store is asked for items `[B]` and answers `[B, …]` on the device of the question.
"""

from __future__ import annotations

import lzma
import math
import struct
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlseq.data import archives, limits
from rlseq.utils.errors import in_one_line, need, pick

Name = int | str
Told = Callable[[str, str], None]  # of what is wrong: its kind, and a message; raises, or counts
_pillow = partial(need, "PIL.Image", "images")


class Pictures:
    """Pictures in memory, an item a row of a table `[N, …]` on the device."""

    item: str  # what a context calls them: "image" or "features"
    range: tuple[float, float]  # the lowest and the highest number

    def __init__(self, table: Tensor) -> None:
        self.table, self.shape, self.dtype = table, tuple(table.shape[1:]), table.dtype

    def __call__(self, index: Tensor) -> Tensor:
        """Return the pictures of items `[B]`."""
        return self.table[index]

    def to(self, device: torch.device) -> None:
        """Move the table to the device that items are asked for on."""
        self.table = self.table.to(device)


class Images(Pictures):
    """Images as uint8 `[N, C, H, W]`, N·C·H·W bytes."""

    item = "image"
    range = (0.0, 255.0)


class ImageFiles(Images):
    """Image files: each is decoded when it is first used, made square, and kept as uint8 from then on.

    In the end N·3·side² bytes are held in the host's memory; until then only what was used.

    Args:
        files: one for each item.
        side: pixels; the middle square of an image is scaled to side × side.
    """

    def __init__(self, files: Sequence[Path], side: int) -> None:
        # Memory that nothing is written to costs nothing.
        super().__init__(torch.empty(len(files), 3, side, side, dtype=torch.uint8))
        self.files, self.known = list(files), torch.zeros(len(files), dtype=torch.bool)

    def __call__(self, index: Tensor) -> Tensor:
        """Return the images of items `[B]`, and decode those that are asked for the first time."""
        items = index.cpu()
        for item in sorted(set(items[~self.known[items]].tolist())):
            self.table[item] = read_image(self.files[item], self.shape[-1])
            self.known[item] = True
        return super().__call__(items).to(index.device)

    def to(self, device: torch.device) -> None:
        """Do nothing: the images stay in the host's memory, where they are decoded."""


def check_image(file: Path) -> None:
    """Raise `ValueError` unless the file begins like an image; only its header is read."""
    with _opened(file) as image:
        if image.mode == "F":
            raise ValueError("wanted 8 or 16 bits a channel, got floats, whose range is not known")


def read_image(file: Path, side: int) -> Tensor:
    """Return the middle square of an image file, uint8 `[3, side, side]`."""
    with _opened(file) as image:
        width, height = image.size
        edge = min(width, height)
        left, top = (width - edge) // 2, (height - edge) // 2
        box = (left, top, left + edge, top + edge)
        square = _coloured(image).resize((side, side), _pillow().Resampling.BILINEAR, box)
        return torch.from_numpy(np.array(square)).permute(2, 0, 1)


def _coloured(image: Any) -> Any:
    """Convert to RGB; 16 bits of grey are scaled to 8, where Pillow would cut them off at 255."""
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError(f"grey must be 0 … 65535, got {grey.min()} … {grey.max()}")
        wide = image.mode.startswith("I;16") or grey.max() > 255  # 8 bits may lie in 32
        image = _pillow().fromarray(((grey + 128) // 257 if wide else grey).astype(np.uint8))
    return image.convert("RGB")


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """Open an image and read its header, which must declare no more pixels than the limit."""
    pillow = _pillow()
    try:
        # Pillow warns of metadata that nobody reads here, and has a limit of its own.
        with warnings.catch_warnings(), _unlimited(pillow), pillow.open(file, formats=FORMATS) as image:
            warnings.simplefilter("ignore")
            limits.check_size(
                f"{image.width} x {image.height}", image.width * image.height, limits.IMAGE_PIXELS
            )
            yield image
    except _BROKEN_IMAGE as error:
        raise ValueError(
            f"{file} is no image that can be read, or is cut off ({in_one_line(error)}); "
            f"wanted {', '.join(FORMATS)}"
        ) from None


FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # EPS would run another program

_BROKEN_IMAGE = (  # what Pillow raises of files that are damaged
    *(OSError, SyntaxError, ValueError, EOFError, OverflowError, MemoryError, RuntimeError),
    *(AttributeError, IndexError, KeyError, TypeError, struct.error, zlib.error),
)


@contextmanager
def _unlimited(pillow: Any) -> Iterator[None]:
    """Switch off Pillow's own limit of pixels, as another one is checked here."""
    before, pillow.MAX_IMAGE_PIXELS = pillow.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        pillow.MAX_IMAGE_PIXELS = before


class Features(Pictures):
    """Precomputed features `[N, R, D]`, held in the type of their file (half stays half), given as float32.

    An item with fewer than R regions is filled up with rows of zeros.
    """

    item = "features"

    def __init__(self, table: Tensor) -> None:
        super().__init__(table)
        self.dtype, self.range = torch.float32, (float(table.min()), float(table.max()))

    def __call__(self, index: Tensor) -> Tensor:
        """Return the features of items `[B]`."""
        return super().__call__(index).float()


WRONG_FORM = "features of wrong form"
NAME_BYTES = 128  # bytes that a name takes in memory
_FLOATS = (np.float16, np.float32, np.float64)


class FeatureFile:
    """A `.npz` or `.h5` of one array a picture, called by its id; or of `features`, and the `ids` they have.

    No pickle is read: arrays of objects are refused.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.place: dict[str, int] = {}
        with _intact(path), ExitStack() as opened:
            kind = pick(archives.OPENERS, path.suffix, f"kind of features ({path})")
            self.arrays = opened.enter_context(closing(kind(path)))
            self.names = set(self.arrays.names())
            if {"ids", "features"} <= self.names:
                self._read_stacked()
            opened.pop_all()

    def __enter__(self) -> FeatureFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.arrays.close()

    def find(self, names: Sequence[Name]) -> str | None:
        """Return the first of a picture's names that the file has features for."""
        return next((str(name) for name in names if str(name) in self.names), None)

    def right(self, names: Iterable[str], bad: Told) -> dict[str, Any]:
        """Return features `[R, D]` by name; those that are not as they must be are left to `bad`."""
        found, names = {}, list(dict.fromkeys(names))
        with _intact(self.path):
            if not self.place:
                self._check_size(f"features of {len(names):,} images", names)
            for name in names:
                values = self.stacked[self.place[name]] if self.place else self.arrays.read(name)
                if wrong := _wrong(values):
                    bad(WRONG_FORM, f"{self.path}: features must be {wrong} for {name!r:.80}")
                else:
                    found[name] = values[None] if values.ndim == 1 else values
        widths = Counter(values.shape[1] for values in found.values())
        wanted = max(widths, key=widths.__getitem__, default=0)
        for name in [name for name, values in found.items() if values.shape[1] != wanted]:
            got = f"got {found.pop(name).shape[1]} for {name!r:.80}"
            bad(WRONG_FORM, f"{self.path}: features must have one width, wanted {wanted}, {got}")
        return found

    def _read_stacked(self) -> None:
        """Read all features as one array, and the names of its rows."""
        self._check_size("features", ["features", "ids"])
        self.stacked, ids = self.arrays.read("features"), self.arrays.read("ids")
        good = ids.ndim == 1 and ids.dtype.kind in "iuSUO" and self.stacked.ndim in (2, 3)
        if not good or len(ids) != len(self.stacked):
            raise ValueError(
                f"{self.path}: wanted ids [N], integers or texts, and features [N, D] or [N, R, D], got "
                f"ids {ids.shape} of {ids.dtype} and features {self.stacked.shape}"
            )
        what = f"{self.path}: the names of {ids.size:,} features"
        limits.check_size(what, NAME_BYTES * ids.size, limits.FEATURE_BYTES)
        names = [name.decode() if isinstance(name, bytes) else str(name) for name in ids.tolist()]
        self.place = {name: i for i, name in enumerate(names)}
        self.names = set(names)
        if len(self.names) < len(names):
            twice, times = Counter(names).most_common(1)[0]
            raise ValueError(
                f"{self.path}: ids must differ, got {twice!r:.80} {times} times; leave one of them"
            )

    def _check_size(self, what: str, names: Sequence[str]) -> None:
        """Refuse arrays that take too much memory, before any of them is read."""
        size = sum(self.arrays.size(name) for name in names)
        limits.check_size(f"{self.path}: {what}", size, limits.FEATURE_BYTES)


def _wrong(values: Any) -> str | None:
    """Say what is wrong with features: they must be `[R, D]` or `[D]`, and finite as float32 too."""
    if values.ndim not in (1, 2) or values.dtype.newbyteorder("=") not in _FLOATS or 0 in values.shape:
        return f"floats [R, D] or [D], got {values.dtype} {values.shape}"
    if not np.isfinite(values).all():
        return "finite, got NaN or infinity"
    most = np.abs(values).max()
    return f"finite as float32, got {most:.3g}" if most > np.finfo(np.float32).max else None


def stacked(found: Sequence[Any], path: Path) -> Features:
    """Put features `[R, D]` of one width into one table; `path` names them in an error."""
    kind = np.result_type(*{values.dtype for values in found})  # of mixed types the one that holds all
    shape = len(found), max(map(len, found)), found[0].shape[1]
    limits.check_size(
        f"{path}: a table of features {shape}", math.prod(shape) * kind.itemsize, limits.FEATURE_BYTES
    )
    table = np.zeros(shape, kind)
    for row, values in zip(table, found, strict=True):
        row[: len(values)] = values
    return Features(torch.from_numpy(table))


@contextmanager
def _intact(path: Path) -> Iterator[None]:
    """Name the file in errors of archives that are cut off, broken or hold pickles."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is not there; wanted a .npz or .h5 of features") from None
    except _BROKEN_ARCHIVE as error:
        if not isinstance(error, OSError) and str(path) in str(error):
            raise
        raise ValueError(
            f"{path} cannot be read as features ({in_one_line(error)}): it is cut off, encrypted, of another "
            "kind, or holds pickled objects, which are never read; wanted arrays of floats by image id, or "
            "`ids` and `features`"
        ) from None


_BROKEN_ARCHIVE = (  # what zipfile, NumPy and HDF5 raise of files that are damaged or encrypted
    *(OSError, ValueError, EOFError, OverflowError, MemoryError, RuntimeError, SyntaxError, TokenError),
    *(IndexError, KeyError, TypeError, struct.error),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)
