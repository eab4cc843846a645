"""Limits of what is allocated for a file, as a small file can declare more than any machine holds.

Each limit is an environment variable, which raises or lowers it.
"""

from __future__ import annotations

import os

LINE_BYTES = "RLSEQ_MAX_LINE_BYTES"
JSON_BYTES = "RLSEQ_MAX_JSON_BYTES"
FEATURE_BYTES = "RLSEQ_MAX_FEATURE_BYTES"
IMAGE_PIXELS = "RLSEQ_MAX_IMAGE_PIXELS"

DEFAULTS = {
    LINE_BYTES: 100_000,  # of a text file; what is longer is no sentence, but a file without line ends
    JSON_BYTES: 1 << 28,  # of a file of captions; Python needs up to 25 times as much to hold it
    FEATURE_BYTES: 1 << 33,  # of the features of a task, unpacked
    IMAGE_PIXELS: 89_478_485,  # of an image, as Pillow has it: 256 MiB of colours
}


def limit(name: str) -> int:
    """Return the limit of that name, from the environment, or its default."""
    given = os.environ.get(name, "")
    if not given:
        return DEFAULTS[name]
    if not given.isdecimal() or int(given) < 1:
        raise ValueError(f"{name} must be an integer ≥ 1, got {given!r:.80}")
    return int(given)


def check_size(what: str, size: int, name: str) -> None:
    """Refuse a size beyond a limit; `what` names the file."""
    if size > (most := limit(name)):
        unit = name.rpartition("_")[2].lower()
        raise ValueError(f"{what}: {size:,} {unit}, more than the limit of {most:,}; if meant: {name}={size}")
