"""Stores of pictures: what is held, what is decoded when, and what is refused."""

from __future__ import annotations

import io
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from rlseq.data.images import FeatureFile, Features, ImageFiles, check_image, stacked

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
    with pytest.raises(
        ValueError,
        match=r"huge.png is no image .*3,600,000,000 pixels, more than .* RLSEQ_MAX_IMAGE_PIXELS=3600000000",
    ):
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


def read(file: FeatureFile, names: Iterable[str]) -> Features:
    """The features of these names, all of which must be there and right."""

    def refuse(kind: str, message: str) -> None:
        raise ValueError(message)

    names = list(names)
    right = file.right(names, refuse)
    return stacked([right[name] for name in names], file.path)


@pytest.fixture(params=[".npz", ".h5"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_an_array_a_picture(tmp_path: Path, kind: str) -> None:
    """Fewer regions are filled up with zeros; one vector is one region."""
    with FeatureFile(save_features(tmp_path / f"f{kind}", ARRAYS)) as file:
        assert [file.find(names) for names in ((12,), (9, "x"), (9,))] == ["12", "x", None]
        features = read(file, ["12", "x", "7"])
    assert features.shape == (3, 4)
    table = features(torch.tensor([0, 1, 2]))
    np.testing.assert_array_equal(table[2].numpy(), ARRAYS["7"].astype(np.float32))
    np.testing.assert_array_equal(table[0, :2].numpy(), ARRAYS["12"].astype(np.float32))
    assert table[0, 2].tolist() == table[1, 1].tolist() == [0, 0, 0, 0]
    assert features.range == (float(features.table.min()), float(features.table.max()))


@pytest.mark.parametrize("ids", [np.array([5, 3]), np.array(["5", "3"])])
def test_all_in_one_array(tmp_path: Path, ids: Any) -> None:
    table = RANDOM.normal(size=(2, 3, 4)).astype(np.float16)
    with FeatureFile(save_features(tmp_path / "f.npz", {"ids": ids, "features": table})) as file:
        features = read(file, ["3", "5"])
    assert features.table.dtype == torch.float16  # half stays half
    assert features(torch.tensor([0])).dtype == torch.float32
    np.testing.assert_array_equal(features.table.numpy(), table[[1, 0]])


def test_mixed_types_become_the_one_that_holds_all(tmp_path: Path, kind: str) -> None:
    """1e5 is beyond half, whichever picture comes first."""
    arrays = {"1": np.ones(3, np.float16), "2": np.full(3, 1e5, np.float32), "3": np.zeros(3, np.float16)}
    with FeatureFile(save_features(tmp_path / f"f{kind}", arrays)) as file:
        features = read(file, ["1", "2", "3"])
    assert features.table.dtype == torch.float32
    assert features.range == (0.0, 1e5)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"ids": np.arange(3), "features": np.zeros((2, 4))},
            r"got ids \(3,\) of int64 and features \(2, 4\)",
        ),
        (
            {"ids": np.array([5, 3, 4, 3]), "features": np.zeros((4, 2))},
            "ids must differ, got '3' 2 times; leave one of them",
        ),
        ({"1": np.zeros((2, 4), int)}, r"floats \[R, D\] or \[D\], got int64 \(2, 4\) for '1'"),
        ({"1": np.zeros((1, 2, 4))}, r"got float64 \(1, 2, 4\) for '1'"),
        ({"1": np.full(3, np.nan)}, "must be finite, got NaN or infinity for '1'"),
        (
            {"1": np.ones(3, np.float32), "2": np.array([0, -1e300])},
            r"must be finite as float32, got 1e\+300 for '2'",
        ),
        ({"1": np.zeros(3), "2": np.zeros(4)}, "one width, wanted 3, got 4 for '2'"),
    ],
)
def test_features_that_are_none(tmp_path: Path, kind: str, arrays: dict[str, Any], message: str) -> None:
    path = save_features(tmp_path / f"f{kind}", arrays)
    with pytest.raises(ValueError, match=rf"f{kind}.*{message}"), FeatureFile(path) as file:
        read(file, arrays)


