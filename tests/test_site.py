"""The documentation site builds without warnings, its links lead somewhere, and it loads nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from html import unescape
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

import pytest

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
