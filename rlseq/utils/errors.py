"""Words for mistakes: what was wanted, what was got, and the nearest name that exists."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, MutableMapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any, TypeVar

T = TypeVar("T")


def hint(name: object, known: Iterable[str]) -> str:
    """`; did you mean 'scst'?` where a known name is near, and always the list of known names."""
    names = sorted(known)
    near = get_close_matches(str(name), names, n=1, cutoff=0.5)
    return (f"; did you mean {near[0]!r}?" if near else ";") + f" known: {', '.join(names) or 'none'}"


def pick(table: Mapping[str, T], name: str, what: str) -> T:
    """The entry called `name`, or a `ValueError` that suggests the nearest."""
    if not isinstance(name, str):
        raise TypeError(
            f"{what} must be a name, got {type(name).__name__}; known: {', '.join(sorted(table))}"
        )
    if name not in table:
        raise ValueError(f"unknown {what} {name!r}{hint(name, table)}")
    return table[name]


def enter(table: MutableMapping[str, T], name: str, value: T, what: str, made: Any) -> None:
    """Add an entry to a table of names. The same definition again, as in a notebook, replaces the entry.

    Args:
        table: of all names.
        name: of the new entry.
        value: the entry.
        what: the kind of thing, for errors.
        made: the user's class or function.
    """
    if not re.fullmatch(r"\w[\w+.-]*", name):
        raise ValueError(f"the name of the {what} must be of letters, digits and _ + . -, got {name!r}")
    place = getattr(made, "__module__", ""), getattr(made, "__qualname__", "")
    if name in table and _PLACES.get((what, name)) != place:
        raise ValueError(f"the {what} {name!r} exists already; register yours by another name")
    _PLACES[what, name] = place
    table[name] = value


_PLACES: dict[tuple[str, str], tuple[str, str]] = {}  # where the user's entries are defined


def check_options(given: Iterable[str], known: Iterable[str], owner: str) -> None:
    """Refuse keyword options that `owner` does not have."""
    known = set(known)
    for name in given:
        if name not in known:
            raise TypeError(f"{owner} has no option {name!r}{hint(name, known)}")


def in_one_line(error: object, most: int = 200) -> str:
    """Return the message of another library in one line, without control characters, cut where it is long."""
    kind = type(error).__name__ if isinstance(error, BaseException) else ""
    text = printable(" ".join(str(error).split())) or kind
    return text if len(text) <= most else f"{text[:most]}…"


def printable(text: str) -> str:
    """A text in which control characters, which a terminal obeys, are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def need(module: str, extra: str) -> Any:
    """Import an optional module; where its package is missing, the error names what to install."""
    package = module.partition(".")[0]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in (module, package):
            raise
        raise ImportError(f"{package} is not installed here; pip install 'rlseq[{extra}]'") from None
