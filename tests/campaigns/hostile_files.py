"""Hostile inputs for every reader, each determined by a seed and a number, and the outcome of reading them.

    python tests/campaigns/hostile_files.py SEED FIRST LAST FOLDER

prints a JSON line for each input, `[number, format, outcome, detail]`. The process may take a limited amount
of memory beyond what its libraries take; who starts it limits its time.
"""

from __future__ import annotations

import io
import json
import os
import random
import re
import resource
import shutil
import sys
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SECONDS = 5.0  # of the processor that an input may take
MEMORY = 1 << 30  # bytes that reading one of these small inputs may take
LIMITS = {"RLSEQ_MAX_FEATURE_BYTES": "67108864", "RLSEQ_MAX_IMAGE_PIXELS": "4000000"}
OTHER_NAMES = ("x", "nothing", "images")
Draw = random.Random
Files = dict[str, bytes]

PIECES: list[bytes] = [
    *(
        b"\0",
        b"\r",
        b"\r\n",
        b"\n",
        b"\t",
        b"\n" * 3000,
        b"\t" * 3000,
        b" ",
        b"\x0b\x0c",
        b"\x1b[31m",
        b"[red]",
    ),
    *(
        b"\xff\xfe",
        b"\xfe\xff",
        b"\xef\xbb\xbf",
        b"\xff",
        b"\xc3",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\x1f\x8b",
    ),
    *(
        b"[" * 60_000,
        b'{"a":' * 30_000,
        b"9" * 5000,
        b"-1",
        b"1e999",
        b"NaN",
        b"null",
        b"true",
        b'"',
        b"\\",
        b"{}",
    ),
    *(
        b'"\\ud800"',
        b"\\u0000",
        b"../../../etc/passwd",
        b"x" * 5000,
        b"y" * 120_000,
        b"<eos>",
        b"<unk>",
        b";;;",
    ),
    *("\u202e".encode(), "\u2028".encode(), "e\u0301".encode() * 2000, "\U0001f469\u200d\U0001f52c".encode()),
]
VALUES: list[Any] = [
    *(None, True, -1, 0, 10**30, 1e308, "", " ", "x" * 5000, [], {}, [[]], {"a": {}}, ["a", None], [1]),
    *("\ud800", "\0", "\x1b[2J", "../x.png", "/etc/passwd", "a/../../x", "\u202e", "word " * 3000, "<eos>"),
]


# ── mutations ────────────────────────────────────────────────────────────────────────────────────────


def cut(draw: Draw, content: bytes) -> bytes:
    return content[: draw.randrange(len(content) + 1)]


def flip(draw: Draw, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 3, 30)) if content else 0):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def insert(draw: Draw, content: bytes) -> bytes:
    at = draw.choice((0, len(content), draw.randrange(len(content) + 1)))
    return content[:at] + draw.choice(PIECES) + content[at:]


def repeat(draw: Draw, content: bytes) -> bytes:
    at = sorted(draw.randrange(len(content) + 1) for _ in range(2))
    times = draw.choice((0, 2, 3, 50 if len(content) < 1 << 20 else 2))
    return content[: at[0]] + content[at[0] : at[1]] * times + content[at[1] :]


def overwrite(draw: Draw, content: bytes) -> bytes:
    """A number of the file becomes the largest, or nothing."""
    at, width = draw.randrange(len(content) + 1), draw.choice((1, 2, 4, 8))
    return content[:at] + draw.choice((b"\xff", b"\0", b"\x7f")) * width + content[at + width :]


def recode(draw: Draw, content: bytes) -> bytes:
    text = content.decode("utf-8", "replace")
    return text.encode(draw.choice(("utf-16", "utf-32", "utf-8-sig", "latin-1", "utf-7")), "replace")


def retype(draw: Draw, content: bytes) -> bytes:
    """A value in a line of JSON becomes one of another kind."""
    lines = content.split(b"\n")
    at = draw.randrange(len(lines))
    try:
        tree = json.loads(lines[at])
    except ValueError:
        return insert(draw, content)
    place: Any = {"": tree}
    key: Any = ""
    for _ in range(draw.randrange(1, 7)):
        if not isinstance(place[key], (dict, list)) or not place[key]:
            break
        place = place[key]
        key = draw.choice(list(place)) if isinstance(place, dict) else draw.randrange(len(place))
    if draw.random() < 0.2 and isinstance(place, dict) and key:
        del place[key]
    else:
        place[key] = draw.choice(VALUES)
    lines[at] = json.dumps(tree).encode()
    return b"\n".join(lines)


