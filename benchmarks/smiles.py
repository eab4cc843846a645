"""Does the check of molecules that needs no package agree with rdkit?

    pip download --no-deps molsets
    pip install 'rlseq[molecules]'
    python benchmarks/smiles.py molsets-*.whl

Both are asked of 2,000 molecules of MOSES' test, and of the same molecules with one token, drawn at random,
left out, doubled or replaced by one of another place. Writes results/smiles.json.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import record
from recipes.molecules import molecules_of

from rlseq.data.smiles import BadMolecule, Check, by_rdkit, by_valences, tokens_of

MOLECULES, SHOWN = 2000, 12


def changed(text: str, draw: Random) -> str:
    """Return a molecule with one token left out, doubled or replaced."""
    tokens = tokens_of(text)
    place, other = draw.randrange(len(tokens)), draw.choice(tokens)
    kept = {"out": [], "twice": [tokens[place]] * 2, "other": [other]}[draw.choice(("out", "twice", "other"))]
    return "".join([*tokens[:place], *kept, *tokens[place + 1 :]])


def accepts(check: Check, text: str) -> bool:
    """Return whether a check finds nothing wrong."""
    try:
        check(text)
    except BadMolecule:
        return False
    return True


def agreement(texts: Sequence[str]) -> dict[str, Any]:
    """Return how many texts each check accepts, and the first about which they differ."""
    judged = [(text, accepts(by_valences, text), accepts(by_rdkit, text)) for text in texts]
    counts = Counter((ours, theirs) for _, ours, theirs in judged)
    return {
        "both accept": counts[True, True],
        "both refuse": counts[False, False],
        "rdkit alone refuses": counts[True, False],
        "valences alone refuse": counts[False, True],
        "accepted wrongly": [text for text, ours, theirs in judged if ours and not theirs][:SHOWN],
        "refused wrongly": [text for text, ours, theirs in judged if theirs and not ours][:SHOWN],
    }


def main() -> None:
    """Compare, and write the results."""
    texts, draw = molecules_of(Path(sys.argv[1]), "test", MOLECULES), Random(0)
    found = {
        "of MOSES": agreement(texts),
        "with one change": agreement([changed(text, draw) for text in texts]),
    }
    print(*found.values(), sep="\n")
    print(record.write("smiles", found))


if __name__ == "__main__":
    main()
