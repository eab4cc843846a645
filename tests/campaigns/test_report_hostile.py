"""Campaign: hostile text in every field of `results.json` that reaches the page, tables and spreadsheets.

No script runs, the text is read as text, and the page has as many elements as with harmless text.
"""

from __future__ import annotations

import copy
import csv
import io
import random
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from rlseq.compare import tables
from rlseq.compare.report import fragment, page
from tests.compare.conftest import small

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SENTINEL = "sentinel-was-set"
SCRIPT = f"document.body.dataset.{SENTINEL.replace('-', '')}=1;document.title='owned'"
HOSTILE = [
    f"<script>{SCRIPT}</script>",
    f'"><img src=x onerror="{SCRIPT}">',
    f"' onmouseover='{SCRIPT}' style='",
    f"</title></style></script></svg></pre></table><script>{SCRIPT}</script>",
    f"<svg onload={SCRIPT}>]]>&lt;&#0;&amp",
    f"javascript:{SCRIPT}",
    "{{ 7 * 7 }}{% raw %}{# x #}${7*7}<%= 7 %>",
    "| a | b |\n| --- |\n`code` **bold** [link](javascript:x) ![i](x) <b>",
    "```\n# heading\n```",
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r\n=1",
    '"=1","=2"',
    "\u202eright to left\u2066\u2069",
    "\x00\x01\x1b[31m\x7f\x9b\x85",
    "\ud800 half of a pair",
    "$x^{2}$ \\frac{1}{0} %",
    "<!-- -->",
    "[/bold][link=x]",
    "x" * 3000,
    "",
    " ",
    "é 漢字 🙂 \u200d עברית",
]


class Page(HTMLParser):
    """The elements of a page, its attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.attributes: Counter[str] = Counter()
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes.update(name for name, _ in attrs)
        self.text += [value for _, value in attrs if value]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results of a comparison, with one failure and one alarm, made once."""
    found = small(
        tmp_path_factory.mktemp("hostile"),
        agents={"mle": {}, "reinforce": {"lr": 1e-2}},
        rewards=[],
        control=None,
        budget_tokens=400,
        start_tokens=400,
    ).results
    found["failed"] = [{"run": "runs/x", "error": "Traceback\n  ValueError: x"}]
    task = found["tasks"][0]
    task["agents"][1]["alarms"] = [{"seed": 0, "alarm": "x"}]
    task["remarks"] = ["x"]
    task["samples"] = task["samples"][:3]
    for sample in task["samples"]:
        sample["references"] = ["a", "b"]
    return dict(found)


def infected(results: dict[str, Any], text: Callable[[], str]) -> dict[str, Any]:
    """The same results with another text in every field that shows one."""
    found = copy.deepcopy(results)
    found["command"] = text()
    found["machine"] = {**found["machine"], "system": text(), text(): text()}
    found["config"]["note"] = {text(): text()}
    for failure in found["failed"]:
        failure.update(run=text(), error=text())
    for task in found["tasks"]:
        names = {
            agent["name"]: f"{i} {text()}"
            for i, agent in enumerate(task["agents"])
            if agent["name"] != "start"
        }
        alarms: dict[str, str] = {}
        metric = {name: f"{name} {text()}" for name in task["agents"][0]["scores"] if name != "reward"}
        task.update(env=text(), verdict=text(), remarks=[text() for _ in task["remarks"]], tested_on=text())
        for agent in task["agents"]:
            agent["name"] = names.get(agent["name"], agent["name"])
            agent.update(algorithm=text(), reward=text())
            agent["scores"] = {metric.get(name, name): score for name, score in agent["scores"].items()}
            for alarm in agent["alarms"]:  # those that differ in their figures only share a line
                kind = re.sub(r"\d+(?:[.,]\d+)*", "0", alarm["alarm"])
                alarm["alarm"] = alarms.setdefault(kind, f"{chr(ord('a') + len(alarms))} {text()}")
        for pair in task["pairs"]:
            pair.update(
                a=names[pair["a"]], b=names[pair["b"]], better=pair["better"] and names[pair["better"]]
            )
        for sample in task["samples"]:
            sample.update(source=text(), references=[text() for _ in sample["references"]])
            sample["texts"] = {
                names.get(name, name): {
                    "text": text(),
                    "scores": {metric.get(key, key): value for key, value in written["scores"].items()},
                }
                for name, written in sample["texts"].items()
            }
    return found


