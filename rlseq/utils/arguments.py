"""Arguments are checked in one place, from the annotations of the functions and dataclasses that take them.

`int` means an integer (no bool; NumPy's integers become Python's), `float` a finite real number, `Callable` a
function. A range is stated beside the type, `Annotated[int, Range(1)]`, and nowhere else. Protocols, type
variables and `Any` are not checked here.
"""

from __future__ import annotations

import collections.abc
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cache, wraps
from inspect import signature
from os import PathLike
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, ParamSpec, TypeVar, Union, get_args, get_origin

import numpy as np
from typing_extensions import Unpack, get_type_hints, is_protocol

P = ParamSpec("P")
R = TypeVar("R")
VALUE_LENGTH = 60  # characters of a value in an error


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, both included unless the range is open there."""

    low: float = -sys.float_info.max
    high: float = sys.float_info.max
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, number: float) -> bool:
        above = number > self.low if self.open_low else number >= self.low
        return above and (number < self.high if self.open_high else number <= self.high)

    def __str__(self) -> str:
        if self.high == sys.float_info.max:
            return f"{'>' if self.open_low else '≥'} {self.low:,}"
        opening, closing = "(" if self.open_low else "[", ")" if self.open_high else "]"
        return f"in {opening}{self.low:,}, {self.high:,}{closing}"


@dataclass(frozen=True)
class Searched:
    """The numbers among which `rlseq tune` looks for a hyper-parameter, by their logarithm where `log`."""

    low: float
    high: float
    log: bool = False


PositiveInt = Annotated[int, Range(1)]
NonNegativeInt = Annotated[int, Range(0)]
PositiveFloat = Annotated[float, Range(0, open_low=True)]
NonNegativeFloat = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]  # a probability, or a part of a whole
PositiveShare = Annotated[float, Range(0, 1, open_low=True)]
OpenShare = Annotated[float, Range(0, 1, open_low=True, open_high=True)]
ShareBelowOne = Annotated[float, Range(0, 1, open_high=True)]
StepSize = Annotated[float, Range(0, open_low=True), Searched(1e-5, 3e-2, log=True)]
GradientNorm = Annotated[float, Range(0, open_low=True), Searched(0.1, 10.0, log=True)]
PenaltyWeight = Annotated[float, Range(0), Searched(1e-4, 1.0, log=True)]
ClipRange = Annotated[float, Range(0, open_low=True), Searched(0.05, 0.5)]
DivergenceTarget = Annotated[float, Range(0, open_low=True), Searched(1e-3, 0.1, log=True)]
Perturbation = Annotated[float, Range(0, open_low=True), Searched(1e-3, 0.3, log=True)]
Sharpness = Annotated[float, Range(0, open_low=True), Searched(1e-3, 10.0, log=True)]
Smoothing = Annotated[float, Range(0, 1, open_high=True), Searched(0.0, 0.3)]
TraceDecay = Annotated[float, Range(0, 1), Searched(0.8, 1.0)]
NgramOrder = Annotated[int, Range(1, 64)]  # longer n-grams cost time and tell nothing
Tokens = Annotated[int, Range(1), "as a float"]  # on a command line a number of tokens may be typed as 1e6
Seed = Annotated[int, Range(0, 2**63 - 1)]


class Rule(NamedTuple):
    """The values that an annotation allows: those of a type, and among them those in a range."""

    wanted: str  # in words, for an error
    typed: Callable[[Any], bool]
    inside: Callable[[Any], bool] = lambda value: True


def checked_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """A function that refuses arguments which are not as annotated, before anything is done with them."""
    names = tuple(signature(function).parameters)

    @wraps(function)
    def checking(*args: P.args, **kwargs: P.kwargs) -> R:
        rules = rules_of(function)
        given = [checked(name, value, rules.get(name)) for name, value in zip(names, args, strict=False)]
        named = {name: checked(name, value, rules.get(name)) for name, value in kwargs.items()}
        return function(*given, *args[len(given) :], **named)  # type: ignore[arg-type]

    return checking


def keyword_names(function: Callable[..., Any]) -> set[str]:
    """Return the names of the arguments that are given by keyword alone: the sizes of a network, say."""
    return {p.name for p in signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY}


def check_fields(instance: Any) -> None:
    """Refuse a dataclass whose fields are not as annotated; NumPy's numbers in them become Python's."""
    rules = rules_of(type(instance))  # type: ignore[arg-type]
    for field in fields(instance):
        given = getattr(instance, field.name)
        value = checked(field.name, given, rules.get(field.name))
        if value is not given:
            object.__setattr__(instance, field.name, value)  # a frozen dataclass, too


class Checked:
    """A dataclass whose fields are checked when it is made."""

    def __post_init__(self) -> None:
        check_fields(self)


def checked(name: str, value: Any, rule: Rule | None) -> Any:
    """The value, a NumPy number as Python's, if the rule allows it."""
    if rule is None:
        return value
    value = value.item() if isinstance(value, np.generic) else value
    if not rule.typed(value):
        raise TypeError(f"{name} must be {rule.wanted}, got {shown(value)}")
    if not rule.inside(value):
        raise ValueError(f"{name} must be {rule.wanted}, got {shown(value)}")
    return value


