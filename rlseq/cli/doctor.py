"""Versions, devices and optional packages, with the command that installs a missing one."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from rlseq.utils.processors import processors
from rlseq.utils.version import __version__

CORE = ("torch", "gymnasium", "numpy", "scipy", "safetensors", "sacrebleu", "stable-baselines3", "tyro")
# The name of each optional part, the modules or programs of which it needs one, its use, how to install it.
OPTIONAL: tuple[tuple[str, tuple[str, ...], str, str], ...] = (
    ("tensorboard", ("tensorboard",), "curves in TensorBoard", "pip install 'rlseq[log]'"),
    ("wandb", ("wandb",), "Weights & Biases", "pip install 'rlseq[log]'"),
    ("trackio", ("trackio",), "a local tracker of experiments", "pip install 'rlseq[track]'"),
    ("optuna", ("optuna",), "a search for hyper-parameters", "pip install 'rlseq[tune]'"),
    ("java", ("java",), "METEOR and SPICE", "apt-get install default-jre-headless"),
    ("compiler", ("g++", "c++", "clang++"), "torch.compile on processors", "apt-get install g++"),
    ("rliable", ("rliable",), "a test of the statistics", "pip install 'rlseq[test]'"),
    ("chromium", ("chromium", "google-chrome"), "a test of the page", "apt-get install chromium"),
)


def findings() -> Iterator[tuple[str, str, str]]:
    """Yield the name of each package or device, its state, and the command that installs it."""
    yield "python", platform.python_version(), ""
    yield "rlseq", __version__, ""
    for name in CORE:
        try:
            yield name, version(name), ""
        except PackageNotFoundError:
            yield name, "missing", "pip install rlseq"
    import torch

    free = f"{processors()} of {os.cpu_count()} for this process"
    yield "processors", f"{free} ({torch.get_num_threads()} threads in torch)", ""
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            yield f"cuda:{i}", torch.cuda.get_device_name(i), ""
    else:
        only = "" if torch.version.cuda else "this torch is for processors only; pytorch.org has others"
        yield "cuda", "none", only
    for name, wanted, use, command in OPTIONAL:
        look = find_spec if command.startswith("pip") else shutil.which
        there = any(map(look, wanted))
        yield name, f"{'here' if there else 'missing'}: {use}", "" if there else command


def doctor() -> None:
    """Print all findings."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False)
    for name, state, mend in findings():
        table.add_row(name, Text(state, "yellow" if state.startswith("missing") else ""), Text(mend))
    Console().print(table)
