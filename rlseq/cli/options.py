"""Dataclasses as command-line flags: the type of every field, its default, and the comment behind it."""

from __future__ import annotations

import ast
import inspect
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, make_dataclass
from functools import partial
from os import PathLike
from typing import Annotated, Any

from rlseq.utils.arguments import checked, rule_of
from rlseq.utils.errors import check_options, hint

LARGEST = 1_000_000  # bytes of a file of settings


MOST = 10_000  # values in it


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
            known = [field.name for field in fields(self.default)]
            check_options(value, known, self.name)
            return type(self.default)(**value)  # type: ignore[misc]
        return self.checked(tuple(value) if isinstance(value, list) else value)

    def checked(self, value: Any) -> Any:
        """The value, if it is of the type."""
        return checked(self.name, value, rule_of(self.type))


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
    """A Python or JSON literal of numbers, strings and lists of these, or the text itself."""
    named = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in named:
        return named[text.lower()]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of text that nearly is Python
            found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return found if _is_plain(found) else text


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, PLAIN)


def read_config(path: str | PathLike[str], known: Sequence[str]) -> dict[str, Any]:
    """A YAML or JSON file of settings, whose names must be known."""
    import yaml

    with open(path, "rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(f"{path} is too large for a file of settings: more than {LARGEST:,} bytes")
    try:
        found = yaml.safe_load(data)
        values = _counted(found)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, TypeError) as error:
        raise ValueError(f"{path} cannot be read as YAML or JSON: {_in_a_line(error)}") from None
    if values > MOST:
        raise ValueError(f"{path} holds more than {MOST:,} values, repetitions by aliases included")
    if not isinstance(found, Mapping):
        raise ValueError(f"{path} must hold names and values, got {type(found).__name__}")
    for name in found:
        if name not in known:
            raise ValueError(f"{path}: unknown setting {name!r:.60}{hint(name, known)}")
    return dict(found)


def _counted(value: Any, count: int = 0) -> int:
    """The number of values in a tree, or one that is too large; what JSON does not have is refused."""
    if count > MOST:
        return count
    if isinstance(value, Mapping):
        for name, part in value.items():
            count = _counted(part, _counted(name, count))
        return count
    if isinstance(value, list):
        for part in value:
            count = _counted(part, count)
    elif value is not None and not isinstance(value, PLAIN):
        raise ValueError(f"a {type(value).__name__} ({value}) is neither a number nor text; put it in quotes")
    elif isinstance(value, str):
        value.encode()  # refuses half of a surrogate pair, which could not be written
    return count + 1


def _in_a_line(error: Exception) -> str:
    """An error of the parser in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
