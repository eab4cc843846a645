"""Every Python and shell snippet of the README and the docs runs, in a process of its own."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.forked import Forked

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TOKENS, SEEDS = "2e3", "1"  # of a shell snippet when it is tested
MINUTES, UPDATES = "0.1", "8"  # of a notebook
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}  # as other tests run beside this one
NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))


def with_a_model(code: str, folder: Path) -> None:
    """Put the tiny pretrained model and the pairs into a folder that the snippets of a page name."""
    if "my-t5" in code:
        from tests.pretrained.tiny import saved, with_weights

        with_weights(saved("t5", folder / "settings"), folder / "my-t5")
        lines = (f"a {size} boat {i}\tun barco {i} {size}\n" for i in range(30) for size in ("small", "big"))
        (folder / "pairs.tsv").write_text("".join(lines), "utf-8")


def snippets(page: Path, language: str) -> list[str]:
    """Return the snippets of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)


SNIPPETS = [
    pytest.param(code, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES[1:]  # the README has a test of its own
    for number, code in enumerate(snippets(page, "python"))
]
SHELL = [page for page in PAGES if snippets(page, "shell")]


@pytest.fixture(scope="module")
def forked() -> Iterator[Forked]:
    process = Forked("torch", "torch._dynamo", "scipy.stats", options=("-W", "error::UserWarning"))
    yield process
    process.close()


@pytest.mark.parametrize("code", SNIPPETS)
def test_a_snippet_runs(code: str, forked: Forked, tmp_path: Path) -> None:
    with_a_model(code, tmp_path)
    result = forked.run(code, tmp_path)
    assert result.returncode == 0, result.stderr


def test_the_lines_of_the_readme_learn(tmp_path: Path) -> None:
    (lines,) = snippets(ROOT / "README.md", "python")
    result = subprocess.run(
        [sys.executable, "-c", lines],
        cwd=tmp_path,
        env=ONE_THREAD,
        capture_output=True,
        text=True,
        check=True,
    )
    before, after = (float(line.split(": ")[1]) for line in result.stdout.splitlines())
    assert before < 0.95 < after, result.stdout


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    """With less time and fewer updates than are written there."""
    copy = tmp_path / path.name
    shorter = re.sub(r"\bminutes=[\d.]+", f"minutes={MINUTES}", path.read_text("utf-8"))
    copy.write_text(re.sub(r"\bupdates=\d+", f"updates={UPDATES}", shorter), "utf-8")
    script = ROOT / "docs" / "_extensions" / "notebook.py"
    result = subprocess.run(
        [sys.executable, script, copy], env=ONE_THREAD, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    outputs = [cell["outputs"] for cell in json.loads(copy.read_text("utf-8"))["cells"] if "outputs" in cell]
    assert outputs != []
    assert all(outputs)
    stored = [cell["outputs"] for cell in json.loads(path.read_text("utf-8"))["cells"] if "outputs" in cell]
    assert all(stored), f"run python docs/_extensions/notebook.py {path.relative_to(ROOT)}"


@pytest.mark.parametrize("page", SHELL, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_run(page: Path, forked: Forked, tmp_path: Path) -> None:
    """With smaller budgets than are written there, one after the other in one folder."""
    commands = "".join(snippets(page, "shell"))
    with_a_model(commands, tmp_path)
    commands = re.sub(r"(--budget-tokens) \S+", rf"\1 {TOKENS}", commands)
    commands = re.sub(r"(--seeds) \S+", rf"\1 {SEEDS}", commands)
    for line in commands.replace("\\\n", "").splitlines():
        program, *words = shlex.split(line)
        assert program == "rlseq", f"{page.name}: a snippet of a shell holds commands of rlseq only"
        code = f"import warnings; warnings.simplefilter('default'); from rlseq.cli import main; main({words})"
        result = forked.run(code, tmp_path)
        assert result.returncode == 0, (line, result)


def test_tables_are_those_of_the_committed_results() -> None:
    command: list[str | Path] = [sys.executable, ROOT / "benchmarks" / "tables.py", "--check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
