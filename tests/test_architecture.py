"""The arrows between the rooms of the package: only those of the table, and no circle."""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Each room and the rooms directly below it; a room may import from everything that these reach.
BELOW = {
    "cli": "recipe data auditing feedback",
    "auditing": "agents",
    "recipe": "compare data",
    "feedback": "compare data",
    "compare": "training",
    "training": "agents adapters envs",
    "agents": "value_based discriminators",
    "envs": "data policies",
    "adapters": "policy_gradient policies",
    "discriminators": "policies",
    "value_based": "policy_gradient",
    "policies": "engine",
    "policy_gradient": "engine",
    "engine": "mdp metrics",
    "data": "metrics vocab",
    "mdp": "vocab types",
    "metrics": "vocab types",
    "vocab": "utils",
    "types": "utils",
    "utils": "",
}
# Names that several modules define because they are one verb, one setting of tasks or one paper's word.
SHARED = {
    *("compare", "evaluate", "fit", "generate", "load", "make", "register", "train", "tune"),
    *("reward_to_go", "MIXER", "REPORTED", "SPLITS", "M"),
}
FACADE = "rlseq"  # the table of public names, which the rooms do not import


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
ROOMS = sorted({name for name in MODULES if name not in (FACADE, "rlseq.__main__")})


def imports(path: Path) -> set[str]:
    """Modules of the product that a file imports, inside functions too."""
    named = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            named |= parts if parts <= MODULES.keys() else parts | {node.module}
    return {name for name in named if name in MODULES}


def room(module: str) -> str:
    """The sub-package of a module, or the module itself at the root."""
    return module.split(".")[1] if "." in module else FACADE


def reached(name: str) -> set[str]:
    """All rooms below a room."""
    direct = set(BELOW[name].split())
    return direct.union(*(reached(other) for other in direct)) if direct else set()


def test_the_links_are_there() -> None:
    for part in ("envs", "agents"):
        link = ROOT / "rlseq" / part
        assert link.is_symlink()
        assert link.readlink() == Path("..") / part


def test_the_root_holds_at_most_five_files() -> None:
    assert len(list((ROOT / "rlseq").glob("*.py"))) <= 5


def test_every_room_is_in_the_table() -> None:
    assert {room(module) for module in ROOMS} == set(BELOW)


@pytest.mark.parametrize("module", ROOMS)
def test_a_module_imports_only_from_rooms_below_its_own(module: str) -> None:
    own = room(module)
    seen = {room(other) for other in imports(MODULES[module])} - {own}
    assert seen <= reached(own), f"{module} imports from {sorted(seen - reached(own))}"


def test_there_is_no_circle_of_modules() -> None:
    graph = {name: imports(path) - {name} for name, path in MODULES.items() if name != FACADE}
    state: dict[str, int] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert state.get(name) != 1, " → ".join((*path, name))
        if name not in state:
            state[name] = 1
            for other in sorted(graph.get(name, ())):
                visit(other, (*path, name))
            state[name] = 2

    for name in graph:
        visit(name, ())


def test_a_public_name_is_defined_in_one_module() -> None:
    """Classes, functions, constants and aliases: one name for one thing, wherever it is read."""
    homes: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            for name in [node.name] if isinstance(node, (ast.ClassDef, ast.FunctionDef)) else names:
                homes.setdefault(name, set()).add(module)
    several = {name: where for name, where in homes.items() if len(where) > 1 and not name.startswith("_")}
    assert several.keys() <= SHARED, several


def test_relative_imports_are_not_used() -> None:
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{module}: use absolute imports"


def test_the_drawing_and_the_table_of_the_docs_have_these_arrows() -> None:
    script = ROOT / "benchmarks" / "rooms.py"
    made, drawn = runpy.run_path(str(script))["drawing"](), ROOT / "docs" / "images" / "rooms.svg"
    assert made == drawn.read_text("utf-8"), "run python benchmarks/rooms.py"
    rows = re.findall(
        r"^\| (`[^|]*) \| [^|]* \| ?([^|]*)\|$",
        (ROOT / "docs" / "how" / "design.md").read_text("utf-8"),
        flags=re.M,
    )
    found = {
        room: set(re.findall(r"`(\w+)`", below))
        for rooms, below in rows
        for room in re.findall(r"`(\w+)`", rooms)
    }
    for room_, below in BELOW.items():
        assert found[room_] == set(below.split()), room_


def test_files_that_the_design_names_exist() -> None:
    text = (ROOT / "docs" / "how" / "design.md").read_text("utf-8")
    for name in re.findall(r"`((?:rlseq|agents|envs|tests|benchmarks)/[\w/]+\.\w+)`", text):
        assert (ROOT / name).is_file(), name
