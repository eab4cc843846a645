"""The way in which a training computes: with compiled code or without, and in which precision.

An agent states it (`compile`, `autocast`). In the context `agent.computing()`, which the training loop enters
for every update, each rollout, completion and evaluation of actions computes so, wherever it is called.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache, partial
from statistics import median
from typing import Any, Literal, NamedTuple

import torch

from rlseq.engine.compiled import BATCH_SIZES_COMPILED, compiler_error, quietly
from rlseq.utils.ranks import largest_of_ranks

Compile = Literal["off", "rollout", "all", "auto"]
Autocast = Literal["off", "bfloat16", "auto"]

OFF: Literal["off"] = "off"
UNCOUNTED, COUNTED = 1, 3  # updates of each way in a trial: the first ones compile, the others are timed
WORTH_TRYING = 60.0  # seconds of training left, below which compiling cannot pay back


def stated(compile: Compile, autocast: Autocast) -> dict[str, str]:
    """Return the settings that are not off, by name, as hyper-parameters of an agent."""
    return {name: value for name, value in {"compile": compile, "autocast": autocast}.items() if value != OFF}


class Computing(NamedTuple):
    """A way to compute."""

    rollout: bool = False  # whether the steps of a rollout are compiled
    learning: bool = False  # whether the evaluation of actions is compiled
    autocast: torch.dtype | None = None  # in which networks compute, if not in their own

    @property
    def compiles(self) -> bool:
        """Whether anything is compiled."""
        return self.rollout or self.learning

    def __str__(self) -> str:
        code = (
            "everything compiled" if self.learning else "rollouts compiled" if self.rollout else "uncompiled"
        )
        return f"{code}, {'float32' if self.autocast is None else str(self.autocast).removeprefix('torch.')}"


UNSTATED = Computing()
_now: ContextVar[Computing] = ContextVar("computing", default=UNSTATED)


def now() -> Computing:
    """Return how the training that is under way computes."""
    return _now.get()


@contextmanager
def computing(how: Computing) -> Iterator[None]:
    """Compute in a way while the context lasts."""
    before = _now.set(how)
    try:
        yield
    finally:
        _now.reset(before)


@contextmanager
def compiled_features(policy: Any) -> Iterator[None]:
    """Evaluate with a compiled `features` of the policy, if it has one.

    All that is evaluated but the head, whose own chunks already are a few large kernels.
    """
    if not hasattr(policy, "features"):
        yield
        return
    vars(policy)["features"] = partial(
        _fused(type(policy).features), policy
    )  # before the method of the class
    try:
        with quietly(), torch._dynamo.config.patch(recompile_limit=BATCH_SIZES_COMPILED):
            yield
    finally:
        del vars(policy)["features"]


@lru_cache
def _fused(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, dynamic=True)  # batches differ in rows and in width


def ways(compile: Compile, autocast: Autocast, device: str) -> list[Computing]:
    """Return the ways to compute that settings leave open, the plainest first.

    Args:
        compile: as an agent states it.
        autocast: as an agent states it.
        device: the type of the device. On a CPU, "auto" leaves the learning step as it is: compiling it took
            two minutes and saved nothing.
    """
    off, rollout, everything = (False, False), (True, False), (True, True)
    tried = [off, rollout] if device == "cpu" else [off, rollout, everything]
    compiled = {"off": [off], "rollout": [rollout], "all": [everything], "auto": tried}[compile]
    types: dict[Autocast, list[torch.dtype | None]] = {
        "off": [None],
        "bfloat16": [torch.bfloat16],
        "auto": [None, torch.bfloat16],
    }
    return [Computing(*parts, dtype) for dtype in types[autocast] for parts in compiled]


def why_not(how: Computing, device: torch.device) -> str | None:
    """Return why a device cannot compute in a way; None if it can."""
    if how.autocast is not None and not has_bfloat16(device.type):
        return (
            f"this {device.type} device has no bfloat16, which networks of older GPUs cannot compute in; "
            'leave autocast="off"'
        )
    if how.learning or (how.rollout and device.type != "cuda"):  # rollouts of a GPU are captured
        reason = compiler_error(device.type)
        if reason is not None:
            return (
                f"torch.compile does not work here ({reason}); install a C++ compiler (`rlseq doctor`), or "
                'leave compile="off"'
            )
    return None


@lru_cache
def has_bfloat16(device: str) -> bool:
    """Return whether a type of device multiplies in bfloat16."""
    if device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return False
    x = torch.ones(8, 8, device=device, requires_grad=True)
    try:
        with torch.autocast(device, torch.bfloat16):
            (x @ x).sum().backward()  # type: ignore[no-untyped-call]
    except RuntimeError:
        return False
    return True


class Trial:
    """A measurement of several ways to compute: each takes a few updates of the training, one stays.

    What the trial finds is part of a checkpoint, so that a resumed run computes as it did before.

    Args:
        ways: the plainest first.
        stated: the settings that are measured, for the line that says what was found.
        device: whose work is awaited where it is timed.
        lacking: why other ways were left out.
    """

    def __init__(
        self, ways: Sequence[Computing], stated: str, device: torch.device, lacking: str = ""
    ) -> None:
        self.ways, self._stated, self._device = list(ways), stated, device
        self.seconds: list[list[float]] = [[] for _ in self.ways]
        self.chosen = 0 if len(self.ways) == 1 else None
        self.done = 0.0  # the share of training that lies behind; 0 where that is not known
        self._line = f"{stated}: {self.ways[0]}; {lacking}" if lacking and self.chosen == 0 else None

    @property
    def way(self) -> Computing:
        """The way of the update that is under way."""
        return self.ways[self._under_way if self.chosen is None else self.chosen]

    @property
    def _under_way(self) -> int:
        return next(n for n, found in enumerate(self.seconds) if len(found) < UNCOUNTED + COUNTED)

    def news(self) -> str | None:
        """Return a line that says what was found, once."""
        line, self._line = self._line, None
        return line

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Time an update, as long as nothing is chosen."""
        if self.chosen is not None:
            yield
            return
        started = time.perf_counter()
        yield
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        spent = torch.tensor(time.perf_counter() - started)
        self.note(float(largest_of_ranks(spent)))  # all ranks choose the same

    def note(self, seconds: float) -> None:
        """Note how long an update took; choose when the last way is measured, or no other is worth trying."""
        way, before = self._under_way, sum(map(len, self.seconds))
        self.seconds[way].append(seconds)
        if way not in (0, len(self.ways) - 1) or len(self.seconds[way]) < UNCOUNTED + COUNTED:
            return
        left = before * (1 - self.done) / self.done - 1 if self.done else float("inf")
        rest = self._usual(0) * left
        if way:
            self.chosen = min(range(len(self.ways)), key=self._usual)
            self._line = f"{self._stated}: {self._found(left)}"
        elif rest < WORTH_TRYING and any(each.compiles for each in self.ways):
            self.chosen = 0
            found = f"compiling does not pay back in the {max(rest, 0):.0f} s of training that are left"
            self._line = f"{self._stated}: {self.ways[0]}; {found}"

    def _usual(self, way: int) -> float:
        """Return the seconds of an update in a way, those that compile apart."""
        return median(self.seconds[way][UNCOUNTED:])

    def _found(self, left: float) -> str:
        """Return what was found, in words."""
        assert self.chosen is not None
        times = "; ".join(f"{1000 * self._usual(n):.0f} ms {way}" for n, way in enumerate(self.ways))
        if self.chosen == 0:
            return f"{self.ways[0]}, as nothing else is faster (an update takes {times})"
        spent = sum(found[0] - self._usual(n) for n, found in enumerate(self.seconds) if n)
        gain = self._usual(0) - self._usual(self.chosen)
        of = f" of the {left:,.0f} left" if left < float("inf") else ""
        after = f"pays back after {max(spent, 0) / gain:,.0f} updates{of}"
        return f"{self.ways[self.chosen]}, which {after} (an update takes {times})"

    def state_dict(self) -> dict[str, Any]:
        """Return the times so far, and the choice."""
        return {"seconds": [list(found) for found in self.seconds], "chosen": self.chosen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with these times, or with this choice."""
        self.seconds, self.chosen = [list(found) for found in state["seconds"]], state["chosen"]
