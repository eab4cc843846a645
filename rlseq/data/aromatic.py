"""Aromatic rings as graphs: which bonds are in rings, and whether double bonds can be placed in them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

Edge = tuple[int, int]  # two atoms that are joined, or an atom and the bond that leads to it


def in_rings(atoms: int, bonds: Sequence[Edge]) -> list[bool]:
    """Return for each bond whether it is in a ring: those that close one, and those on the way back."""
    near: list[list[Edge]] = [[] for _ in range(atoms)]  # another atom, and the bond to it
    for number, (a, b) in enumerate(bonds):
        near[a].append((b, number))
        near[b].append((a, number))
    depth, up, closing = spanning(near)
    found = [False] * len(bonds)
    for number in closing:
        a, b = bonds[number]
        found[number] = True
        while a != b:
            a, b = (a, b) if depth[a] >= depth[b] else (b, a)
            a, bond = up[a]
            found[bond] = True
    return found


def spanning(near: Sequence[Sequence[Edge]]) -> tuple[dict[int, int], dict[int, Edge], set[int]]:
    """Return a spanning forest: depths, the atom and the bond above each atom, and the bonds left over."""
    depth, up = dict[int, int](), dict[int, Edge]()
    used, all_bonds = set[int](), {bond for around in near for _, bond in around}
    for root in range(len(near)):
        if root in depth:
            continue
        depth[root], waiting = 0, [root]
        for atom in waiting:
            for other, bond in near[atom]:
                if other not in depth:
                    depth[other], up[other] = depth[atom] + 1, (atom, bond)
                    used.add(bond)
                    waiting.append(other)
    return depth, up, all_bonds - used


def can_alternate(must: Collection[int], may: Collection[int], bonds: Iterable[Edge]) -> bool:
    """Return whether double bonds can be placed so that each atom that must have one has exactly one.

    Args:
        must: atoms that need one.
        may: atoms that can have one.
        bonds: those that can be double.
    """
    near: dict[int, set[int]] = {atom: set() for atom in (*must, *may)}
    for a, b in bonds:
        if a in near and b in near:
            near[a].add(b)
            near[b].add(a)
    needy = frozenset(must)
    return all(_placed(needy & part, part, near) for part in _connected(near))


def _placed(must: frozenset[int], free: frozenset[int], near: Mapping[int, set[int]]) -> bool:
    """Return whether every atom that must be paired can be, with a free neighbour; needs few, comes first."""
    waiting = [(must, free)]  # without recursion, as a ring may have thousands of atoms
    while waiting:
        must, free = waiting.pop()
        if not must:
            return True
        if must == free and len(free) % 2:
            continue
        atom = min((len(near[one] & free), one) for one in must)[1]
        waiting += [(must - {atom, other}, free - {atom, other}) for other in near[atom] & free]
    return False


def _connected(near: Mapping[int, set[int]]) -> Iterator[frozenset[int]]:
    """Yield the parts of a graph that are not joined to each other."""
    left = set(near)
    while left:
        part = [left.pop()]
        for atom in part:
            part += near[atom] & left
            left -= near[atom]
        yield frozenset(part)
