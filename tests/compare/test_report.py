"""The page in a browser: it renders, says nothing to the console, asks nobody, and shows the results."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from io import StringIO
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
  field.value = ""; field.dispatchEvent(new Event("input"));
  document.querySelector("[data-more]")?.click();
  document.querySelector("[data-differ]").click();
  const differ = document.querySelectorAll("article:not([hidden])").length;
  document.getElementById("theme").click();
  const svg = document.querySelector("svg[data-lines]"), box = svg.getBoundingClientRect();
  svg.dispatchEvent(new PointerEvent("pointermove", { clientX: box.right - 1, clientY: box.top + 9 }));
  const tables = [...document.querySelectorAll(".scroll")].filter((box) => box.offsetParent);
  const scrolls = (box) => box.scrollWidth > box.clientWidth + 1;
  const said = { requests: performance.getEntriesByType("resource").length, open, differ,
    tip: [...document.querySelector(".tip").children].map((row) => row.textContent),
    marks: svg.querySelectorAll("circle").length,
    wide: document.documentElement.scrollWidth > innerWidth,
    hints: tables.every((box) => box.previousElementSibling.hidden !== scrolls(box)),
    scrolls: tables.filter(scrolls).length,
    theme: document.documentElement.dataset.theme };
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


def answer(seen: str) -> Any:
    """What the probe found in a page."""
    probe = re.search(r'data-probe="([^"]*)"', seen)
    assert probe is not None, "the scripts of the page did not run"
    return json.loads(unescape(probe.group(1)))


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
    said = answer(seen)
    assert said["requests"] == 0
    assert said["theme"] == "dark"
    assert not said["wide"], "only tables may scroll sideways"
    assert said["hints"], "a table that scrolls says so, and no other"
    assert width > 390 or said["scrolls"] > 1
    assert said["open"] == sum(word in str(list(sample.values())) for sample in task["samples"])
    texts = [{text["text"] for text in sample["texts"].values()} for sample in task["samples"]]
    assert said["differ"] == sum(len(found) > 1 for found in texts)
    agents = [agent for agent in task["agents"] if agent["name"] != "start"]
    assert said["marks"] == len(agents)
    assert said["tip"][1:] == [
        f"{agent['name']} {end['estimate']:.3f} [{end['low']:.3f}, {end['high']:.3f}]"
        for agent in agents
        for end in agent["curve"][-1:]
    ]
    assert said["tip"][0].endswith(" tokens")
    cells = Cells()
    cells.feed(seen)
    for table in tables.tables(task):
        shown = [[" ".join(cell.split()) for cell in row] for row in cells.tables[table.name][1:]]
        if table.name == "scores":
            shown = [[*row[:2], *row[3:]] for row in shown]  # the picture of the interval is no text
        assert shown == [list(row) for row in table.rows]
    assert len(re.findall(r'<svg role="img"', seen)) == 4  # three curves, one sweep of temperatures


def test_intervals_have_an_axis_and_marks_where_they_are_cut(comparison: Any) -> None:
    from rlseq.compare.report import _bars, _frame, _ticks

    task = json.loads(json.dumps(comparison.results["tasks"][0]))
    scores = [agent["scores"]["reward"] for agent in tables.ranked(task)]
    for rank, score in enumerate(scores):
        score |= {
            "estimate": 0.9 - 0.1 * rank,
            "low": 0.85 - 0.1 * rank,
            "high": 0.95 - 0.1 * rank,
            "cut": [],
        }
    scores[0] |= {"high": 1.0, "cut": ["high"]}
    scores[1] |= {"low": -5.0}
    low, high = _frame(task)
    assert low == pytest.approx(0.9 - 0.1 * (len(scores) - 1) - 0.35 * 0.1 * (len(scores) - 1))
    assert high == pytest.approx(1.0)
    bars = _bars(task)
    assert [bar["cut"] for bar in bars[:2]] == ["cut-high", ""]
    assert [bar["beyond"] for bar in bars[:2]] == ["", "low"]
    assert bars[1]["low"] == 0
    ticks = _ticks(task)
    assert 3 <= len(ticks) <= 6
    for place, label in ticks:
        assert place == pytest.approx(100 * (float(label) - low) / (high - low), abs=0.01)


def test_settings_of_every_agent_are_listed_with_defaults(comparison: Any) -> None:
    table = tables.hyper_parameters(comparison.results["tasks"][0])
    assert table.head[:4] == ["setting", "start", "mle", "reinforce"]
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["lr"][:3] == ["0.01", "0.001", "0.01"]
    assert rows["entropy"][2] == "0"
    assert {row[table.head.index("sb3-a2c")] for row in table.rows} == {tables.LACKING}, "not known here"
    assert table.caption.endswith(tables.STOCK_SAYS)
    assert rows["baseline"][0] == tables.LACKING
    differing = [len({cell for cell in row[1:] if cell != tables.LACKING}) > 1 for row in table.rows]
    assert differing == sorted(differing, reverse=True)


def test_a_stock_agent_has_no_hyper_parameters_of_ours(comparison: Any) -> None:
    """Their defaults are those of stable-baselines3, which no file holds."""
    from rlseq.compare.run_report import RunReport

    table = RunReport.load(comparison.folder / "runs/rlseq_Copy-v0/sb3-a2c/0").settings()
    assert [row for row in table.rows if row[0] == "agent"] == [["agent", "class", "sb3-a2c"]]
    assert table.caption.endswith(tables.STOCK_SAYS)


def test_every_seed_has_a_curve(comparison: Any) -> None:
    for agent in comparison.results["tasks"][0]["agents"]:
        assert len(agent["seed_curves"]) == len(agent["seeds"])
        ends = [curve[-1]["reward"] for curve in agent["seed_curves"]]
        assert ends == agent["scores"]["reward"]["runs"]


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


def test_tables_of_the_terminal_are_readable_at_80_columns(comparison: Any) -> None:
    """No score is broken over lines: where there is no room, the interquartile mean is left to the page."""
    from rich.console import Console

    task = comparison.results["tasks"][0]
    intervals = [tables.interval(agent["scores"]["reward"]) for agent in task["agents"]]
    for width, middle in ((80, False), (140, True)):
        console = Console(width=width, record=True, file=StringIO())
        console.print(comparison.table(), tables.rich_samples(task, 2))
        shown = console.export_text()
        assert max(map(len, shown.splitlines())) <= width
        assert all(interval in shown for interval in intervals)
        assert ("IQM" in shown) == middle
        for sample in task["samples"][:2]:
            for name, written in sample["texts"].items():
                assert re.search(rf"{re.escape(name)} +{re.escape(written['text'])} +[\d.]+", shown)
