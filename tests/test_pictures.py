"""Stores of pictures: what is held, what is decoded when, and what is refused."""

from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from rlseq.pictures import FeatureFile, ImageFiles, check_image

RANDOM = np.random.default_rng(0)
ARRAYS = {"7": RANDOM.normal(size=(3, 4)), "12": RANDOM.normal(size=(2, 4)), "x": RANDOM.normal(size=4)}


def save_image(path: Path, width: int, height: int, colour: tuple[int, int, int] = (200, 10, 30)) -> Path:
    Image.new("RGB", (width, height), colour).save(path)
    return path


def test_images_are_decoded_once_when_they_are_used(tmp_path: Path) -> None:
    files = [save_image(tmp_path / f"{n}.png", 20 + n, 30, (n, 2 * n, 3 * n)) for n in range(4)]
    store = ImageFiles(files, side=8)
    assert store.shape == (3, 8, 8)
    assert not store.known.any()
    seen = store(torch.tensor([2, 2, 0]))
    assert seen.dtype == torch.uint8
    assert seen[:, :, 0, 0].tolist() == [[2, 4, 6], [2, 4, 6], [0, 0, 0]]
    assert store.known.tolist() == [True, False, True, False]
    files[2].unlink()
    assert torch.equal(store(torch.tensor([2]))[0], seen[0])


def test_the_middle_square_is_kept_and_grey_becomes_colour(tmp_path: Path) -> None:
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 77
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert (ImageFiles([tmp_path / "wide.png"], side=10)(torch.tensor([0])) == 77).all()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])  # modes I;16 and I
def test_sixteen_bits_of_grey_become_eight(tmp_path: Path, suffix: str) -> None:
    grey = np.array([[0, 30000], [257, 65535]], np.uint16)
    Image.fromarray(grey).save(tmp_path / f"deep{suffix}")
    seen = ImageFiles([tmp_path / f"deep{suffix}"], side=2)(torch.tensor([0]))
    assert seen[0, 0].tolist() == seen[0, 2].tolist() == [[0, 117], [1, 255]]


def test_eight_bits_of_grey_that_lie_in_more_stay_as_they_are(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2), 200, np.int32)).save(tmp_path / "wide.tif")
    assert (ImageFiles([tmp_path / "wide.tif"], side=2)(torch.tensor([0])) == 200).all()


def test_grey_of_unknown_range_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 70000]], np.int32)).save(tmp_path / "deep.tif")
    with pytest.raises(ValueError, match=r"deep.tif is no image .*grey must be 0 … 65535, got 0 … 70000"):
        ImageFiles([tmp_path / "deep.tif"], side=1)(torch.tensor([0]))
    Image.fromarray(np.array([[0.0, 0.5]], np.float32)).save(tmp_path / "floats.tif")
    with pytest.raises(ValueError, match=r"floats.tif is no image .*wanted 8 or 16 bits .* got floats"):
        check_image(tmp_path / "floats.tif")