MUTATIONS = (cut, flip, insert, repeat, overwrite, recode, retype)


# ── files that are right ─────────────────────────────────────────────────────────────────────────────


def words(draw: Draw) -> str:
    return " ".join(draw.choice(("ab", "cat", "é", "字", "dog", "x")) for _ in range(draw.randrange(1, 6)))


def lines_of(draw: Draw, line: Callable[[], str]) -> bytes:
    return "".join(f"{line()}\n" for _ in range(draw.randrange(20, 40))).encode()


def tsv(draw: Draw) -> Files:
    return {"x.tsv": lines_of(draw, lambda: f"{words(draw)}\t{words(draw)}")}


def jsonl(draw: Draw) -> Files:
    return {
        "x.jsonl": lines_of(
            draw, lambda: json.dumps({"source": words(draw), "references": [words(draw)] * 2})
        )
    }


def aligned(draw: Draw) -> Files:
    return {
        name: "".join(f"{words(draw)}\n" for _ in range(30)).encode()
        for name in ("x.src", "x.ref.0", "x.ref.1")
    }


def folder(draw: Draw) -> Files:
    return {
        "train.tsv": tsv(draw)["x.tsv"],
        "dev.jsonl": jsonl(draw)["x.jsonl"],
        "test.tsv": tsv(draw)["x.tsv"],
    }


def texts(draw: Draw) -> Files:
    return {"x.txt": lines_of(draw, lambda: words(draw))}


def pronunciations(draw: Draw) -> Files:
    return {
        "x.dict": lines_of(
            draw, lambda: f"{draw.choice('abc')}{draw.randrange(99)}({draw.randrange(3)}) AH0 B K1 # c"
        )
    }


def captions(draw: Draw) -> bytes:
    if draw.random() < 0.5:
        notes = [{"image_id": n, "caption": words(draw)} for n in range(24)]
        return json.dumps(
            {"images": [{"id": n, "file_name": f"{n}.png"} for n in range(24)], "annotations": notes}
        ).encode()
    images = [
        {
            "imgid": n,
            "filename": f"{n}.png",
            "split": ("train", "val", "test")[n % 3],
            "sentences": [{"tokens": ["a", "b"]}],
        }
        for n in range(24)
    ]
    return json.dumps({"images": images}).encode()


def features(draw: Draw) -> dict[str, Any]:
    import numpy as np

    kind = draw.choice(("f2", "f4", "f8", "<f4", ">f4"))
    if draw.random() < 0.5:
        return {str(n): np.ones((draw.randrange(1, 4), 5), kind) for n in range(24)}
    ids = np.arange(24) if draw.random() < 0.5 else np.array([f"{n}" for n in range(24)], "S3")
    return {"ids": ids, "features": np.ones((24, 5), kind)}


def npz(draw: Draw) -> Files:
    import numpy as np

    stream = io.BytesIO()
    (np.savez if draw.random() < 0.5 else np.savez_compressed)(stream, **features(draw))
    return {"x.npz": stream.getvalue(), "captions.json": captions(draw)}


