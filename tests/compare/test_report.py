"""The page in a browser: it renders, says nothing to the console, asks nobody, and shows the results."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from rlseq.compare import tables

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on PATH")

PROBE = """<script>
addEventListener("load", () => {
  const field = document.querySelector("[data-search]");
  field.value = "QUERY"; field.dispatchEvent(new Event("input"));
  const open = document.querySelectorAll("article:not([hidden])").length;
  document.getElementById("theme").click();
  const said = { requests: performance.getEntriesByType("resource").length, open,
    theme: document.documentElement.dataset.theme, wide: document.documentElement.scrollWidth > innerWidth };
  document.body.dataset.probe = JSON.stringify(said);
});
</script></body>"""


class Cells(HTMLParser):
    """The text of every cell of every table, by the table's name."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.name, self.inside = "", False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.name = dict(attrs).get("data-table") or ""
            self.tables[self.name] = []
        elif tag == "tr" and self.name:
            self.tables[self.name].append([])
        elif tag in ("td", "th") and self.name:
            self.tables[self.name][-1].append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self.name = ""
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.tables[self.name][-1][-1] += data


def opened(page: Path, width: int, folder: Path) -> tuple[str, str]:
    """The page as the browser sees it after its scripts have run, and what the console said."""
    command = [
        *(str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"),
        *(
            f"--user-data-dir={folder / 'profile'}",
            f"--window-size={width},900",
            "--virtual-time-budget=2000",
        ),
        *("--dump-dom", page.as_uri()),
    ]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return found.stdout, "\n".join(line for line in found.stderr.splitlines() if "CONSOLE" in line)


@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_in_a_browser(comparison: Any, tmp_path: Path, width: int) -> None:
    html = comparison.save(tmp_path).read_text("utf-8")
    task = comparison.results["tasks"][0]
    word = task["samples"][7]["source"]
    (tmp_path / "probed.html").write_text(
        html.replace("</body>", PROBE.replace("QUERY", word)), encoding="utf-8"
    )
    seen, console = opened(tmp_path / "probed.html", width, tmp_path)
    assert console == ""
    probe = re.search(r'data-probe="([^"]*)"', seen)
    assert probe is not None, "the scripts of the page did not run"
    said = probe.group(1).replace("&quot;", '"')
    assert '"requests":0' in said
    assert '"theme":"dark"' in said
    assert '"wide":false' in said, "only tables may scroll sideways"
    hits = sum(word in str(list(sample.values())) for sample in task["samples"])
    assert f'"open":{hits}' in said
    cells = Cells()
    cells.feed(seen)
    for table in tables.tables(task):
        shown = [[" ".join(cell.split()) for cell in row] for row in cells.tables[table.name][1:]]
        if table.name == "scores":
            shown = [[*row[:2], *row[3:]] for row in shown]  # the picture of the interval is no text
        assert shown == [list(row) for row in table.rows]
    assert len(re.findall(r'<svg role="img"', seen)) == 4  # three curves, one sweep of temperatures


def test_the_page_names_no_other_place(comparison: Any, tmp_path: Path) -> None:
    """Nothing to fetch, whatever reads it; addresses of namespaces are names."""
    html = comparison.save(tmp_path).read_text("utf-8")
    places = set(re.findall(r"""(?:src|href|action|url)\s*[=(]\s*["']?(?!#|data:)([^"')\s>]+)""", html))
    assert places == set()
    others = set(re.findall(r"https?://[^\s\"'<]+", html))
    assert others <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert len(html) < 1_000_000


def test_text_of_others_is_only_text(comparison: Any) -> None:
    """What a model writes may look like HTML."""
    import copy

    from rlseq.compare.report import page

    results = copy.deepcopy(comparison.results)
    results["tasks"][0]["samples"][0]["texts"]["mle"]["text"] = "<script>alert(1)</script>"
    assert "<script>alert" not in page(results)
    assert "&lt;script&gt;alert" in page(results)