def huge(path: Path) -> Path:
    """A PNG that says it has 60,000 × 60,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    end = struct.pack(">I", zlib.crc32(header))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + end + b"\0\0\0\0IDAT")
    return path


def test_images_that_are_too_large_to_be_meant(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"huge.png is no image .*3600000000 pixels"):
        check_image(huge(tmp_path / "huge.png"))


def test_broken_images(tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("no image")
    with pytest.raises(ValueError, match=r"text.png is no image that can be read, or is cut off"):
        check_image(text)
    cut = tmp_path / "cut.png"
    Image.fromarray(RANDOM.integers(255, size=(64, 64, 3), dtype=np.uint8)).save(cut)
    cut.write_bytes(cut.read_bytes()[:5000])
    check_image(cut)  # its header is whole
    with pytest.raises(ValueError, match=r"cut.png is no image that can be read, or is cut off"):
        ImageFiles([cut], side=8)(torch.tensor([0]))


def save_features(path: Path, arrays: dict[str, Any]) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for name, value in arrays.items():
                file[name] = value
    return path


@pytest.fixture(params=[".npz", ".h5"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_an_array_a_picture(tmp_path: Path, kind: str) -> None:
    """Fewer regions are filled up with zeros; one vector is one region."""
    with FeatureFile(save_features(tmp_path / f"f{kind}", ARRAYS)) as file:
        assert [file.find(names) for names in ((12,), (9, "x"), (9,))] == ["12", "x", None]
        features = file.read(["12", "x", "7"])
    assert features.shape == (3, 4)
    table = features(torch.tensor([0, 1, 2]))
    np.testing.assert_array_equal(table[2].numpy(), ARRAYS["7"].astype(np.float32))
    np.testing.assert_array_equal(table[0, :2].numpy(), ARRAYS["12"].astype(np.float32))
    assert table[0, 2].tolist() == table[1, 1].tolist() == [0, 0, 0, 0]
    assert features.range == (float(features.table.min()), float(features.table.max()))


@pytest.mark.parametrize("ids", [np.array([5, 3]), np.array(["5", "3"])])
def test_all_in_one_array(tmp_path: Path, ids: Any) -> None:
    stacked = RANDOM.normal(size=(2, 3, 4)).astype(np.float16)
    with FeatureFile(save_features(tmp_path / "f.npz", {"ids": ids, "features": stacked})) as file:
        features = file.read(["3", "5"])
    assert features.table.dtype == torch.float16  # half stays half
    assert features(torch.tensor([0])).dtype == torch.float32
    np.testing.assert_array_equal(features.table.numpy(), stacked[[1, 0]])


def test_mixed_types_become_the_one_that_holds_all(tmp_path: Path, kind: str) -> None:
    """1e5 is beyond half, whichever picture comes first."""
    arrays = {"1": np.ones(3, np.float16), "2": np.full(3, 1e5, np.float32), "3": np.zeros(3, np.float16)}
    with FeatureFile(save_features(tmp_path / f"f{kind}", arrays)) as file:
        features = file.read(["1", "2", "3"])
    assert features.table.dtype == torch.float32
    assert features.range == (0.0, 1e5)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"ids": np.arange(3), "features": np.zeros((2, 4))}, r"got ids \(3,\) and features \(2, 4\)"),
        (
            {"ids": np.array([5, 3, 4, 3]), "features": np.zeros((4, 2))},
            "ids must differ, got '3' 2 times; leave one of them",
        ),
        ({"1": np.zeros((2, 4), int)}, r"floats \[R, D\] or \[D\], got int64 \(2, 4\) for 1"),
        ({"1": np.zeros((1, 2, 4))}, r"got float64 \(1, 2, 4\) for 1"),
        ({"1": np.full(3, np.nan)}, "must be finite, got NaN or infinity for 1"),
        (
            {"1": np.ones(3, np.float32), "2": np.array([0, -1e300])},
            r"must be finite as float32, got 1e\+300 for 2",
        ),
        ({"1": np.zeros(3), "2": np.zeros(4)}, "one width, wanted 3, got 4 for 2"),
    ],
)
def test_features_that_are_none(tmp_path: Path, kind: str, arrays: dict[str, Any], message: str) -> None:
    path = save_features(tmp_path / f"f{kind}", arrays)
    with pytest.raises(ValueError, match=rf"f{kind}.*{message}"), FeatureFile(path) as file:
        file.read(arrays)


def test_pickles_are_not_read(tmp_path: Path) -> None:
    class Mine:
        def __reduce__(self) -> Any:
            return (sys.exit, ("read a pickle",))

    np.savez(tmp_path / "f.npz", mine=np.array([Mine()], dtype=object))
    with pytest.raises(ValueError, match=r"f.npz cannot be read.*pickled objects, which are never read"):
        FeatureFile(tmp_path / "f.npz").read(["mine"])


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.95])
def test_files_that_are_cut_off(tmp_path: Path, kind: str, keep: float) -> None:
    path = save_features(tmp_path / f"f{kind}", ARRAYS)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep if keep >= 1 else keep * len(whole))])
    with (
        pytest.raises(ValueError, match=rf"f{kind} cannot be read as features.*cut off"),
        FeatureFile(path) as file,
    ):
        file.read(ARRAYS)


def test_files_of_another_kind(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"unknown kind of features .*f.npy.*did you mean '.npz'"):
        FeatureFile(tmp_path / "f.npy")
    (tmp_path / "f.npy").rename(tmp_path / "g.npz")
    with pytest.raises(ValueError, match=r"g.npz cannot be read as features.*of another kind"):
        FeatureFile(tmp_path / "g.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(ValueError, match=r"folder.npz cannot be read as features.*of another kind"):
        FeatureFile(tmp_path / "folder.npz")
    with pytest.raises(FileNotFoundError, match=r"no.npz is not there; wanted"):
        FeatureFile(tmp_path / "no.npz")