def test_pickles_are_not_read(tmp_path: Path) -> None:
    class Mine:
        def __reduce__(self) -> Any:
            return (sys.exit, ("read a pickle",))

    np.savez(tmp_path / "f.npz", mine=np.array([Mine()], dtype=object))
    with pytest.raises(ValueError, match=r"f.npz cannot be read.*pickled objects, which are never read"):
        read(FeatureFile(tmp_path / "f.npz"), ["mine"])


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.95])
def test_files_that_are_cut_off(tmp_path: Path, kind: str, keep: float) -> None:
    path = save_features(tmp_path / f"f{kind}", ARRAYS)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep if keep >= 1 else keep * len(whole))])
    with (
        pytest.raises(ValueError, match=rf"f{kind} cannot be read as features.*cut off"),
        FeatureFile(path) as file,
    ):
        read(file, ARRAYS)


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


def npz_of(path: Path, content: bytes, name: str = "1.npy") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, content)
    return path


def npy_header(shape: tuple[int, ...], kind: str = "<f4") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": kind, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def zeros(path: Path, count: int) -> Path:
    """A file of a few kilobytes that unpacks to `count` zeros."""
    if path.suffix == ".npz":
        return npz_of(path, npy_header((1, count)) + bytes(4 * count))
    with h5py.File(path, "w") as file:
        file.create_dataset("1", (1, count), "f4", chunks=(1, 1000))
    return path


def test_features_beyond_the_limit_are_refused_before_they_are_read(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zeros(tmp_path / f"bomb{kind}", 100_000)
    assert path.stat().st_size < 20_000
    monkeypatch.setenv("RLSEQ_MAX_FEATURE_BYTES", "300000")
    message = (
        rf"bomb{kind}: features of 1 images: 400.\d\d\d bytes, .* limit of 300,000; if meant: RLSEQ_MAX_FEA"
    )
    with FeatureFile(path) as file:
        monkeypatch.setattr(type(file.arrays), "read", None)
        with pytest.raises(ValueError, match=message):
            read(file, ["1"])
        monkeypatch.undo()
        monkeypatch.setenv("RLSEQ_MAX_FEATURE_BYTES", "500000")
        assert read(file, ["1"]).shape == (1, 100_000)


def test_many_small_features_are_together_beyond_the_limit(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = {str(n): np.ones((1, 100)) for n in range(10)} | {"wide": np.ones((50, 100))}
    path = save_features(tmp_path / f"f{kind}", arrays)
    with FeatureFile(path) as file:
        monkeypatch.setenv("RLSEQ_MAX_FEATURE_BYTES", "100000")
        assert len(read(file, [str(n) for n in range(10)]).table) == 10
        with pytest.raises(ValueError, match=r"a table of features \(11, 50, 100\): 440,000 bytes"):
            read(file, arrays)
        monkeypatch.setenv("RLSEQ_MAX_FEATURE_BYTES", "7000")
        with pytest.raises(ValueError, match=rf"f{kind}: features of 10 images: .* limit of 7,000"):
            read(file, [str(n) for n in range(10)])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy_header((10**9, 10**9)), r"declares float32 \(1000000000, 1000000000\), 4.* bytes, and has 0"),
        (npy_header((2, 3)) + bytes(20), r"declares float32 \(2, 3\), 24 bytes, and has 20"),
        (npy_header((10**9, 10**9), "<U0"), r"declares <U0 .*, 0 bytes"),
        (npy_header((-1, -6)) + bytes(24), r"declares float32 \(-1, -6\)"),
        (b"\x93NUMPY\3\0" + bytes(4), r"version \(3, 0\) of the NPY format; wanted 1.0 or 2.0"),
        (b"\x93NUMPY\1\0" + (9000).to_bytes(2, "little") + b"(" * 9000, "cannot be read as features"),
    ],
)
def test_headers_that_declare_what_is_not_there(tmp_path: Path, content: bytes, message: str) -> None:
    path = npz_of(tmp_path / "f.npz", content)
    with pytest.raises(ValueError, match=rf"f.npz .*{message}"), FeatureFile(path) as file:
        read(file, ["1"])


