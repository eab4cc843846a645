"""A guard against changes in place of tensors that are given to a user's code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor


@contextmanager
def unchanged(owner: str, context: Mapping[str, Tensor], **inputs: Tensor) -> Iterator[None]:
    """Refuse a change, made inside, of the tensors that `owner` is given; torch counts writes to each.

    Writes through the memory of a NumPy array are not counted, nor those to inference tensors.
    """
    given = {**{f"context {name!r}": value for name, value in context.items()}, **inputs}
    before = _versions(given.values())
    yield
    for name, old, new in zip(given, before, _versions(given.values()), strict=True):
        if old != new:
            raise ValueError(
                f"{owner} changed the {name} that it was given; let it change a copy (`.clone()`)"
            )


def _versions(tensors: Iterable[Tensor]) -> list[int]:
    return [-1 if tensor.is_inference() else tensor._version for tensor in tensors]
