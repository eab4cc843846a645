"""Spaces in which a search looks for hyper-parameters, from the ranges that the fields declare."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Annotated, Any, NamedTuple, get_args, get_origin

from typing_extensions import get_type_hints

from rlseq.utils.arguments import Searched
from rlseq.utils.errors import hint


class Space(NamedTuple):
    """The values of one hyper-parameter between which a search chooses."""

    low: float
    high: float
    log: bool
    whole: bool  # integers

    def distribution(self, optuna: Any) -> Any:
        """Return the space as Optuna takes it."""
        if self.whole:
            return optuna.distributions.IntDistribution(int(self.low), int(self.high), log=self.log)
        return optuna.distributions.FloatDistribution(self.low, self.high, log=self.log)

    def __contains__(self, value: object) -> bool:
        return isinstance(value, (int, float)) and self.low <= value <= self.high


def declared_spaces(agent: type) -> dict[str, Space]:
    """Return the spaces of the hyper-parameters that declare one, by name."""
    hints, found = get_type_hints(agent, include_extras=True), {}
    for field in fields(agent):
        annotation = hints[field.name]
        origin: Any = get_origin(annotation)
        if origin is Annotated:
            kind, *extras = get_args(annotation)
            for extra in extras:
                if isinstance(extra, Searched):
                    found[field.name] = Space(extra.low, extra.high, extra.log, kind is int)
    return found


def chosen_spaces(agent: type, search: Sequence[str], fixed: Mapping[str, Any]) -> dict[str, Space]:
    """Return the spaces of a search.

    Args:
        agent: the class of the agent.
        search: names of hyper-parameters, alone or with other limits, `lr=1e-4:1e-2`; none stands for all
            that declare a range.
        fixed: hyper-parameters that are given, and not searched.
    """
    declared = declared_spaces(agent)
    if not search:
        found = {name: space for name, space in declared.items() if name not in fixed}
    else:
        found = dict(_typed(word, declared) for word in search)
        both = sorted(found.keys() & fixed.keys())
        if both:
            raise ValueError(f"{both[0]} is given, so that it cannot be searched; leave one of the two out")
    if not found:
        raise ValueError(f"{agent.__name__} has no hyper-parameter to search; {_known(declared)}")
    return found


def _typed(word: str, declared: Mapping[str, Space]) -> tuple[str, Space]:
    """Return the name and the space of a hyper-parameter that was typed."""
    name, equals, limits = word.partition("=")
    name = name.replace("-", "_")
    if name not in declared:
        raise ValueError(f"{name} declares no range to search in{hint(name, declared)}")
    if not equals:
        return name, declared[name]
    try:
        low, high = map(float, limits.split(":"))
    except ValueError:
        raise ValueError(f"search must be a name or name=low:high, got {word!r}") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"{name} needs two numbers, the smaller first, got {limits!r}")
    space = declared[name]._replace(low=low, high=high)
    if space.log and low <= 0:
        raise ValueError(f"{name} is searched by its logarithm, so that its limits must be > 0, got {limits}")
    if space.whole and (low % 1 or high % 1):
        raise ValueError(f"{name} is an integer, got the limits {limits}")
    return name, space


def _known(declared: Mapping[str, Space]) -> str:
    return f"it declares ranges of {', '.join(declared)}" if declared else "it declares no ranges"


def defaults_of(agent: type, names: Sequence[str]) -> dict[str, Any]:
    """Return the defaults of some hyper-parameters."""
    found = {field.name: field.default for field in fields(agent) if field.name in names}
    return {name: value for name, value in found.items() if value is not MISSING}
