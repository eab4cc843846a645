"""SMILES (Weininger 1988): molecules as texts, read into graphs; what is wrong with one is said in words.

Parentheses, ring closures and valences are checked, and whether double bonds can be placed in aromatic rings
(a Kekulé form).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rlseq.data.aromatic import can_alternate, in_rings
from rlseq.data.formats import Pair, Problem, Records, lines
from rlseq.data.locate import Formats
from rlseq.utils.errors import need

TOKEN = re.compile(r"\[[^\[\]]*\]|Br|Cl|%\d\d|[BCNOPSFIbcnops]|[-=#$:/\\.()]|\d")
BRACKET = re.compile(r"\[\d*([A-Z][a-z]?|[bcnops]|se|as|\*)@{0,2}(?:H(\d*))?(?:([+-])(\d*))?(?::\d+)?\]")
VALENCES = {"B": 3, "C": 4, "N": 3, "O": 2, "P": 5, "S": 6, "F": 1, "Cl": 1, "Br": 1, "I": 1}
SYMBOLS = """
H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y
Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re
Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds
Rg Cn Nh Fl Mc Lv Ts Og
"""
ELEMENTS = frozenset((*SYMBOLS.split(), "*"))
# Orders in all, rings counted as single bonds.
AROMATIC = {"b": 3, "c": 4, "n": 3, "o": 2, "p": 5, "s": 2, "se": 2, "as": 3}
UNSURE = ("b", "p")  # aromatic atoms that can do without the double bond that their valence has room for
PLANE = 3  # neighbours of an aromatic atom
AROMATIC_BOND, UNWRITTEN = 1.5, 0.0
ORDERS = {"-": 1.0, "=": 2.0, "#": 3.0, "$": 4.0, ":": AROMATIC_BOND, "/": 1.0, "\\": 1.0}
CHARGED = {
    ("N", 1): 4,
    ("O", 1): 3,
    ("O", -1): 1,
    ("n", 1): 4,
    ("n", -1): 2,
    ("o", 1): 3,
    ("s", 1): 3,
    ("c", 1): 3,
    ("c", -1): 3,
    ("S", -1): 1,
    ("S", 1): 5,
    ("C", 1): 3,
    ("C", -1): 3,
}


Bond = tuple[int, int, float]  # two atoms, and the order


class BadMolecule(ValueError):
    """A text that is no molecule; the message says why."""


class Molecule(NamedTuple):
    """A molecule as a graph."""

    atoms: list[str]
    bonds: list[Bond]

    @property
    def rings(self) -> int:
        """The number of independent rings."""
        parent = list(range(len(self.atoms)))
        closed = 0
        for a, b, _ in self.bonds:
            while parent[a] != a:
                a = parent[a]
            while parent[b] != b:
                b = parent[b]
            closed += a == b
            parent[a] = b
        return closed


def tokens_of(text: str) -> list[str]:
    """Return the tokens of a SMILES; what is none raises `BadMolecule`."""
    found = TOKEN.findall(text)
    if "".join(found) != text or not text:
        rest = TOKEN.sub("", text)
        raise BadMolecule(f"{rest[:20]!r} is no part of a SMILES" if rest else "there is no atom")
    return found


def read_smiles(text: str) -> Molecule:
    """Return the molecule of a SMILES."""
    atoms, bonds, limits = list[str](), list[Bond](), list[float]()
    branches, rings = list[int](), dict[str, tuple[int, float]]()
    last, order = -1, UNWRITTEN
    for token in tokens_of(text):
        if token in ORDERS:
            if last < 0 or order:
                raise BadMolecule(f"the bond {token!r} follows no atom")
            order = ORDERS[token]
        elif token == "(":
            if last < 0 or order:
                raise BadMolecule("a branch follows no atom")
            branches.append(last)
        elif token == ")":
            if not branches or order:
                raise BadMolecule("a bond leads to no atom" if order else "a ) has no (")
            if last == branches[-1]:
                raise BadMolecule("a branch has no atom")
            last = branches.pop()
        elif token == ".":
            if last < 0 or order or branches:
                raise BadMolecule("a dot must stand between whole molecules")
            last = -1
        elif token[0].isdigit() or token[0] == "%":
            last, order = _ring(token, last, order, rings, bonds), UNWRITTEN
        else:
            limits.append(_limit(token, atoms))
            if last >= 0:
                bonds.append((last, len(atoms) - 1, order))
            last, order = len(atoms) - 1, UNWRITTEN
    if order or last < 0:
        raise BadMolecule("the last bond leads to no atom")
    if branches or rings:
        raise BadMolecule("a ( is not closed" if branches else f"ring {min(rings)} is not closed")
    molecule = Molecule(atoms, [(a, b, order if order >= 2 else 1.0) for a, b, order in bonds])
    _check_aromatic(atoms, bonds, _free_valences(molecule, limits))
    return molecule


def _ring(token: str, last: int, order: float, rings: dict[str, tuple[int, float]], bonds: list[Bond]) -> int:
    """Open or close a ring at the last atom, and return this atom."""
    if last < 0:
        raise BadMolecule(f"ring {token} follows no atom")
    if token not in rings:
        rings[token] = last, order
        return last
    first, given = rings.pop(token)
    joined = {frozenset(bond[:2]) for bond in bonds}
    if first == last or frozenset((first, last)) in joined:
        raise BadMolecule(f"ring {token} joins atoms that are one, or are joined already")
    bonds.append((first, last, order or given))
    return last


def _limit(token: str, atoms: list[str]) -> float:
    """Note an atom, and return the sum of orders that its bonds may have."""
    if token[0] != "[":
        atoms.append(token)
        return float(VALENCES.get(token, AROMATIC.get(token, 99)))
    found = BRACKET.fullmatch(token)
    if found is None or found[1].capitalize() not in ELEMENTS:
        raise BadMolecule(f"{token} is no atom")
    symbol, hydrogens, sign, size = found.groups()
    charge = 0 if sign is None else (1 if sign == "+" else -1) * int(size or 1)
    atoms.append(symbol)
    most = CHARGED.get((symbol, charge), VALENCES.get(symbol, AROMATIC.get(symbol, 99)))
    return most - (0 if hydrogens is None else int(hydrogens or 1))


def _free_valences(molecule: Molecule, limits: Sequence[float]) -> list[float]:
    """Return how much of its valence each atom has left; refuse one with too many bonds."""
    used, neighbours = [0.0] * len(limits), [0] * len(limits)
    for *pair, order in molecule.bonds:
        for atom in pair:
            used[atom] += order
            neighbours[atom] += 1
    for symbol, total, most, near in zip(molecule.atoms, used, limits, neighbours, strict=True):
        if symbol.islower() and near > PLANE:
            raise BadMolecule(f"an aromatic atom {symbol} has {near} neighbours, {PLANE} at most")
        if total > most:
            raise BadMolecule(f"an atom {symbol} has bonds of {total:g} in all, {most:g} at most")
    return [most - total for most, total in zip(limits, used, strict=True)]


def _check_aromatic(atoms: Sequence[str], bonds: Sequence[Bond], free: Sequence[float]) -> None:
    """Refuse aromatic atoms outside rings, and rings in which double bonds cannot be placed.

    Args:
        atoms: their symbols.
        bonds: with their orders as they are written.
        free: what is left of each atom's valence.
    """
    aromatic = {number for number, symbol in enumerate(atoms) if symbol.islower()}
    rings = in_rings(len(atoms), [(a, b) for a, b, _ in bonds])
    shared = [
        (a, b)
        for (a, b, order), ring in zip(bonds, rings, strict=True)
        if ring and order in (UNWRITTEN, AROMATIC_BOND) and aromatic.issuperset((a, b))
    ]
    outside = aromatic.difference(*shared)
    if outside:
        raise BadMolecule(f"an aromatic atom {atoms[min(outside)]} is in no aromatic ring")
    doubled = {atom for *pair, order in bonds if order >= 2 for atom in pair}
    needy = {atom for atom in aromatic - doubled if free[atom] >= 1}
    unsure = {atom for atom in needy if atoms[atom] in UNSURE}
    if not can_alternate(needy - unsure, unsure, shared):
        raise BadMolecule("double bonds cannot be placed in its aromatic rings (there is no Kekulé form)")


def by_valences(text: str) -> None:
    """Refuse a SMILES that does not parse, has an atom with too many bonds, or no Kekulé form."""
    read_smiles(text)


def by_rdkit(text: str) -> None:
    """Refuse a SMILES that rdkit refuses."""
    need("rdkit.RDLogger", "molecules").DisableLog("rdApp.*")
    if not text or need("rdkit.Chem", "molecules").MolFromSmiles(text) is None:
        raise BadMolecule("rdkit refuses it")


Check = Callable[[str], None]
CHECKS: dict[str, Check] = {"valences": by_valences, "rdkit": by_rdkit}


def smiles_lines(path: Path, check: Check) -> Records:
    """Read a SMILES a line; what follows a blank is its name, and a first line `smiles` a heading."""
    for number, line in lines(path):
        if isinstance(line, Problem):
            yield line
            continue
        text = re.split(r"[\s,]", line.strip(), maxsplit=1)[0]
        if number == 1 and text.lower() in ("smiles", "smi"):
            continue
        try:
            check(text)
        except BadMolecule as error:
            yield Problem(path, number, f"expected SMILES, got {text!r:.60}: {error}")
        else:
            yield Pair(None, text)


def smiles_formats(check: Check) -> Formats:
    """Return the readers of SMILES by suffix."""
    return {suffix: partial(smiles_lines, check=check) for suffix in (".smi", ".txt", ".csv")}
