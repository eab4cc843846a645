"""The documentation site builds without warnings, its links lead somewhere, and it loads nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from html import unescape
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import curves
from tabled import catalogue
from tasks import DESCRIBED

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
NEEDED = ("sphinx", "myst_parser", "furo")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, built with warnings as errors."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        pytest.skip(f"the site is not built without {', '.join(missing)}: pip install '.[docs]'")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-E", "-d", str(out / "trees")]
    result = subprocess.run(
        [*command, "-b", "html", str(DOCS), str(out / "html")], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return out / "html"


@cache
def names_in(page: Path) -> set[str]:
    """Return the anchors of a page."""
    return set(re.findall(r'\bid="([^"]+)"', page.read_text("utf-8")))


def test_links_within_the_site_lead_somewhere(site: Path) -> None:
    dead = set()
    for page in site.rglob("*.html"):
        for link in re.findall(r'<(?:a|img)\b[^>]*\b(?:href|src)="([^"]+)"', page.read_text("utf-8")):
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = unquote(unescape(link)).partition("#")
            target = page if not path else (page.parent / path.partition("?")[0]).resolve()
            if not target.exists() or (
                anchor and target.suffix == ".html" and anchor not in names_in(target)
            ):
                dead.add(f"{page.relative_to(site)} → {link}")
    assert not dead, "\n".join(sorted(dead))


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)="(https?:[^"]+)"', page.read_text()
        )
        assert not loaded, f"{page.relative_to(site)} loads {loaded}"


def test_the_search_knows_the_pages(site: Path) -> None:
    index = (site / "searchindex.js").read_text("utf-8")
    for word in ("rloo", "bleu", "glossari", "quickstart"):
        assert f'"{word}"' in index or f"{word}:" in index, word


# ── a page for everything that has a name ────────────────────────────────────────────────────────────────

NAMES = """
import json
from rlseq.agents import AGENTS
from rlseq.mdp.registry import ids
from rlseq.metrics.registry import METRICS
from rlseq.policies import POLICIES
print(json.dumps({"agent": [*AGENTS], "task": ids(), "metric": [*METRICS], "policy": [*POLICIES]}))
"""


@pytest.fixture(scope="module")
def registered() -> dict[str, list[str]]:
    """The names that rlseq registers itself, without those of other tests."""
    found = subprocess.run([sys.executable, "-c", NAMES], capture_output=True, text=True, check=True)
    names: dict[str, list[str]] = json.loads(found.stdout)
    return names


@pytest.mark.parametrize("kind", ["agent", "task", "metric", "policy"])
def test_everything_registered_has_a_page(registered: dict[str, list[str]], kind: str) -> None:
    pages = "\n".join(page.read_text("utf-8") for page in DOCS.rglob("*.md"))
    described = re.findall(rf"^```\{{{kind}\}} (\S+)$", pages, re.M)
    missing = set(registered[kind]) - set(described)
    assert not missing, f"describe {', '.join(sorted(missing))} on a page under docs/, by ```{{{kind}}} NAME"


def test_every_task_is_in_the_table_of_all_tasks(registered: dict[str, list[str]]) -> None:
    missing = set(registered["task"]) - {*DESCRIBED}
    assert not missing, f"describe {', '.join(sorted(missing))} in DESCRIBED of benchmarks/tasks.py"


def test_the_page_of_an_agent_names_what_it_is_tested_by(registered: dict[str, list[str]]) -> None:
    for name in registered["agent"]:
        page = (DOCS / "algorithms" / f"{name}.md").read_text("utf-8")
        named = re.findall(r"`(tests/\w+\.py)::(\w+)`", page)
        assert named, f"docs/algorithms/{name}.md names no test"
        for file, test in named:
            assert f"def {test}(" in (ROOT / file).read_text("utf-8"), f"{name}.md: {file} has no {test}"


def test_a_setting_that_an_agent_does_not_have_has_no_published_value() -> None:
    with pytest.raises(ValueError, match="no setting 'sample'"):
        catalogue.agent("rloo", {"sample": "3"})


def test_published_values_stand_beside_defaults() -> None:
    table = catalogue.agent("ppo", {"clip": "0.1"})
    assert "| `clip` | `0.2` | 0.1 |" in table


@pytest.mark.parametrize("draw", [curves.learning, curves.synopses])
def test_drawn_curves_are_those_of_the_results(draw: Callable[[], str]) -> None:
    drawn = (DOCS / "images" / f"{draw.__name__}.svg").read_text("utf-8")
    assert drawn == draw(), "run python benchmarks/curves.py"


def test_curves_are_drawn_within_their_frame() -> None:
    drawn = catalogue.drawing(
        {"a": [[(0.0, 0.1), (10.0, 0.4)], [(0.0, 0.2), (10.0, 0.5)]]}, "tokens", "reward"
    )
    points = [
        tuple(map(float, p.split(",")))
        for line in re.findall(r'points="([^"]+)"', drawn)
        for p in line.split()
    ]
    assert len(points) == 6
    assert all(0 <= x <= catalogue.WIDTH and 0 <= y <= catalogue.HEIGHT for x, y in points)
    assert points[0][1] > points[1][1]  # a larger value is drawn higher
