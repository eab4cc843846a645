"""The arrows of the house: agents → rlseq ← envs, and no circles."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FACADES = {
    "rlseq",
    "rlseq.cli",
    "rlseq.commands",
    "rlseq.compare.plan",
    "rlseq.demo",
    "rlseq.__main__",
}  # may see everything


def modules() -> dict[str, Path]:
    """Every module of the product by its name, found without following the links."""
    found = {}
    for folder, prefix in (("rlseq", "rlseq"), ("envs", "rlseq.envs"), ("agents", "rlseq.agents")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if folder == "rlseq" and path.relative_to(ROOT).parts[1] in ("envs", "agents"):
                continue
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join((prefix, *(part for part in parts if part != "__init__")))] = path
    return found


MODULES = modules()
FACADES |= {name for name in MODULES if name.startswith("rlseq.compare")}  # which runs whatever has a name


def imports(path: Path, everywhere: bool) -> set[str]:
    """Modules of ours that a file imports; `everywhere` counts the ones inside functions too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    named = set()
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            named |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return {name for name in named if name in MODULES}


def home(module: str) -> str:
    for part in ("envs", "agents"):
        if module == f"rlseq.{part}" or module.startswith(f"rlseq.{part}."):
            return part
    return "core"


def test_the_links_are_there() -> None:
    for part in ("envs", "agents"):
        link = ROOT / "rlseq" / part
        assert link.is_symlink()
        assert link.readlink() == Path("..") / part


@pytest.mark.parametrize("module", sorted(set(MODULES) - FACADES))
def test_arrows_run_one_way(module: str) -> None:
    seen = {home(name) for name in imports(MODULES[module], everywhere=True)}
    allowed = {"core": {"core"}, "envs": {"core", "envs"}, "agents": {"core", "agents"}}[home(module)]
    assert seen <= allowed, f"{module} imports from {seen - allowed}"


def test_there_is_no_circle() -> None:
    graph = {name: imports(path, everywhere=True) - {"rlseq", name} for name, path in MODULES.items()}
    for facade in FACADES - {name for name in FACADES if name.startswith("rlseq.compare")}:
        graph[facade] = set()
    state: dict[str, int] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert state.get(name) != 1, " → ".join((*path, name))
        if name not in state:
            state[name] = 1
            for other in sorted(graph[name]):
                visit(other, (*path, name))
            state[name] = 2

    for name in graph:
        visit(name, ())


def test_relative_imports_are_not_used() -> None:
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{module}: use absolute imports"
