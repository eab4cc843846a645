"""Write four files such as a user may bring, none of which is used elsewhere: for trials of `rlseq fit`.

    python benchmarks/recipes/files.py FOLDER

dates.tsv      3,000 dates in many forms → 1987-03-05
vowels.tsv     words of the CMU dictionary without their vowels → the words that fit
weather.tsv    3,000 reports of the weather in figures → five sentences each
titles.jsonl   docstrings of installed Python packages: the text → its first line
"""

from __future__ import annotations

import ast
import json
import sys
import sysconfig
from collections import defaultdict
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1]))

from recipes.words import dictionary, without_vowels

FORMS = (
    *("{d:%d/%m/%Y}", "{d:%d.%m.%y}", "{d:%A}, {d.day} {d:%B} {d.year}", "{d:%b} {d.day}, {d.year}"),
    *("{d.day} {d:%b} {d:%y}", "{d:%B} {d.day} {d.year}", "{d:%a} {d.day}.{d.month}.{d.year}"),
)
CITIES = "Oslo Lima Cairo Perth Quito Kyoto Turin Lagos Delhi Malmo Porto Accra Hanoi Tunis Miami"
SKIES = {
    "sun": ("sunny", "clear", "bright"),
    "cloud": ("cloudy", "overcast", "grey"),
    "rain": ("rainy", "wet", "showery"),
    "snow": ("snowy", "white with snow", "wintry"),
    "fog": ("foggy", "misty", "hazy"),
}
WINDS = {"N": "northerly", "E": "easterly", "S": "southerly", "W": "westerly"}
PACKAGES = ("numpy", "scipy", "torch", "matplotlib", "pandas", "sklearn", "sympy", "networkx", "transformers")
WORDS_READ, TITLES = 60, 12_000


def dates(draw: Random, count: int = 3000) -> Iterator[tuple[str, str]]:
    """Yield dates of 120 years in many forms."""
    for _ in range(count):
        day = date(1910, 1, 1) + timedelta(days=draw.randrange(365 * 120))
        yield draw.choice(FORMS).format(d=day), day.isoformat()


def vowels(draw: Random, count: int = 6000) -> Iterator[tuple[str, str]]:
    """Yield short words without their vowels, and the words."""
    answers: dict[str, set[str]] = defaultdict(set)
    for word, _ in dictionary():
        told = without_vowels(word, [])
        if word.isalpha() and len(told) > 2:
            answers[told].add(word)
    for told in draw.sample(sorted(answers), count):
        for word in sorted(answers[told]):
            yield told, word


def weather(draw: Random, count: int = 3000, references: int = 5) -> Iterator[tuple[str, ...]]:
    """Yield reports in figures, and sentences that tell them."""
    for _ in range(count):
        city, sky, wind = draw.choice(CITIES.split()), draw.choice(list(SKIES)), draw.choice(list(WINDS))
        degrees, speed = draw.randrange(-15, 40), draw.randrange(5, 90, 5)
        told: set[str] = set()
        while len(told) < references:
            told.add(_sentence(draw, city, draw.choice(SKIES[sky]), WINDS[wind], degrees, speed))
        yield f"city {city} sky {sky} degrees {degrees} wind {wind} {speed}", *sorted(told)


def _sentence(draw: Random, city: str, sky: str, wind: str, degrees: int, speed: int) -> str:
    breeze = "calm" if speed < 20 else "fresh" if speed < 50 else "strong"
    return draw.choice(
        (
            f"in {city} it is {sky} at {degrees} degrees , with a {breeze} {wind} wind",
            f"{city} has a {sky} day of {degrees} degrees , the {wind} wind is {breeze}",
            f"it is {degrees} degrees and {sky} in {city} , and a {breeze} {wind} wind blows",
            f"a {sky} day in {city} : {degrees} degrees and a {wind} wind of {speed} km per hour",
        )
    )


def titles(draw: Random, count: int = TITLES) -> Iterator[tuple[str, str]]:
    """Yield the texts of docstrings, and their first lines."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        for path in sorted((Path(sysconfig.get_path("purelib")) / package).rglob("*.py")):
            for line in _docstrings(path):
                title, _, rest = line.partition("\n\n")
                body = " ".join(rest.split()[:WORDS_READ])
                if 3 <= len(title.split()) <= 14 and len(body.split()) >= 20 and "\n" not in title:
                    found.setdefault(body, title.strip())
    texts = sorted(found)
    return ((body, found[body]) for body in draw.sample(texts, min(count, len(texts))))


def _docstrings(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_text("utf-8", errors="ignore"))
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield ast.get_docstring(node) or ""


def main() -> None:
    """Write the files."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, pairs in (("dates", dates), ("vowels", vowels), ("weather", weather)):
        text = "".join("\t".join(pair) + "\n" for pair in pairs(Random(0)))
        (folder / f"{name}.tsv").write_text(text, "utf-8")
    lines = (json.dumps({"source": body, "target": title}) + "\n" for body, title in titles(Random(0)))
    (folder / "titles.jsonl").write_text("".join(lines), "utf-8")


if __name__ == "__main__":
    main()
