"""Results of benchmarks as JSON, with commit, machine and command."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Return the machine on which the numbers were measured."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpu": gpu,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def write(name: str, results: Any, folder: Path = RESULTS, command: str | None = None) -> Path:
    """Write `NAME.json`, whole or not at all."""
    folder.mkdir(exist_ok=True)
    command = command or shlex.join(["python", *sys.argv])
    content = {"command": command, "commit": COMMIT, "machine": machine(), "results": results}
    path, draft = folder / f"{name}.json", folder / f".{name}.json"
    draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    draft.replace(path)
    return path


def commit() -> str:
    """Return the commit, with a mark where files differ from it."""

    def git(*arguments: str) -> str:
        here = Path(__file__).parent  # the working folder may be another
        found = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=False)
        return found.stdout.strip()

    # Results and the tables made from them are what runs write: only code makes another run.
    code = [":/*.py", ":/*.toml", ":/constraints.txt"]
    changed = git("status", "--porcelain", "--untracked-files=no", "--", *code)
    return git("rev-parse", "--short=12", "HEAD") + (" with changes" if changed else "")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


COMMIT = commit()  # when the run starts: what is written meanwhile is not what ran
