"""What a wheel contains, and what a fresh import of it loads."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the sources."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("rlseq", "envs", "agents"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return next(out.glob("rlseq-*.whl"))


def test_a_wheel_contains_the_linked_packages(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("envs", "agents"):
        wanted = {f"rlseq/{path.relative_to(ROOT)}" for path in (ROOT / folder).rglob("*.py")}
        assert wanted <= names
    assert {"rlseq/py.typed", "rlseq/feedback/templates/label.html"} <= names
    assert not any(name.startswith(("envs/", "agents/", "tests/", "benchmarks/")) for name in names)


def test_a_wheel_imports_and_runs(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = (
        "import rlseq, rlseq.envs, rlseq.agents, rlseq.envs.oracle\n"
        f"assert rlseq.__file__.startswith({str(tmp_path)!r}), rlseq.__file__\n"
        "env = rlseq.make('rlseq/Copy-v0', num_envs=2)\n"
        "agent = rlseq.make_agent('reinforce', rlseq.make_policy('lstm', env, hidden=4, embedding=4))\n"
        "agent.update(agent.collect(env))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
