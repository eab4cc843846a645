"""Molecules: write SMILES that are valid, new and different, and have a wanted property."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from random import Random
from typing import ClassVar, NamedTuple

from typing_extensions import Unpack

from rlseq.data.encode import load
from rlseq.data.formats import Pair, Records
from rlseq.data.locate import Origin, Where, find
from rlseq.data.smiles import CHECKS, smiles_formats, tokens_of
from rlseq.envs.corpus_task import CorpusTask, ReferenceOptions, reading_of
from rlseq.envs.molecule_rules import MoleculeRules, ToText
from rlseq.types import HeldOut, RewardLike
from rlseq.utils.arguments import checked_arguments
from rlseq.utils.errors import need, pick
from rlseq.vocab import EOS, UNK, Vocab


class Molecules(CorpusTask):
    """Write a molecule as SMILES. Reward: three rules of size, rings and other atoms than carbon.

    Alone every such reward is won by one molecule, written again and again: look at "unique" and "diversity"
    beside it, or add them, as in "qed + 0.5*unique".

    Args:
        path: molecules, .smi, .txt or .csv with a SMILES at the start of a line (docs/tasks/molecules.md); a
            small grammar when not given.
        split: "train", "dev" or "test".
        reward: "rules", "qed" (needs rdkit), "valid", "novel", "unique", "diversity", or a sum of these; a
            name of `rlseq metrics`, such as "bleu"; or any reward.
        form: "smiles", or "selfies" (Krenn et al. 2020; needs selfies), of which every text is a molecule.
        check: of what is valid: "valences", without rdkit (docs/tasks/molecules.md), or "rdkit".
        **options: see `ReferenceOptions`; a pretrained model's tokenizer has no words for atoms.
    """

    held_out: ClassVar[HeldOut] = {"split": "test"}

    @checked_arguments
    def __init__(
        self,
        *,
        path: Where | Mapping[str, Where] | None = None,
        split: str = "train",
        reward: RewardLike = "rules",
        form: str = "smiles",
        check: str = "valences",
        **options: Unpack[ReferenceOptions],
    ) -> None:
        written, checked = pick(MOLECULE_FORMS, form, "form"), pick(CHECKS, check, "check")
        toy = Origin(lambda: iter(toy_molecules()))
        found = {"all": toy} if path is None else find(path, smiles_formats(checked))
        origins = {part: Origin(partial(written.texts, o), o.files) for part, o in found.items()}
        texts = [row.target for origin in origins.values() for row in origin.read() if isinstance(row, Pair)]
        reading = reading_of(options, None, reads=False, own=OnlyWritten(texts, written))
        corpus = load(origins, split, reading)
        known = corpus if split == "train" else load(origins, "train", reading)
        smiles = {written.smiles(text) for item in known.texts() for text in item}
        own = MoleculeRules(corpus.vocab, written.smiles, checked, smiles).by_name
        asked = isinstance(reward, str) and "qed" in re.findall(r"\w+", reward)
        reported = ("rules", "valid", "novel", "unique", "diversity", *(["qed"] if asked else []))
        super().__init__(corpus, reward=reward, metrics=reported, own=own, **options)


class MoleculeForm(NamedTuple):
    """A way of writing molecules."""

    encode: ToText  # SMILES -> text
    smiles: ToText  # text -> SMILES
    tokens: re.Pattern[str] | None

    def texts(self, origin: Origin) -> Records:
        """Yield the molecules of an origin as they are written."""
        for row in origin.read():
            yield Pair(None, self.encode(row.target)) if isinstance(row, Pair) else row

    def split(self, text: str) -> list[str]:
        """Return the words of a text."""
        return tokens_of(text) if self.tokens is None else self.tokens.findall(text)


def to_selfies(smiles: str) -> str:
    """Return the SELFIES of a SMILES."""
    return str(need("selfies", "molecules").encoder(smiles))


def of_selfies(text: str) -> str:
    """Return the SMILES of a SELFIES; an empty one where a word is none of SELFIES, as <unk>."""
    selfies = need("selfies", "molecules")
    try:
        return str(selfies.decoder(text))
    except selfies.DecoderError:
        return ""


MOLECULE_FORMS = {
    "smiles": MoleculeForm(lambda text: text, lambda text: text, None),
    "selfies": MoleculeForm(to_selfies, of_selfies, re.compile(r"\[[^\]]*\]")),
}


class OnlyWritten:
    """The vocabulary of molecules; there are no sources."""

    source_vocab = None

    def __init__(self, texts: list[str], form: MoleculeForm) -> None:
        words = sorted({word for text in texts for word in form.split(text)})
        self.vocab = Vocab((EOS, UNK, *words), separator="", unk=1)


# ── the embedded default ─────────────────────────────────────────────────────────────────────────────

MOLECULE_PARTS = """
all   : {chain}{ring} {group}{ring} {chain}{tail} {group}{link}{ring} {ring}{link}{ring}
ring  : c1ccccc1 c1ccncc1 c1ccoc1 c1ccsc1 C1CCCCC1 C1CCNCC1 C1CCOCC1 c1ccc({tail})cc1 C1CCN({chain})CC1
group : CC(=O) NC(=O) CS(=O)(=O) N#CC FC(F)(F) OC(=O)
link  : N O C CC CO CN C(=O)N S
chain : C CC CCC CC(C) C=CC COC CNC
tail  : O N F Cl Br C#N C(=O)O C(N)=O OC C
"""
PARTS_OF_MOLECULES = {
    name.strip(): choices.split()
    for name, choices in (line.split(" : ") for line in MOLECULE_PARTS.strip().splitlines())
}


@lru_cache(maxsize=1)
def toy_molecules(molecules: int = 1500, seed: int = 0) -> tuple[Pair, ...]:
    """Draw different molecules of the grammar."""
    draw, found = Random(seed), dict[str, None]()
    while len(found) < molecules:
        found["".join(_expanded("all", draw))] = None
    return tuple(Pair(None, text) for text in found)


def _expanded(part: str, draw: Random) -> Iterator[str]:
    """Yield the pieces of a part, each part in braces replaced by one of its choices."""
    for piece in re.split(r"\{(\w+)\}", draw.choice(PARTS_OF_MOLECULES[part])):
        yield from _expanded(piece, draw) if piece in PARTS_OF_MOLECULES else [piece]
