"""Compile and load the device guard that PyTorch without CUDA insists on; before torch is imported."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("guard.cpp")


class NoCompiler(RuntimeError):
    """There is nothing with which the guard could be compiled."""


def load(folder: Path | None = None) -> None:
    """Load the guard into this process; it is compiled once, in seconds, and kept in a folder.

    Args:
        folder: where the compiled guard is kept; in the temporary folder of this user if not given.
    """
    if "torch" in sys.modules:
        raise RuntimeError("the guard must be loaded before torch is imported; start a process for it")
    ctypes.CDLL(str(compiled(folder or kept_in())), mode=ctypes.RTLD_GLOBAL)


def kept_in() -> Path:
    """Return the folder of this user's compiled guards."""
    return Path(tempfile.gettempdir()) / f"rlseq-pretended-{os.getuid()}"


def compiled(folder: Path) -> Path:
    """Return the path of the compiled guard, which is compiled if this source and torch are new."""
    version = importlib.metadata.version("torch")
    key = hashlib.sha256(SOURCE.read_bytes() + version.encode()).hexdigest()[:16]
    library = folder / f"guard-{key}.so"
    if library.exists():
        return library
    compiler = shutil.which("g++")
    if compiler is None or sys.platform != "linux":
        raise NoCompiler("a pretended CUDA device needs Linux and g++")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = folder / f"{os.getpid()}.so"
    answer = subprocess.run(
        [compiler, *arguments(torch_folder(), draft)],
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        raise RuntimeError(f"the guard cannot be compiled: {answer.stderr[-2000:]}")
    draft.replace(library)
    return library


def torch_folder() -> Path:
    """Return where torch is installed, without importing it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("torch is not installed")
    return Path(spec.origin).parent


def arguments(torch: Path, library: Path) -> list[str]:
    """Return the compiler's arguments."""
    headers = [f"-I{torch / 'include'}", f"-I{torch / 'include/torch/csrc/api/include'}"]
    libraries = [f"-L{torch / 'lib'}", "-lc10", "-ltorch_cpu", f"-Wl,-rpath,{torch / 'lib'}"]
    return ["-O0", "-shared", "-fPIC", "-std=c++20", *headers, str(SOURCE), "-o", str(library), *libraries]
