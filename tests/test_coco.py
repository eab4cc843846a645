"""Captions from JSON: both kinds, their splits, and what is wrong with them by file and place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rlseq.data import coco

PLAIN: dict[str, Any] = {
    "info": {},
    "images": [{"id": n, "file_name": f"COCO_{n:03d}.jpg"} for n in range(40)],
    "annotations": [
        {"id": 2 * n + k, "image_id": n, "caption": f"A man's dog, number {n}{'!' * k}"}
        for n in range(40)
        for k in (0, 1)
    ],
}
KARPATHY: dict[str, Any] = {
    "dataset": "coco",
    "images": [
        {
            "imgid": n,
            "cocoid": 100 + n,
            "filepath": "val2014",
            "filename": f"{n}.jpg",
            "split": ("train", "restval", "val", "test")[n % 4],
            "sentids": [n],
            "sentences": [{"tokens": ["a", "dog", str(n)], "raw": "A dog.", "sentid": n, "imgid": n}],
        }
        for n in range(8)
    ],
}


def save(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def changed(content: dict[str, Any], list: str, entry: int, **values: Any) -> dict[str, Any]:
    """The same with other values in one entry, and without those that are None."""
    copy = json.loads(json.dumps(content))
    copy[list][entry].update(values)
    copy[list][entry] = {name: value for name, value in copy[list][entry].items() if value is not None}
    return dict(copy)


def test_coco_s_own(tmp_path: Path) -> None:
    pictures = coco.read_annotations(save(tmp_path / "a.json", "\ufeff" + json.dumps(PLAIN)), coco.Bad())
    assert len(pictures) == 40
    assert pictures[3].captions == (("a", "man", "'s", "dog", "number", "3"),) * 2  # as CIDEr has them
    assert pictures[3].names == (3, "COCO_003.jpg", "COCO_003")


def test_karpathy_s(tmp_path: Path) -> None:
    pictures = coco.read_annotations(save(tmp_path / "k.json", KARPATHY), coco.Bad())
    assert pictures[5] == coco.Picture(105, "val2014/5.jpg", (("a", "dog", "5"),), "restval")
    flickr = changed(KARPATHY, "images", 5, cocoid=None, filepath=None)
    assert coco.read_annotations(save(tmp_path / "f.json", flickr), coco.Bad())[5].names == (5, "5.jpg", "5")


def test_splits(tmp_path: Path) -> None:
    plain, karpathy = (
        coco.read_annotations(save(tmp_path / "x.json", content), coco.Bad()) for content in (PLAIN, KARPATHY)
    )
    parts = {split: [p.id for p in coco.of_split(plain, split)] for split in ("train", "dev", "test", "all")}
    assert (parts["dev"], parts["test"]) == ([19, 39], [17, 18, 37, 38])
    assert sorted(parts["train"] + parts["dev"] + parts["test"], key=str) == sorted(parts["all"], key=str)
    assert [p.id for p in coco.of_split(karpathy, "train")] == [100, 101, 104, 105]  # restval trains
    assert [p.id for p in coco.of_split(karpathy, "dev")] == [102, 106]
    with pytest.raises(ValueError, match="unknown split 'tran'; did you mean 'train'"):
        coco.of_split(plain, "tran")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2", "line 1: no JSON"),
        ("[1, 2]", "wanted COCO captions .* got a list"),
        ({"annotations": []}, r"got an object with \['annotations'\]"),
        (
            {"images": [{"id": 1}], "categories": []},
            r"got .*'categories', 'images'\] and images with \['id'\]",
        ),
        (changed(PLAIN, "annotations", 3, caption=None, bbox=[0, 1, 2, 3]), "annotation 3 has no caption"),
        (changed(PLAIN, "images", 3, id=None), r"images\[3\] has no 'id'"),
        (
            changed(KARPATHY, "images", 3, sentences=[{"raw": "A dog."}]),
            r"images\[3\]: sentences\[0\] has no 'tokens'",
        ),
    ],
)
@pytest.mark.parametrize("skip", [False, True])
def test_files_of_another_kind(tmp_path: Path, content: Any, message: str, skip: bool) -> None:
    path = save(tmp_path / "bad.json", content)
    with pytest.raises(ValueError, match=message):
        coco.of_split(coco.read_annotations(path, coco.Bad(skip)), "train")


IMAGES, CAPTIONS = "images of wrong form", "captions of wrong form"
WRONG: list[
    tuple[dict[str, Any], str, int, Any, str, str]
] = [  # content, list, entry, its new values, message, kind
    (PLAIN, "images", 3, {"id": [3]}, r"images\[3\]: 'id' must be an integer or a text, got \[3\]", IMAGES),
    (PLAIN, "images", 3, {"id": True}, r"images\[3\]: 'id' must be .* got True", IMAGES),
    (PLAIN, "images", 3, {"file_name": None}, r"images\[3\]: 'file_name' must be a text.* got None", IMAGES),
    (PLAIN, "images", 3, {"file_name": 3}, r"images\[3\]: 'file_name' must be a text.* got 3", IMAGES),
    (PLAIN, "images", 3, {"file_name": ""}, r"images\[3\]: 'file_name' must be .*not empty, got ''", IMAGES),
    (PLAIN, "annotations", 6, {"image_id": [3]}, r"annotation 6: 'image_id' must be .* got \[3\]", CAPTIONS),
    (
        PLAIN,
        "annotations",
        6,
        {"caption": None},
        "annotation 6: 'caption' must be a text, got None",
        CAPTIONS,
    ),
    (KARPATHY, "images", 3, {"cocoid": None}, r"images\[3\]: 'cocoid' must be .* got None", IMAGES),
    (KARPATHY, "images", 3, {"filename": 3}, r"images\[3\]: 'filename' must be a text.* got 3", IMAGES),
    (KARPATHY, "images", 3, {"filepath": None}, r"images\[3\]: 'filepath' must be a text, got None", IMAGES),
    (KARPATHY, "images", 3, {"split": None}, r"images\[3\]: 'split' must be a text, got None", IMAGES),
    (KARPATHY, "images", 3, {"sentences": None}, r"'sentences' must be a list, got None", IMAGES),
    (
        KARPATHY,
        "images",
        3,
        {"split": "tset"},
        r"images\[3\]: unknown split 'tset'; did you mean 'test'",
        "images of an unknown split",
    ),
    *(
        (
            KARPATHY,
            "images",
            3,
            {"sentences": [{"tokens": tokens}, *KARPATHY["images"][3]["sentences"]]},
            r"images\[3\]: sentences\[0\]: 'tokens' must be a list of words.* got ",
            CAPTIONS,
        )
        for tokens in ("a dog", None, [1, 2], ["a", ""])
    ),
]


@pytest.mark.parametrize(("content", "list", "entry", "values", "message", "kind"), WRONG)
def test_values_of_wrong_form_are_refused_or_counted(
    tmp_path: Path, content: dict[str, Any], list: str, entry: int, values: Any, message: str, kind: str
) -> None:
    copy = json.loads(json.dumps(content))
    copy[list][entry].update(values)
    path, bad = save(tmp_path / "bad.json", copy), coco.Bad(skip=True)
    with pytest.raises(ValueError, match=rf"bad.json: .*{message}.*skip_bad=True leaves out"):
        coco.read_annotations(path, coco.Bad())
    left = coco.read_annotations(path, bad)
    assert bad.skipped[kind] == 1
    whole = coco.read_annotations(save(tmp_path / "good.json", content), coco.Bad())
    lost = len(whole) - len(left)
    assert lost == (kind != CAPTIONS)
    assert all(picture in whole or picture.id == 3 for picture in left)


def test_no_file_and_no_utf8(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no.json is not there; wanted COCO captions"):
        coco.read_annotations(tmp_path / "no.json", coco.Bad())
    with pytest.raises(
        ValueError, match=r"cannot be read as a file \(Is a directory\); wanted COCO captions"
    ):
        coco.read_annotations(tmp_path, coco.Bad())
    (tmp_path / "latin.json").write_bytes('{"images": "é"}'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin.json: no UTF-8 at byte 12"):
        coco.read_annotations(tmp_path / "latin.json", coco.Bad())


@pytest.mark.parametrize(
    ("content", "message", "kind", "left"),
    [
        (
            changed(PLAIN, "annotations", 6, image_id=999),
            "annotation 6 is of image 999, which is not among images",
            "annotations without an image",
            40,
        ),
        (
            changed(PLAIN, "annotations", 6, caption=" . "),
            "annotation 6, of image 3, is empty",
            "empty captions",
            40,
        ),
        (changed(PLAIN, "images", 3, id=4), "image_id|given twice|of image 3", "images given twice", 39),
        (
            changed(KARPATHY, "images", 3, sentences=[]),
            "image 103 has no caption",
            "images without a caption",
            7,
        ),
        (
            changed(KARPATHY, "images", 3, sentences=[{"tokens": []}]),
            r"images\[3\]: sentences\[0\] is empty",
            "empty captions",
            7,
        ),
    ],
)
def test_bad_entries_are_refused_or_counted(
    tmp_path: Path, content: Any, message: str, kind: str, left: int
) -> None:
    path = save(tmp_path / "bad.json", content)
    with pytest.raises(ValueError, match=rf"bad.json: .*({message}).*skip_bad=True leaves out"):
        coco.read_annotations(path, coco.Bad())
    bad = coco.Bad(skip=True)
    assert len(coco.read_annotations(path, bad)) == left
    assert bad.skipped[kind] == 1


def test_nothing_left(tmp_path: Path) -> None:
    content = {"images": PLAIN["images"], "annotations": []}
    with pytest.raises(ValueError, match=r"no picture with a caption is left; skipped: .*40"):
        coco.read_annotations(save(tmp_path / "none.json", content), coco.Bad(skip=True))


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/secret.png", "a/../../secret.png", "link.png", "sub/link.png"]
)
def test_no_image_outside_its_folder_is_read(tmp_path: Path, name: str) -> None:
    folder, secret = tmp_path / "images", tmp_path / "secret.png"
    (folder / "sub").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(secret)
    for link in ("link.png", "sub/link.png"):
        (folder / link).symlink_to(secret)
    Image.new("RGB", (4, 4)).save(folder / "inside.png")
    pictures = [coco.Picture(1, name, (("a",),)), coco.Picture(2, "inside.png", (("a",),))]
    message = rf"image 1 has the file '{name}', which is not in images='{folder}'; skip_bad=True"
    with pytest.raises(ValueError, match=message):
        coco.with_images(pictures, folder, 4, coco.Bad())
    kept, files = coco.with_images(pictures, folder, 4, bad := coco.Bad(skip=True))
    assert [picture.id for picture in kept] == [2]
    assert files.files == [folder / "inside.png"]
    assert bad.skipped == {"images outside their folder": 1}


@pytest.mark.parametrize("name", ["x" * 5000, "nul\0.png", "\ud800.png", "\x1b[31m.png"])
def test_names_that_no_file_has(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"has no file '.*, of image 1; skip_bad=True") as told:
        coco.with_images([coco.Picture(1, name, ())], tmp_path, 4, coco.Bad())
    assert str(told.value).isprintable()
    assert len(str(told.value)) < 400


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "lists or objects nested too deeply"),
        ('{"images": ' + "9" * 5000 + "}", "Exceeds the limit .* for integer string conversion"),
        (json.dumps({f"\x1b{n}" * 100: 1 for n in range(1000)}), r"got an object with \['\\x1b0.*, …\]"),
    ],
)
def test_json_that_cannot_be_meant(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"bad.json: .*{message}") as told:
        coco.read_annotations(save(tmp_path / "bad.json", content), coco.Bad())
    assert str(told.value).isprintable()
    assert len(str(told.value)) < 1000


def test_a_file_of_captions_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.json", PLAIN)
    monkeypatch.setenv("RLSEQ_MAX_JSON_BYTES", "100")
    with pytest.raises(
        ValueError, match=r"a.json: [\d,]+ bytes, more than the limit of 100; if meant: RLSEQ_MAX_JS"
    ):
        coco.read_annotations(path, coco.Bad())
    with pytest.raises(ValueError, match=r"nul\x00: embedded null byte; wanted COCO"):
        coco.read_annotations(tmp_path / "nul\0", coco.Bad())
