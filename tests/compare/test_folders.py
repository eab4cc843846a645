"""Names of tasks and agents as folders, and nothing outside of the comparison's own folder."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest

from rlseq.agents import AGENTS
from rlseq.compare.folders import clear, folder_name
from rlseq.mdp.registry import ids
from tests.compare.conftest import small

HOSTILE = [
    *("", " ", ".", "..", "../x", "/", "/tmp/x", "a/b", "a\\b", "C:\\x", "~", "~/x", "-rf", "a.", "a ", " a"),
    *(
        "con",
        "CON.txt",
        "lpt1",
        "aux.json",
        "a:b",
        "a*b",
        "a?b",
        "<a>",
        "a|b",
        '"a"',
        "é",
        "e\u0301",
        "\u202ea",
    ),
    *("x" * 300, "x" * 301, "my_task-v0", "rlseq_Copy-v0", "rlseq/Copy-v0", "rlseq/Copy_-v0", "$(id)", "%s"),
]


def test_ordinary_names_are_the_names_of_their_folders() -> None:
    for name in (*AGENTS, "start", "sb3-ppo", "reinforce@exact", "scst@constant", "lr=1e-3", "PPO-small.2"):
        assert folder_name(name) == name
    for id in ids():
        assert folder_name(id) == id.replace("/", "_")


def test_different_names_have_different_folders_that_are_no_paths() -> None:
    draw = random.Random(0)
    pieces = ("a", "b", "_", "/", "-v0", "-v1", ".", "~", "@", "A", "con", " ", "\\", "é")
    drawn = {"".join(draw.choices(pieces, k=draw.randint(1, 6))) for _ in range(5000)}
    found: dict[str, str] = {}
    for name in sorted({*HOSTILE, *drawn}):
        folder = folder_name(name)
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.@+=~-]{0,79}", folder), name
        assert not folder.endswith(".")
        assert found.setdefault(folder, name) == name, "two names in one folder"


@pytest.mark.parametrize("agent", ["mle", "sb3-a2c"])
@pytest.mark.parametrize("name", ["/{outside}", "../../../outside", "~", "..", "a/../../../../outside"])
def test_a_name_that_is_a_path_leads_nowhere(tmp_path: Path, agent: str, name: str) -> None:
    outside = tmp_path / "outside"
    (outside / "0").mkdir(parents=True)
    (outside / "0" / "precious.txt").write_text("mine", "utf-8")
    name = name.replace("/{outside}", str(outside))
    change: dict[str, Any] = {"control": None, "rewards": [], "temperatures": False, "metrics": None}
    found = small(tmp_path / "out", agents={name: {"agent": agent}}, seeds=1, budget_tokens=64, **change)
    assert not found.results["failed"]
    assert {path.name for path in tmp_path.iterdir()} == {"out", "outside"}
    assert [p.name for p in outside.rglob("*")] == ["0", "precious.txt"]
    assert (tmp_path / "out" / "runs" / "rlseq_Copy-v0" / folder_name(name) / "0" / "results.json").exists()


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 201, "\ud800", 3, None, ("a",)])
def test_names_that_cannot_be_shown_are_refused(tmp_path: Path, name: Any) -> None:
    with pytest.raises(ValueError, match="the name of an agent must be 1 to 200 printable characters"):
        small(tmp_path / "out", agents={name: {"agent": "mle"}})
    assert not (tmp_path / "out").exists()


def test_names_that_share_a_folder_on_some_systems_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'fast' and 'Fast' differ in upper and lower case only"):
        small(tmp_path / "out", agents={"fast": {"agent": "mle"}, "Fast": {"agent": "mle"}})
    with pytest.raises(ValueError, match="two agents are called 'scst@exact'"):
        small(tmp_path / "out", agents={"scst": {}, "scst@exact": {"agent": "scst", "reward": "exact"}})


@pytest.mark.parametrize("link", ["runs", "runs/rlseq_Copy-v0/mle", "runs/rlseq_Copy-v0/mle/0/samples"])
def test_links_out_of_the_folder_are_refused_and_not_followed(tmp_path: Path, link: str) -> None:
    outside, place = tmp_path / "outside", tmp_path / "out" / link
    outside.mkdir()
    (outside / "precious.txt").write_text("mine", "utf-8")
    place.parent.mkdir(parents=True)
    place.symlink_to(outside)
    with pytest.raises(ValueError, match=f"{re.escape(str(place))} is a link"):
        small(tmp_path / "out", agents="mle")
    assert [path.name for path in outside.rglob("*")] == ["precious.txt"]
    assert not (tmp_path / "out" / "config.json").exists()


def test_a_run_that_begins_again_removes_what_a_run_wrote_and_no_more(
    comparison: Any, tmp_path: Path
) -> None:
    import shutil

    run = tmp_path / "run"
    shutil.copytree(comparison.folder / "runs" / "rlseq_Copy-v0" / "sb3-a2c" / "0", run)
    (run / "notes.txt").write_text("mine", "utf-8")
    (run / "samples" / "mine.txt").write_text("mine", "utf-8")
    clear(run)
    left = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert left == {"lock", "notes.txt", "samples/mine.txt"}
