"""Arguments are checked from annotations: types, finiteness, ranges, and the words of the error."""

from __future__ import annotations

import math
import timeit
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from typing_extensions import TypedDict, Unpack

from rlseq.utils.arguments import Checked, PositiveFloat, PositiveInt, Range, Share, checked_arguments


class Options(TypedDict, total=False):
    rows: PositiveInt


@checked_arguments
def everything(
    policy: Any,
    count: PositiveInt = 1,
    *,
    rate: PositiveFloat = 1.0,
    share: Share | None = None,
    shift: float = 0.0,
    size: int = 0,
    flag: bool = False,
    kind: Literal["a", "b"] = "a",
    function: Callable[[int], int] | str = "none",
    names: Sequence[str] = (),
    table: Mapping[str, int] | None = None,
    **options: Unpack[Options],
) -> dict[str, Any]:
    """Returns what it is given."""
    return locals()


class Hostile:
    """An object that raises whatever it is asked."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("asked for equality")

    def __repr__(self) -> str:
        raise RuntimeError("asked for its text")

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"count": 0}, ValueError, "count must be an integer ≥ 1, got 0"),
        ({"count": True}, TypeError, "count must be an integer ≥ 1, got True"),
        ({"count": 1.5}, TypeError, "count must be an integer ≥ 1, got 1.5"),
        ({"count": "3"}, TypeError, "count must be an integer ≥ 1, got '3'"),
        ({"count": None}, TypeError, "count must be an integer ≥ 1, got None"),
        ({"count": np.array([1, 2])}, TypeError, r"count must be an integer ≥ 1, got array\(\[1, 2\]\)"),
        ({"count": Hostile()}, TypeError, "count must be an integer ≥ 1, got an object of type Hostile"),
        ({"rate": math.nan}, ValueError, "rate must be a finite number > 0, got nan"),
        ({"rate": math.inf}, ValueError, "rate must be a finite number > 0, got inf"),
        ({"rate": 10**400}, ValueError, "rate must be a finite number > 0, got 1000"),
        ({"rate": 10**5000}, ValueError, "rate must be a finite number > 0, got an object of type int"),
        ({"rate": np.float64("nan")}, ValueError, "rate must be a finite number > 0, got nan"),
        ({"share": 1.5}, ValueError, r"share must be a number in \[0, 1\] or None, got 1.5"),
        ({"shift": -math.inf}, ValueError, "shift must be a finite number, got -inf"),
        ({"flag": 1}, TypeError, "flag must be True or False, got 1"),
        ({"kind": "c"}, ValueError, "kind must be one of 'a', 'b', got 'c'"),
        ({"kind": 3}, TypeError, "kind must be one of 'a', 'b', got 3"),
        ({"function": 3}, TypeError, "function must be a function or a string, got 3"),
        ({"names": "abc"}, TypeError, "names must be a sequence, each entry a string, got 'abc'"),
        ({"names": ["a", 1]}, TypeError, r"names must be a sequence, each entry a string, got \['a', 1\]"),
        ({"table": [1]}, TypeError, r"table must be a dictionary or None, got \[1\]"),
        ({"rows": -1}, ValueError, "rows must be an integer ≥ 1, got -1"),
    ],
)
def test_what_is_not_as_annotated_is_refused(given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        everything(None, **given)


def test_positional_arguments_are_checked_too() -> None:
    with pytest.raises(ValueError, match="count must be an integer ≥ 1, got 0"):
        everything(Hostile(), 0)


def test_numbers_of_numpy_become_those_of_python() -> None:
    given: dict[str, Any] = {"rate": np.float32(0.5), "share": np.float64(1), "flag": np.bool_(True)}
    number: Any = np.int32(3)
    found = everything(None, number, rows=number, **given)
    assert [type(found[name]) for name in ("count", "rate", "share", "flag")] == [int, float, float, bool]
    assert found["count"] == 3
    assert type(found["options"]["rows"]) is int


def test_what_is_as_annotated_is_passed_on() -> None:
    given: dict[str, Any] = {
        "rate": 10,
        "share": None,
        "size": -(10**30),
        "kind": "b",
        "function": abs,
        "names": ("x",),
    }
    assert everything(0, 5, **given).items() >= {"policy": 0, "count": 5, **given}.items()


@dataclass(frozen=True)
class Fields(Checked):
    """Fields of two kinds."""

    angle: Annotated[float, Range(0, 2, open_low=True, open_high=True)]
    number: int | None = None


def test_fields_are_checked_and_converted() -> None:
    number: Any = np.int64(3)
    assert type(Fields(1.0, number).number) is int
    with pytest.raises(ValueError, match=r"angle must be a number in \(0, 2\), got 2"):
        Fields(2)
    with pytest.raises(TypeError, match="number must be an integer or None, got False"):
        Fields(1, False)


def test_a_check_costs_microseconds() -> None:
    def plain(*, a: PositiveInt = 1, b: PositiveFloat = 1.0, c: str = "") -> None:
        """Nothing."""

    checking = checked_arguments(plain)
    checking(a=1)
    seconds = min(timeit.repeat(lambda: checking(a=1, b=2.0, c="x"), number=1000, repeat=5)) / 1000
    assert seconds < 1e-4  # about 3 µs where nothing else runs