def shown(value: Any) -> str:
    """A value in an error, in few characters, whatever its `repr` does."""
    try:
        text = repr(value)
    except Exception:  # an error about an argument must not hide behind one of its own
        text = f"an object of type {type(value).__name__}"
    return text if len(text) <= VALUE_LENGTH else text[: VALUE_LENGTH - 1] + "…"


# ── from annotations to rules ────────────────────────────────────────────────────────────────────────


@cache
def rules_of(owner: Any) -> dict[str, Rule]:
    """The rules of a function's arguments, or of a dataclass's fields, by name."""
    hints = get_type_hints(owner, include_extras=True)
    for name, hint in list(hints.items()):
        origin: Any = get_origin(hint)
        if origin is Unpack:  # **options that a TypedDict names
            del hints[name]
            hints |= get_type_hints(get_args(hint)[0], include_extras=True)
    hints.pop("return", None)
    found = {name: rule_of(hint) for name, hint in hints.items()}
    return {name: rule for name, rule in found.items() if rule is not None}


def rule_of(hint: Any) -> Rule | None:
    """The rule of an annotation; None where it allows everything, or cannot be checked here."""
    origin: Any = get_origin(hint)
    args = get_args(hint)
    if origin is Annotated:
        ranges = [extra for extra in args[1:] if isinstance(extra, Range)]
        return _number(args[0], ranges[0]) if ranges else rule_of(args[0])
    if origin in (Union, UnionType):
        return _any_of([rule_of(arg) for arg in args])
    if origin is Literal:
        names = ", ".join(map(repr, args))
        return Rule(f"one of {names}", lambda value: isinstance(value, str), args.__contains__)
    if origin is collections.abc.Callable:
        return Rule("a function", callable)
    if hint in (int, float):
        return _number(hint, Range())
    kind = origin or hint
    if kind in (Any, object) or not isinstance(kind, type) or is_protocol(kind):
        return None
    if kind in (collections.abc.Sequence, collections.abc.Iterable, list, tuple):
        return _sequence(kind, args)
    return Rule(_NAMES.get(kind, f"a {kind.__name__}"), lambda value: isinstance(value, kind))


_NAMES: dict[Any, str] = {
    NoneType: "None",
    bool: "True or False",
    str: "a string",
    PathLike: "a path",
    collections.abc.Mapping: "a dictionary",
    dict: "a dictionary",
    np.ndarray: "an array",
}


def _number(kind: type, numbers: Range) -> Rule:
    """Integers or real numbers of a range."""
    allowed = (int,) if kind is int else (int, float)
    bounded = max(abs(numbers.low), abs(numbers.high)) < sys.float_info.max
    name = "an integer" if kind is int else "a number" if bounded else "a finite number"
    everything = numbers == Range()
    return Rule(
        name if everything else f"{name} {numbers}",
        lambda value: isinstance(value, allowed) and not isinstance(value, bool),
        (lambda value: True) if everything and kind is int else numbers.__contains__,
    )


def _any_of(rules: Sequence[Rule | None]) -> Rule | None:
    """A rule that allows whatever one of several rules allows."""
    known = [rule for rule in rules if rule is not None]
    if len(known) < len(rules):
        return None
    return Rule(
        " or ".join(rule.wanted for rule in known),
        lambda value: any(rule.typed(value) for rule in known),
        lambda value: any(rule.typed(value) and rule.inside(value) for rule in known),
    )


def _sequence(kind: Any, args: tuple[Any, ...]) -> Rule:
    """A sequence, and no string; plain entries of a list or of a tuple are checked, too."""
    entry = rule_of(args[0]) if args and args[0] in (str, int, float) else None
    kind = kind if kind is collections.abc.Iterable else collections.abc.Sequence
    refused = (str, bytes) if not args or args[0] in (int, Any) else (str, bytes, range)

    def entries(value: Any, holds: Callable[[Rule, Any], bool]) -> bool:
        return entry is None or not isinstance(value, (list, tuple)) or all(holds(entry, x) for x in value)

    return Rule(
        "a sequence" if entry is None else f"a sequence, each entry {entry.wanted}",
        lambda value: (
            isinstance(value, kind)
            and not isinstance(value, refused)
            and entries(value, lambda rule, x: rule.typed(x))
        ),
        lambda value: entries(value, lambda rule, x: rule.inside(x)),
    )
