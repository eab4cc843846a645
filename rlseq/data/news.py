"""Texts and their headlines: from files, or a generated newspaper."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from random import Random

from rlseq.data.formats import Pair
from rlseq.data.locate import Origin, Where, find

ENDS = (".", "!", "?")  # of a sentence

NEWSPAPER = """
WHO   = council / king / school / company / baker / teacher
DOES  = opens opened / sells sold / paints painted / finds found / closes closed / repairs repaired
WHAT  = library / bridge / garden / theatre / museum / tower / market / harbour
WHERE = north / south / old town / valley / city / village
KIND  = sunny / rainy / quiet / long / cold / busy
OTHER = farmer / sailor / queen / painter / nurse / miller
"""
CHOICES = {
    name.strip(): [choice.strip() for choice in choices.split("/")]
    for name, choices in (line.split("=") for line in NEWSPAPER.strip().splitlines())
}


def news(path: Where | Mapping[str, Where] | None) -> Mapping[str, Origin]:
    """Return pairs of texts and headlines, of files or generated."""
    return {"all": Origin(lambda: iter(toy_news()))} if path is None else find(path)


def sentences_of(text: str) -> list[str]:
    """Return the sentences of a text, each with its mark; what follows the last mark is one, too."""
    found: list[list[str]] = [[]]
    for word in text.split():
        found[-1].append(word)
        if word.endswith(ENDS):
            found.append([])
    return [" ".join(words) for words in found if words]


@lru_cache(maxsize=1)
def toy_news(articles: int = 300, seed: int = 0) -> tuple[Pair, ...]:
    """Draw articles of four sentences, one of which, half of the time the first, has two headlines."""
    draw, found = Random(seed), dict[str, tuple[str, str]]()
    while len(found) < articles:
        who, does, what, where, kind, other = (draw.choice(choices) for choices in CHOICES.values())
        now, done = does.split()
        told = f"the {who} {now} a new {what} in the {where} ."
        others = [f"it was a {kind} day .", f"the {other} said nothing .", "many people came to see it ."]
        draw.shuffle(others)
        others.insert(0 if draw.random() < 0.5 else draw.randint(1, 3), told)
        found[" ".join(others)] = f"{who} {now} {what} in {where}", f"new {what} {done} in {where}"
    return tuple(Pair(text, headline) for text, two in found.items() for headline in two)
