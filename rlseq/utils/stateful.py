"""State that a checkpoint keeps: what has it says so by `state_dict` and `load_state_dict`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Stateful(Protocol):
    """Anything with a state: a reward, a task, a baseline, a module, an optimizer."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return the state as nested dicts and lists of tensors, numbers and strings."""

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Continue from a state."""


class TensorState:
    """A part of an agent whose state is a few tensors, which a subclass names."""

    tensors: ClassVar[tuple[str, ...]]  # names of the attributes; one that is None has no value yet

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors by name."""
        found = {name: getattr(self, name) for name in self.tensors}
        return {name: value for name, value in found.items() if value is not None}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from these tensors, each on the device of the one that it replaces."""
        for name in self.tensors:
            there, value = getattr(self, name), state.get(name)
            if value is not None:
                value = value.clone() if there is None else value.to(there.device, copy=True)
            setattr(self, name, value)


class UpdateCounter(TensorState):
    """The number of updates, for what changes as they go on."""

    tensors: ClassVar = ("updates",)

    def __init__(self) -> None:
        self.updates = torch.zeros((), dtype=torch.int64)


def states_of(parts: Mapping[str, object]) -> dict[str, Any]:
    """Return the states of the parts that have one, by name."""
    return {name: part.state_dict() for name, part in parts.items() if isinstance(part, Stateful)}


def seed_from(generator: torch.Generator) -> int:
    """Return a seed that is drawn from a generator, without waiting for its device.

    On an accelerator it is made from the generator's state, which the host knows.
    """
    if generator.device.type == "cpu":
        return int(torch.randint(2**62, (), generator=generator))
    torch.rand((), generator=generator, device=generator.device)  # so that the next state is another
    state = generator.get_state().numpy().tobytes()
    return int.from_bytes(hashlib.sha256(state).digest()[:7], "little")


def set_generator(generator: torch.Generator, state: Tensor) -> None:
    """Set the state of a random generator; refuses one of another kind of device."""
    try:
        generator.set_state(state)
    except RuntimeError as error:
        raise ValueError(
            f"the state of a random generator does not fit one on {generator.device} ({error}); continue the "
            "run on the kind of device that it was begun on"
        ) from error


def load_states(parts: Mapping[str, object], states: Mapping[str, Any], owner: str) -> None:
    """Load the states of parts; refuses states of other parts than those that have one."""
    known = {name: part for name, part in parts.items() if isinstance(part, Stateful)}
    if known.keys() != states.keys():
        differ = ", ".join(sorted(known.keys() ^ states.keys()))
        raise ValueError(f"the checkpoint does not fit this {owner}: it and the {owner} differ in {differ}")
    for name, part in known.items():
        part.load_state_dict(states[name])
