"""A metric that is fitted when it is first asked: what is only reported costs nothing until then."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from torch import Tensor

from rlseq.metrics.combine import Composable
from rlseq.types import Context


class Lazy(Composable):
    """Stands for a metric; whatever it is asked, the metric answers.

    Args:
        name: for logs.
        make: makes the metric.
    """

    def __init__(self, name: str, make: Callable[[], Any]) -> None:
        self.name, self._make = name, make

    @cached_property
    def metric(self) -> Any:
        """The metric itself."""
        return self._make()

    def __call__(self, tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
        """The metric's reward."""
        reward: Tensor = self.metric(tokens, mask, context)
        return reward

    def __getattr__(self, name: str) -> Any:
        """Its other attributes, `value` and `increments` among them."""
        if name.startswith("_"):  # copying and pickling look for these before there is a metric
            raise AttributeError(name)
        return getattr(self.metric, name)
