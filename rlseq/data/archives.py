"""Readers of arrays by name in `.npz` and `.h5` files; declared sizes are known before anything is allocated.

No pickle is read, and nothing outside the file: arrays of objects and links to other files are refused.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlseq.utils.errors import need

Array = NDArray[Any]


def read_array(path: Path) -> Array:
    """Return the numbers of a file `.npy`, as `np.save` writes it."""
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as an array, a file .npy of numbers: {error}") from None
    if not isinstance(found, np.ndarray):
        raise ValueError(f"{path} holds several arrays; save the one to write about with np.save")
    return found


class Npz:
    """A zip archive of `NAME.npy`."""

    def __init__(self, path: Path) -> None:
        self._file = zipfile.ZipFile(path)

    @cached_property
    def _infos(self) -> dict[str, zipfile.ZipInfo]:
        infos = [info for info in self._file.infolist() if info.filename.endswith(".npy")]
        found = {info.filename.removesuffix(".npy"): info for info in infos}
        if len(found) < len(infos):
            raise ValueError("an array is there twice")
        return found

    def names(self) -> list[str]:
        """Return the names of the arrays."""
        return list(self._infos)

    def size(self, name: str) -> int:
        """Return the bytes of an array and its header, unpacked; no more than these are ever read."""
        return self._infos[name].file_size

    def read(self, name: str) -> Array:
        """Return an array, whose header must declare as many bytes as there are."""
        info = self._infos[name]
        with self._file.open(info) as file:
            version = np.lib.format.read_magic(file)
            if version not in _HEADERS:
                raise ValueError(f"{name!r:.80} has version {version} of the NPY format; wanted 1.0 or 2.0")
            shape, _, dtype = _HEADERS[version](file)
            declared = math.prod(shape) * dtype.itemsize
            there = info.file_size - file.tell()
        if dtype.hasobject:
            raise ValueError(f"{name!r:.80} is an array of objects, which are pickled")
        if min(shape, default=0) < 0 or not dtype.itemsize or declared != there:
            got = f"{name!r:.80} declares {dtype} {shape}, {declared:,} bytes"
            raise ValueError(f"{got}, and has {there:,}")
        with self._file.open(info) as file:
            return np.asarray(np.lib.format.read_array(file, allow_pickle=False))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


_HEADERS: dict[tuple[int, int], Callable[[Any], tuple[tuple[int, ...], bool, np.dtype[Any]]]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class H5:
    """The data sets at the root of an HDF5 file."""

    def __init__(self, path: Path) -> None:
        self._h5 = need("h5py", "h5")
        self._file = self._h5.File(path, "r")

    def names(self) -> list[str]:
        """Return the names of the arrays."""
        return list(self._file)

    def size(self, name: str) -> int:
        """Return the bytes of an array, or of one of its chunks, which is unpacked as a whole."""
        found = self._found(name)
        numbers = max(math.prod(found.shape), math.prod(found.chunks or ()))
        return int(numbers * found.dtype.itemsize)

    def read(self, name: str) -> Array:
        """Return an array; its size is for the caller to check before."""
        return np.asarray(self._found(name)[()])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _found(self, name: str) -> Any:
        """Return an array that lies in this file as a whole."""
        if not isinstance(self._file.get(name, getlink=True), self._h5.HardLink):
            raise ValueError(f"{name!r:.80} is a link; wanted an array in this file")
        found = self._file[name]
        if not isinstance(found, self._h5.Dataset) or found.shape is None or not found.dtype.itemsize:
            raise ValueError(f"{name!r:.80} is a group, or empty; wanted an array")
        if found.external or found.is_virtual:
            raise ValueError(f"{name!r:.80} lies in another file; wanted an array in this one")
        if found.dtype.hasobject and self._h5.check_string_dtype(found.dtype) is None:
            raise ValueError(f"{name!r:.80} is an array of objects; wanted numbers or texts")
        return found


OPENERS: Mapping[str, type[Npz] | type[H5]] = {".npz": Npz, ".h5": H5, ".hdf5": H5}
