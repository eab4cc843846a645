"""A task without its data: the words and sizes with which a trained policy reads and writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlseq.mdp.sequence_env import SequenceEnv
from rlseq.types import Context
from rlseq.vocab import Vocab, pair_from_json, pair_to_json

METHODS = ("legal", "as_source")  # with which a task decides, without its data, what is read and written


class Observed(NamedTuple):
    """An observed item that is no text, an image, say: its shape, type, least and largest number."""

    shape: tuple[int, ...]
    dtype: str
    low: float
    high: float


@dataclass(frozen=True)
class TaskSpec:
    """The vocabularies of a task in full, and its sizes; it is written beside every run.

    Args:
        vocab: the words that are written.
        max_len: T, the largest number of tokens of a text.
        source_vocab: the words that are read; None where there is no source text.
        source_length: S, the largest number of tokens of a source.
        observed: items that are observed beside the source text.
        methods: those of `METHODS` that the task has of its own.
        noise: numbers of z, which the task draws for every text.
    """

    vocab: Vocab
    max_len: int
    source_vocab: Vocab | None = None
    source_length: int = 0
    observed: Mapping[str, Observed] = field(default_factory=dict)
    methods: tuple[str, ...] = ()
    noise: int = 0

    @classmethod
    def of(cls, env: SequenceEnv) -> TaskSpec:
        """The specification of a task."""
        observed = {}
        for name, bounds in env.observed.items():
            shape, dtype = env.items[name].shape[1:], str(env.items[name].dtype).removeprefix("torch.")
            observed[name] = Observed(tuple(shape), dtype, *bounds)
        length = env.items["source"].shape[1] if env.source_vocab is not None else 0
        methods = own_methods(type(env))
        return cls(env.vocab, env.max_len, env.source_vocab, length, observed, methods, env.noise)

    def to_json(self) -> dict[str, Any]:
        """All that `from_json` needs, as plain values."""
        return {
            **pair_to_json(self.vocab, self.source_vocab),
            "max_len": self.max_len,
            "source_length": self.source_length,
            "observed": {name: seen._asdict() for name, seen in self.observed.items()},
            "methods": list(self.methods),
            "noise": self.noise,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> TaskSpec:
        """The specification that `to_json` has written."""
        vocab, source_vocab = pair_from_json(stored)
        observed = {
            name: Observed(**{**seen, "shape": tuple(seen["shape"])})
            for name, seen in stored["observed"].items()
        }
        return cls(
            vocab,
            stored["max_len"],
            source_vocab,
            stored["source_length"],
            observed,
            tuple(stored["methods"]),
            stored.get("noise", 0),
        )

    def env(
        self, task: type[SequenceEnv] = SequenceEnv, made: Mapping[str, Any] = {}, **options: Any
    ) -> SequenceEnv:
        """Return a task with these words and sizes, without items and without a reward.

        Args:
            task: its class; methods of `METHODS` that it should have, and has not, are refused when called.
            made: the options with which the task of the training was made, for `without_data`.
            **options: see `EnvOptions`.
        """
        lacking = {name: partial(_refuse, name) for name in set(self.methods) - {*own_methods(task)}}
        cls = type(task.__name__, (_WithoutData, task), {"__doc__": task.__doc__, **lacking})
        env: SequenceEnv = cls(self, **options)
        env.without_data(made)
        return env

    def items(self) -> dict[str, Tensor]:
        """One item of zeros, from which a task learns shapes and types."""
        zeros = {
            name: torch.zeros(1, *seen.shape, dtype=getattr(torch, seen.dtype))
            for name, seen in self.observed.items()
        }
        if self.source_vocab is not None:
            zeros["source"] = torch.zeros(1, self.source_length, dtype=torch.int64)
        return zeros


def own_methods(task: type[SequenceEnv]) -> tuple[str, ...]:
    """Return those of `METHODS` that a task has of its own."""
    return tuple(name for name in METHODS if getattr(task, name) is not getattr(SequenceEnv, name))


def _refuse(method: str, *args: Any) -> Any:
    """Refuse to read or write as a task without its own method would."""
    raise ValueError(
        f"the task of the training has its own {method!r}, and its class is not known here; import the "
        "module that registers it, or make the task and use rlseq.generate(model.policy, task, …)"
    )


def _no_data(tokens: Tensor, mask: Tensor, context: Context) -> Tensor:
    """Refuse to compute a reward."""
    raise ValueError("a task without data has no reward; make it with data: model.task(path=…)")


class _WithoutData(SequenceEnv):
    """A task that has no items: sources are given to `rlseq.generate`."""

    size = 1  # one item, which is nothing

    def __init__(self, spec: TaskSpec, **options: Any) -> None:
        self.observed = {name: (seen.low, seen.high) for name, seen in spec.observed.items()}
        SequenceEnv.__init__(
            self,
            vocab=spec.vocab,
            max_len=spec.max_len,
            reward=_no_data,
            items=spec.items(),
            source_vocab=spec.source_vocab,
            **{"noise": spec.noise, **options},
        )

    def __getattr__(self, name: str) -> Any:
        """Refuse what only the constructor of the task sets, which takes the data."""
        raise AttributeError(
            f"{type(self).__name__} has no {name!r} without data, because its constructor sets that; make "
            "the task, and use rlseq.generate(model.policy, task, …)"
        )

    def contexts(self, index: Tensor) -> dict[str, Tensor]:
        """The empty context of a task that reads nothing; other tasks have none without data."""
        if self.items:
            raise ValueError(
                f"this {type(self).__name__} was loaded without data, so that it has no items; give sources "
                "to generate and score, or make the task with data: model.task(path=…)"
            )
        return {}

    def data_tensors(self) -> dict[str, Tensor]:
        """Nothing: there are no data."""
        return {}