def hostile_npz(draw: Draw) -> Files:
    """Arrays whose headers declare anything, in a zip that is right."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as file:
        for n in range(24):
            shape = draw.choice(
                ("(1, 5)", "(10**9, 10**9)", "(999999999, 999999999)", "(-1, 5)", "()", "(5,", "(" * 300)
            )
            kind = draw.choice(
                ("'<f4'", "'|O'", "'<U0'", "'<U9999999'", "[('a', '<f4')]", "'<M8[s]'", "None", "9")
            )
            shape, kind = ("(1, 5)", kind) if draw.random() < 0.5 else (shape, "'<f4'")
            order = draw.choice(("False", "False", "3"))
            text = f"{{'descr': {kind}, 'fortran_order': {order}, 'shape': {shape}, }}"
            header = text.encode().ljust(117) + b"\n"
            magic = (
                b"\x93NUMPY" + bytes((draw.choice((1, 1, 1, 2, 3, 9)), 0)) + len(header).to_bytes(2, "little")
            )
            data = bytes(draw.choice((20, 20, 0, 7, 50_000_000 if n == 0 and draw.random() < 0.1 else 20)))
            file.writestr(f"{n}.npy", magic + header + data)
    return {"x.npz": stream.getvalue(), "captions.json": captions(draw)}


def h5(draw: Draw) -> Files:
    import h5py

    stream = io.BytesIO()
    options = draw.choice(({}, {"chunks": True, "compression": "gzip", "shuffle": True, "fletcher32": True}))
    with h5py.File(stream, "w", libver=draw.choice(("earliest", "latest"))) as file:
        for name, values in features(draw).items():
            file.create_dataset(name, data=values, **options)
    return {"x.h5": stream.getvalue(), "captions.json": captions(draw)}


def hostile_h5(draw: Draw) -> Files:
    """Data sets of any size and kind, in a file that is right."""
    import h5py

    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for n in range(24):
            name, kind = str(n), draw.randrange(12)
            if kind == 0:
                file.create_dataset(name, (10**9, 10**9), "f4", chunks=(1, 100))
            elif kind == 1:
                file.create_dataset(
                    name, (1, 5), "f4", maxshape=(None, 5), chunks=(30_000_000, 5), compression="gzip"
                )
            elif kind == 2:
                file[name] = draw.choice(
                    (h5py.ExternalLink("x.h5", "/1"), h5py.SoftLink("/1"), h5py.Empty("f4"), "text")
                )
            elif kind == 3:
                file.create_group(name)
            elif kind == 4:
                file.create_dataset(
                    name, (1, 5), draw.choice(("i4", "c8", "S3", h5py.string_dtype(), h5py.vlen_dtype("f4")))
                )
            else:
                file.create_dataset(name, data=[[1.0] * 5])
    return {"x.h5": stream.getvalue(), "captions.json": captions(draw)}


def pictures(draw: Draw, kind: str) -> Files:
    from PIL import Image

    stream = io.BytesIO()
    mode = draw.choice(("RGB", "L") if kind == "JPEG" else ("RGB", "L", "RGBA", "P", "I;16", "1"))
    Image.new(mode, (draw.randrange(1, 40), draw.randrange(1, 40)), 1).save(stream, kind)
    return {**{f"images/{n}.png": stream.getvalue() for n in range(24)}, "captions.json": captions(draw)}


def png(draw: Draw) -> Files:
    return pictures(draw, "PNG")


def jpeg(draw: Draw) -> Files:
    return pictures(draw, "JPEG")


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────


def task(name: str, **options: Any) -> Any:
    import rlseq

    env = rlseq.make(f"rlseq/{name}-v0", num_envs=2, seed=0, **options)
    env.reset()
    return env


def pairs(place: Path, draw: Draw) -> Any:
    level = draw.choice((None, "char", "word"))
    return task("Parallel", path=str(place), skip_bad=draw.random() < 0.5, level=level, reward="edit")


def captioned(place: Path, draw: Draw, **options: str) -> Any:
    path = str(place / "captions.json")
    return task(
        "Captions", path=path, image_size=8, skip_bad=draw.random() < 0.5, reward="edit_distance", **options
    )


FORMATS: dict[str, tuple[Callable[[Draw], Files], Callable[[Path, Draw], Any]]] = {
    "tsv": (tsv, lambda place, draw: pairs(place / "x.tsv", draw)),
    "jsonl": (jsonl, lambda place, draw: pairs(place / "x.jsonl", draw)),
    "aligned": (aligned, lambda place, draw: pairs(place / "x.src", draw)),
    "folder": (folder, pairs),
    "texts": (
        texts,
        lambda place, draw: task("Text", path=str(place / "x.txt"), skip_bad=draw.random() < 0.5),
    ),
    "dictionary": (
        pronunciations,
        lambda place, draw: task("G2P", path=str(place / "x.dict"), skip_bad=draw.random() < 0.5),
    ),
    "npz": (npz, lambda place, draw: captioned(place, draw, features=str(place / "x.npz"))),
    "hostile npz": (hostile_npz, lambda place, draw: captioned(place, draw, features=str(place / "x.npz"))),
    "h5": (h5, lambda place, draw: captioned(place, draw, features=str(place / "x.h5"))),
    "hostile h5": (hostile_h5, lambda place, draw: captioned(place, draw, features=str(place / "x.h5"))),
    "png": (png, lambda place, draw: captioned(place, draw, images=str(place / "images"))),
    "jpeg": (jpeg, lambda place, draw: captioned(place, draw, images=str(place / "images"))),
    "cache": (tsv, lambda place, draw: damaged_cache(place / "x.tsv", draw)),
}


def damaged_cache(path: Path, draw: Draw) -> Any:
    """The same corpus, whatever has become of the cache meanwhile."""
    first = task("Parallel", path=str(path), reward="edit")
    vocab, texts = first.vocab, first.corpus.texts()  # whose arrays are in the file that is changed below
    for kept in Path(os.environ["RLSEQ_CACHE"]).iterdir():
        file = draw.choice(sorted(kept.iterdir()))
        file.write_bytes(draw.choice(MUTATIONS)(draw, file.read_bytes()))
    again = task("Parallel", path=str(path), reward="edit")
    if texts != again.corpus.texts() or vocab != again.vocab:
        raise AssertionError("a damaged cache was read")
    return again


def outcome(number: int, seed: int, folder: Path) -> tuple[str, str, str]:
    """Write one input and read it: its format, `read`, `refused` or what is wrong, and the message."""
    name = list(FORMATS)[number % len(FORMATS)]
    make, read = FORMATS[name]
    draw = Draw(f"{seed} {number}")
    files = make(draw)
    for _ in range(draw.choice((0, 1, 1, 1, 2, 5)) if name != "cache" else 0):
        victim = draw.choice(sorted(files))
        files[victim] = draw.choice(MUTATIONS)(draw, files[victim])
    place = folder / str(number)
    for file, content in files.items():
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        (place / file).write_bytes(content)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        read(place, draw)
        result = name, "read", ""
    except (ValueError, FileNotFoundError) as error:
        result = name, judged(error, files), f"{type(error).__name__}: {error!s:.500}"
    except Exception as error:
        result = name, type(error).__name__, f"{error!s:.500}"
    if (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 > MEMORY / 2:
        result = name, "memory", result[2]
    if time.process_time() - started > SECONDS:
        result = name, "slow", result[2]
    kept = Path(os.environ["RLSEQ_CACHE"])
    if not all(
        re.fullmatch("[0-9a-f]{32}", other.name) and (other / "checksums.txt").exists()
        for other in kept.iterdir()
    ):
        result = name, "half-written", str(list(kept.iterdir()))
    shutil.rmtree(place)
    for other in kept.iterdir():
        shutil.rmtree(other)
    return result


def judged(error: Exception, files: Files) -> str:
    """Whether a refusal names a file, in a message that can be read."""
    message = str(error)
    if type(error).__name__ in ("UnicodeEncodeError", "UnicodeDecodeError", "JSONDecodeError"):
        return type(error).__name__
    if not any(Path(name).name in message for name in files) and "images" not in message:
        return "no file named"
    if len(message) > 3000 or not all(line.isprintable() for line in message.split("\n")):
        return "unreadable message"
    return "refused"


def outcomes(seed: int, first: int, last: int, folder: Path) -> Iterator[tuple[int, str, str, str]]:
    for number in range(first, last):
        yield (number, *outcome(number, seed, folder))


def main() -> None:
    seed, first, last = map(int, sys.argv[1:4])
    folder = Path(sys.argv[4])
    os.environ.update(LIMITS, RLSEQ_CACHE=str(folder / "cache"))
    (folder / "cache").mkdir(parents=True, exist_ok=True)
    import h5py  # noqa: F401
    import PIL.Image  # noqa: F401
    import torch

    from rlseq.data import cache

    cache.WORTH = 1
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    task("Captions", scenes=2)  # what is imported when it is used
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    for line in outcomes(seed, first, last, folder):
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