def seeded(campaign: Any, number: int) -> Callable[[], str]:
    """Hostile strings, alone and put together, each marked so that it can be found again."""
    rng = random.Random(f"{campaign.seed} {number}")
    return lambda: "".join(rng.choices(HOSTILE, k=rng.choice((1, 1, 2))))


def test_hostile_text_is_only_text(results: dict[str, Any], campaign: Any) -> None:
    trials = campaign.trials(2, 60)
    plain = Page(page(infected(results, lambda: "harmless")))
    for number in range(trials):
        bad = infected(results, seeded(campaign, number))
        html = page(bad)
        html.encode()  # halves of surrogate pairs cannot be written
        seen = Page(html)
        assert seen.elements == plain.elements
        assert seen.attributes == plain.attributes
        text = "".join(seen.text)
        for wanted in (bad["tasks"][0]["verdict"], bad["tasks"][0]["samples"][0]["source"]):
            assert tables.visible(wanted).strip() in text
        for svg in re.findall(r"<svg.*?</svg>", html, re.S):
            ElementTree.fromstring(svg)
        assert "<script" not in fragment(bad)
        fragment(bad).encode()
    campaign.record("report-page", {"trials": trials, "strings": len(HOSTILE)})


def cells(line: str) -> int:
    """The number of cells of a line of a Markdown table."""
    return len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) - 1


def test_hostile_text_adds_no_column_and_no_formula(results: dict[str, Any], campaign: Any) -> None:
    trials = campaign.trials(40, 2000)
    for number in range(trials):
        bad = infected(results, seeded(campaign, number))
        for table in tables.tables(tables.visible(bad["tasks"][0])):
            head, rule, *rows = tables._markdown(table).strip().split("\n")[2:]
            assert len(rows) == len(table.rows)
            assert {cells(line) for line in (head, rule, *rows)} == {len(table.head)}
        tables.markdown(bad).encode()
        for name, text in tables.spreadsheets(bad).items():
            text.encode()
            lines = list(csv.reader(io.StringIO(text, newline="")))
            assert len({len(line) for line in lines}) == 1, name
            for cell in (cell for line in lines[1:] for cell in line):
                formula = cell.startswith(("=", "+", "-", "@", "\t", "\r")) or cell.strip().startswith("=")
                assert not formula or _is_number(cell), f"{name}: {cell!r}"
        read = list(csv.reader(io.StringIO(tables.spreadsheets(bad)["costs"], newline="")))[1:]
        for agent, row in zip(bad["tasks"][0]["agents"], read, strict=True):
            assert row[1] == str(tables._unformulated(tables.visible(agent["name"])))
            assert float(row[2]) == agent["costs"]["tokens"]
    campaign.record("report-tables", {"trials": trials})


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d+)?(e[+-]?\d+)?", cell) is not None


def test_hostile_text_in_a_terminal(results: dict[str, Any], campaign: Any) -> None:
    from rich.console import Console

    for number in range(campaign.trials(4, 100)):
        stream = io.StringIO()
        Console(file=stream, width=200, color_system=None).print(
            tables.rich_tables(infected(results, seeded(campaign, number)))
        )
        assert not re.search(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u202e]", stream.getvalue())


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on PATH")
def test_no_script_of_others_runs_in_a_browser(
    results: dict[str, Any], campaign: Any, tmp_path: Path
) -> None:
    """The page without its policy of contents, so that escapes alone must hold."""
    trials = campaign.trials(1, 20)
    for number in range(trials + 1):
        bad = infected(results, seeded(campaign, number) if number else lambda: "harmless")
        html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page(bad))
        place = tmp_path / f"{number}.html"
        place.write_text(html, encoding="utf-8")
        seen = subprocess.run(
            [
                *(str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
                *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
                *(f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=2000", "--dump-dom"),
                place.as_uri(),
            ],
            capture_output=True, text=True, check=True, timeout=120,
        ).stdout  # fmt: skip
        found = Page(seen)
        if number == 0:
            plain = found
        assert found.elements == plain.elements
        assert "data-sentinelwasset" not in found.attributes
        assert "<title>owned" not in seen
    campaign.record("report-browser", {"trials": trials})
