"""Judges of molecules: valid, new, different from the others of a batch; rules of size; QED by rdkit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Any
from zlib import crc32

import torch
from torch import Tensor

from rlseq.data.smiles import BadMolecule, Check, Molecule, read_smiles
from rlseq.types import Context, Reward
from rlseq.utils.errors import need
from rlseq.vocab import Vocab

ATOMS, RINGS, OTHERS = (8, 20), (1, 3), (0.1, 0.5)  # heavy atoms, rings, and the share that is no carbon
RADIUS = 2  # bonds around an atom that a fingerprint looks at
ToText = Callable[[str], str]  # a text -> SMILES


class MoleculeRules:
    """Judges of the molecules of a batch; invalid ones are worth 0 to all of them.

    Args:
        vocab: of the texts.
        smiles: returns the SMILES of a text.
        check: refuses those that are not valid.
        known: the molecules of training.
    """

    def __init__(self, vocab: Vocab, smiles: ToText, check: Check, known: Collection[str]) -> None:
        self.vocab, self.smiles, self.check, self.known = vocab, smiles, check, known

    @property
    def by_name(self) -> Mapping[str, Reward]:
        """The judges by name."""
        judges: dict[str, Callable[[str], float]] = {
            "valid": lambda text: 1.0,
            "novel": lambda text: float(text not in self.known),
            "rules": rules,
            "qed": qed,
        }
        each: dict[str, Reward] = {name: self._each(judge) for name, judge in judges.items()}
        return {**each, "unique": self.unique, "diversity": self.diversity}

    def unique(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return 1 over the number of equal molecules of the batch: in the mean, the share of different."""
        texts = self.texts(tokens, mask)
        times = Counter(texts)
        return torch.tensor([1 / times[text] if text else 0.0 for text in texts], device=tokens.device)

    def diversity(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """Return 1 less the mean Tanimoto likeness to the other valid molecules of the batch, `[B]`."""
        texts = self.texts(tokens, mask)
        found = [fingerprint(text) if text else frozenset[int]() for text in texts]
        places = {bit: n for n, bit in enumerate(sorted(frozenset().union(*found)))}
        bits = torch.zeros(len(texts), max(1, len(places)))
        for row, prints in enumerate(found):
            bits[row, [places[bit] for bit in prints]] = 1
        common, size = bits @ bits.t(), bits.sum(1)
        likeness = common / (size.unsqueeze(1) + size - common).clamp(min=1)
        valid = size > 0
        others = (likeness.sum(1) - valid.float()) / (valid.sum() - 1).clamp(min=1)
        alone = valid.sum() < 2
        return ((1 - others) * valid * ~alone).to(tokens.device)

    def texts(self, tokens: Tensor, mask: Tensor) -> list[str]:
        """Return the SMILES of every row, empty where it is not valid."""
        written = self.vocab.decode_batch(tokens.tolist(), mask.sum(1).tolist())
        return [self._valid(self.smiles(text)) for text in written]

    def _valid(self, text: str) -> str:
        try:
            self.check(text)
        except BadMolecule:
            return ""
        return text

    def _each(self, judge: Callable[[str], float]) -> Reward:
        """Return a judge of single molecules as a reward."""

        def reward(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
            """Return what the judge says of each row, 0 where it is not valid, `[B]`."""
            scores = [judge(text) if text else 0.0 for text in self.texts(tokens, mask)]
            return torch.tensor(scores, device=tokens.device)

        return reward


def rules(text: str) -> float:
    """Return the share of three rules that hold: 8 to 20 heavy atoms, 1 to 3 rings, 10 to 50 % no carbon."""
    molecule = _parsed(text)
    if molecule is None:
        return 0.0
    others = sum(atom not in ("C", "c") for atom in molecule.atoms) / len(molecule.atoms)
    figures = (len(molecule.atoms), ATOMS), (molecule.rings, RINGS), (others, OTHERS)
    return sum(low <= figure <= high for figure, (low, high) in figures) / len(figures)


@lru_cache(maxsize=100_000)
def qed(text: str) -> float:
    """Return the quantitative estimate of drug-likeness (Bickerton et al. 2012), by rdkit."""
    need("rdkit.RDLogger", "molecules").DisableLog("rdApp.*")
    molecule: Any = need("rdkit.Chem", "molecules").MolFromSmiles(text)
    return 0.0 if molecule is None else float(need("rdkit.Chem.QED", "molecules").qed(molecule))


@lru_cache(maxsize=20_000)
def fingerprint(text: str) -> frozenset[int]:
    """Return numbers of the surroundings of every atom up to two bonds (Rogers & Hahn 2010)."""
    molecule = _parsed(text)
    if molecule is None:
        return frozenset()
    around: list[list[tuple[int, float]]] = [[] for _ in molecule.atoms]
    for a, b, order in molecule.bonds:
        around[a].append((b, order))
        around[b].append((a, order))
    labels = [_number((atom, len(near))) for atom, near in zip(molecule.atoms, around, strict=True)]
    found = set(labels)
    for _ in range(RADIUS):
        labels = [
            _number((own, *sorted((order, labels[other]) for other, order in near)))
            for own, near in zip(labels, around, strict=True)
        ]
        found |= set(labels)
    return frozenset(found)


def _number(label: tuple[Any, ...]) -> int:
    """Return a number of a label, the same in every process."""
    return crc32(repr(label).encode())


def _parsed(text: str) -> Molecule | None:
    """Return the molecule; None of one that rdkit accepts and the parser here does not."""
    try:
        return read_smiles(text)
    except BadMolecule:
        return None