def encrypted(path: Path) -> Path:
    """A zip whose entry says that it is encrypted."""
    content = bytearray(npz_of(path, npy_header((1,)) + bytes(4)).read_bytes())
    content[6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    return path


def test_encrypted_and_doubled_arrays(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match=r"f.npz cannot be read as features \(.*encrypted.*password"),
        FeatureFile(encrypted(tmp_path / "f.npz")) as file,
    ):
        read(file, ["1"])
    with zipfile.ZipFile(tmp_path / "g.npz", "w") as archive:
        archive.writestr("1.npy", npy_header((1,)) + bytes(4))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("1.npy", npy_header((1,)) + bytes(4))
    with pytest.raises(ValueError, match=r"g.npz cannot be read as features \(an array is there twice\)"):
        FeatureFile(tmp_path / "g.npz")


def test_an_h5_file_reads_nothing_outside_itself(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["1"] = np.ones((2, 2))
    (tmp_path / "raw").write_bytes(np.ones(4, "f4").tobytes())
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["external"] = h5py.ExternalLink("secret.h5", "/1")
        file["soft"] = h5py.SoftLink("/external")
        file.create_dataset("raw", (2, 2), "f4", external=[(str(tmp_path / "raw"), 0, 16)])
        layout = h5py.VirtualLayout((2, 2), "f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "1", (2, 2))
        file.create_virtual_dataset("virtual", layout)
        file.create_group("group")
        file["empty"] = h5py.Empty("f4")
        file.create_dataset("objects", (2,), h5py.vlen_dtype(np.float32))
    with FeatureFile(tmp_path / "f.h5") as features:
        for name, message in [
            *((link, "is a link; wanted an array in this file") for link in ("external", "soft")),
            *((part, "lies in another file; wanted an array in this one") for part in ("raw", "virtual")),
            *((none, "is a group, or empty; wanted an array") for none in ("group", "empty")),
            ("objects", "is an array of objects; wanted numbers or texts"),
        ]:
            with pytest.raises(ValueError, match=rf"f.h5 cannot be read as features \('{name}' {message}"):
                read(features, [name])


def test_a_chunk_larger_than_its_array_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk is unpacked as a whole, however little of it is read."""
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.create_dataset("1", (1, 2), "f4", maxshape=(None, 2), chunks=(100_000, 2), compression="gzip")
    monkeypatch.setenv("RLSEQ_MAX_FEATURE_BYTES", "1000")
    with (
        FeatureFile(tmp_path / "f.h5") as features,
        pytest.raises(ValueError, match=r"800,000 bytes, more than"),
    ):
        read(features, ["1"])


def test_a_limit_is_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLSEQ_MAX_FEATURE_BYTES", "1 GB")
    path = save_features(tmp_path / "f.npz", {"1": np.ones(3)})
    with (
        FeatureFile(path) as file,
        pytest.raises(ValueError, match=r"RLSEQ_MAX_FEATURE_BYTES must be .* '1 GB'"),
    ):
        read(file, ["1"])


def test_the_limit_of_pixels_can_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_image(tmp_path / "x.png", 30, 20)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    ImageFiles([path], 8)(torch.tensor([0]))
    assert Image.MAX_IMAGE_PIXELS == 10
    monkeypatch.setenv("RLSEQ_MAX_IMAGE_PIXELS", "599")
    with pytest.raises(
        ValueError, match=r"x.png is no image .*30 x 20: 600 pixels, more than the limit of 599"
    ):
        check_image(path)


def test_no_image_starts_another_program(tmp_path: Path) -> None:
    (tmp_path / "x.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
    with pytest.raises(ValueError, match=r"x.eps is no image that can be read.*; wanted BMP, GIF, JPEG"):
        check_image(tmp_path / "x.eps")
