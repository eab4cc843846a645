"""What is here and what is missing: versions, devices, and the command that adds each optional part."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

CORE = (
    "rlseq",
    "torch",
    "gymnasium",
    "numpy",
    "scipy",
    "safetensors",
    "sacrebleu",
    "stable-baselines3",
    "tyro",
)


Part = tuple[str, Callable[[], bool], str, str]


OPTIONAL: tuple[Part, ...] = (
    ("tensorboard", lambda: _importable("tensorboard"), "curves in TensorBoard", "pip install 'rlseq[log]'"),
    ("wandb", lambda: _importable("wandb"), "Weights & Biases", "pip install 'rlseq[log]'"),
    ("java", lambda: _on_path("java"), "METEOR and SPICE", "apt-get install default-jre-headless"),
    (
        "compiler",
        lambda: _on_path("g++", "c++", "clang++"),
        "torch.compile on processors",
        "apt-get install g++",
    ),
    ("rliable", lambda: _importable("rliable"), "a test of the statistics", "pip install 'rlseq[test]'"),
    (
        "chromium",
        lambda: _on_path("chromium", "google-chrome"),
        "a test of the page",
        "apt-get install chromium",
    ),
)


def _importable(name: str) -> bool:
    return find_spec(name) is not None


def _on_path(*names: str) -> bool:
    return any(map(shutil.which, names))


def findings() -> Iterator[tuple[str, str, str]]:
    """Name, state, and what to do; in order."""
    yield "python", platform.python_version(), ""
    for name in CORE:
        try:
            yield name, version(name), ""
        except PackageNotFoundError:
            yield (
                name,
                "from source" if name == "rlseq" else "missing",
                "" if name == "rlseq" else "pip install rlseq",
            )
    import torch

    yield "processors", f"{os.cpu_count()} ({torch.get_num_threads()} threads in torch)", ""
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            yield f"cuda:{i}", torch.cuda.get_device_name(i), ""
    else:
        yield (
            "cuda",
            "none",
            "" if torch.version.cuda else "this torch is for processors only; pytorch.org has others",
        )
    for name, there, use, command in OPTIONAL:
        yield name, f"here: {use}" if there() else f"missing: {use}", "" if there() else command


def doctor() -> None:
    """Print all findings."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False)
    for name, state, mend in findings():
        table.add_row(name, Text(state, "yellow" if state.startswith("missing") else ""), Text(mend))
    Console().print(table)
