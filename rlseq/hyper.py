"""Dataclasses as command-line flags: the type of every field, its default, and the comment behind it."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, make_dataclass
from functools import partial
from typing import Annotated, Any

from rlseq.errors import hint

COMMENT = re.compile(r"^    (\w+): .*?  # (.+)$", re.M)
PLAIN = (bool, int, float, str)


@dataclass(frozen=True)
class Hyper:
    """A hyper-parameter."""

    name: str
    type: Any
    default: Any
    help: str

    def read(self, value: Any) -> Any:
        """A value from a file: lists as tuples, names and values as the dataclass that they are of."""
        if is_dataclass(self.default) and isinstance(value, Mapping):
            return type(self.default)(**value)  # type: ignore[misc]
        return tuple(value) if isinstance(value, list) else value


def hyper(cls: type) -> Iterator[Hyper]:
    """The fields of a dataclass that can be typed: numbers, names, and dataclasses of these."""
    comments = {
        name: text
        for base in reversed(cls.__mro__)
        if is_dataclass(base)
        for name, text in COMMENT.findall(inspect.getsource(base))
    }
    for f in fields(cls):
        default = f.default_factory() if f.default_factory is not MISSING else f.default
        text = comments.get(f.name, "")
        if isinstance(default, PLAIN) or (is_dataclass(default) and not isinstance(default, type)):
            yield Hyper(f.name, type(default), default, text)
        elif default is None and f.type in ("int | None", "float | None", "str | None"):
            yield Hyper(f.name, {"i": int, "f": float, "s": str}[f.type[0]] | None, None, text)


def flags(name: str, *parts: Sequence[Hyper]) -> type:
    """A dataclass with all of them, as tyro reads it."""
    import tyro

    found = {h.name: h for part in parts for h in part}
    return make_dataclass(
        name,
        [
            (
                h.name,
                Annotated[h.type, tyro.conf.arg(help=h.help)],
                field(default_factory=partial(getattr, h, "default")),
            )
            for h in found.values()
        ],
        frozen=True,
    )


def settings(pairs: Sequence[str], what: str) -> dict[str, Any]:
    """`name=value` as typed: numbers as numbers, the rest as text."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ValueError(f"{what} must be name=value, got {pair!r}")
        found[name.replace("-", "_")] = literal(value)
    return found


def literal(text: str) -> Any:
    """A Python or JSON literal, or the text itself."""
    named = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in named:
        return named[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def read_config(path: str, known: Sequence[str]) -> dict[str, Any]:
    """A YAML or JSON file of settings, whose names must be known."""
    import yaml

    with open(path, encoding="utf-8") as file:
        found = yaml.safe_load(file)
    if not isinstance(found, Mapping):
        raise ValueError(f"{path} must hold names and values, got {type(found).__name__}")
    for name in found:
        if name not in known:
            raise ValueError(f"{path}: unknown setting {name!r}{hint(name, known)}")
    return dict(found)
