"""Several processes that train one policy: sums and rows over ranks, and errors that reach all of them.

`torchrun --nproc-per-node N` starts N processes, each with a rank. All of them hold the same weights, random
numbers and counts. Random numbers of a batch are drawn for the rows of all ranks, and each takes those of its
own rows, so that N ranks compute what one process would, up to the order of sums. In a single process nothing
is exchanged: every function returns its argument.
"""

from __future__ import annotations

import atexit
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

JOINING = timedelta(minutes=2)  # for which a process waits until the others answer
LOOKING = 0.1  # seconds between two looks at whether they do
WORKING = timedelta(minutes=30)  # for which it waits while others test, or write a checkpoint
VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # of the environment, set by torchrun


class Rank(NamedTuple):
    """The place of a process among those that train together."""

    number: int = 0
    of: int = 1  # number of ranks
    rows: tuple[int, ...] = ()  # of every rank, where they are not equally many

    def all(self, rows: int) -> int:
        """Return how many rows all ranks have where this one has `rows`."""
        return sum(self.rows) or rows * self.of

    def own(self, drawn: Tensor, dim: int = 0) -> Tensor:
        """Return the part of this rank of what was drawn for the rows of all ranks."""
        if self.of == 1:
            return drawn
        parts = torch.split(drawn, [*self.rows], dim) if self.rows else drawn.chunk(self.of, dim)
        return parts[self.number]

    def with_rows(self, rows: int) -> Rank:
        """Return this place among ranks of which each has a number of rows of its own."""
        return self if self.of == 1 else self._replace(rows=tuple(gathered(torch.tensor([rows])).tolist()))

    def total(self, value: Tensor) -> Tensor:
        """Return the sum of a value over ranks."""
        return value if self.of == 1 else total(value)


ALONE = Rank()
_me = ALONE  # of the training that runs in this process


class RankLost(RuntimeError):
    """Another process has ended, or cannot be reached."""


def this_rank() -> Rank:
    """Return the rank of this process in the training that runs, `ALONE` where there is none."""
    return _me


def launched_as() -> Rank:
    """Return the rank that torchrun has given this process, `ALONE` in any other process."""
    ranks = os.environ.get("WORLD_SIZE", "1")
    if "RANK" not in os.environ or ranks == "1":
        return ALONE
    missing = [name for name in VARIABLES if not os.environ.get(name)]
    if missing:
        raise ValueError(
            f"this is one of {ranks} processes that train together, but {', '.join(missing)} is not set in "
            "its environment; start them by torchrun --nproc-per-node N, which sets all of it"
        )
    return Rank(int(os.environ["RANK"]), int(ranks))


def own_device(device: str | torch.device) -> str | torch.device:
    """Return a device; of `cuda` without a number, under torchrun, the GPU of this rank on its machine."""
    if launched_as().of == 1 or str(device) != "cuda":
        return device
    return f"cuda:{os.environ.get('LOCAL_RANK', launched_as().number)}"


def check_alone(what: str) -> None:
    """Refuse under torchrun something that one process does."""
    if launched_as().of > 1:
        raise ValueError(
            f"{what} runs in one process, which starts others itself where it can use them; call it without "
            "torchrun, which is for `rlseq train`, `rlseq resume` and rlseq.train"
        )


@contextmanager
def together(device: torch.device) -> Iterator[Rank]:
    """Join the other ranks for a training; where torchrun has not started this process, it is alone.

    Args:
        device: of the policy. Tensors on processors are exchanged by gloo, those on GPUs by nccl.
    """
    global _me
    _me = _joined(device)
    try:
        yield _me
    finally:
        _me = ALONE


def _joined(device: torch.device) -> Rank:
    """Return the rank of this process after meeting the others, which is done once."""
    me = launched_as()
    if me.of == 1 or dist.is_initialized():
        return me
    host, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        if me.number:
            _await_first(host, int(port))
        store, number, ranks = next(iter(rendezvous("env://", me.number, me.of, timeout=JOINING)))
        dist.init_process_group(backend, store=store, rank=number, world_size=ranks, timeout=WORKING)
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise RankLost(
            f"rank {me.number} of {me.of} cannot reach the others at {host}:{port} (MASTER_ADDR, "
            f"MASTER_PORT): {reason:.200}; check the address, and that all of them were started"
        ) from None
    atexit.register(_leave)
    return me


def _await_first(host: str, port: int) -> None:
    """Wait until the first rank listens; PyTorch waits twice as long, and prints stacks of C++ meanwhile."""
    end = time.monotonic() + JOINING.total_seconds()
    while True:
        try:
            socket.create_connection((host, port), timeout=JOINING.total_seconds()).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(LOOKING)


def _leave() -> None:
    with suppress(RuntimeError, ValueError, AssertionError):
        dist.destroy_process_group()


def _reached(exchange: Callable[..., Any], *tensors: Any, **how: Any) -> None:
    """Exchange tensors, or say that another rank is lost."""
    try:
        exchange(*tensors, **how)
    except RuntimeError:
        raise RankLost(
            f"rank {_me.number} of {_me.of} has lost another rank, which has ended or cannot be reached; its "
            "own message, if it left one, says why. The last checkpoint is intact: the same command resumes"
        ) from None


# ── numbers and rows over ranks ──────────────────────────────────────────────────────────────────────────


def total(value: Tensor) -> Tensor:
    """Return the sum of a tensor over ranks; no gradient passes through it."""
    if _me.of == 1:
        return value
    found = value.detach().clone() if value.dtype != torch.bool else value.long()
    _reached(dist.all_reduce, found)
    return found


def largest_of_ranks(value: Tensor) -> Tensor:
    """Return the elementwise maximum of a tensor over ranks."""
    if _me.of == 1:
        return value
    found = value.detach().clone()
    _reached(dist.all_reduce, found, op=dist.ReduceOp.MAX)
    return found


def gathered(rows: Tensor) -> Tensor:
    """Return the rows of all ranks, `[n, …]` of each, in their order."""
    if _me.of == 1:
        return rows
    sent = (rows.to(torch.uint8) if rows.dtype == torch.bool else rows.detach()).contiguous()
    parts = [torch.empty_like(sent) for _ in range(_me.of)]
    _reached(dist.all_gather, parts, sent)
    return torch.cat(parts).to(rows.dtype)


def gathered_unequal(rows: Tensor) -> Tensor:
    """Return the rows of all ranks, of which each may have another number."""
    if _me.of == 1:
        return rows
    numbers = gathered(torch.tensor([len(rows)])).tolist()
    padded = rows.new_zeros(max(numbers), *rows.shape[1:])
    padded[: len(rows)] = rows.detach()
    parts = torch.split(gathered(padded), max(numbers))
    return torch.cat([part[:number] for part, number in zip(parts, numbers, strict=True)])


def total_gradients(parameters: Sequence[Tensor]) -> None:
    """Replace the gradients of parameters by their sums over ranks, in one exchange for each type.

    A parameter that no rank has used keeps no gradient.
    """
    if _me.of == 1:
        return
    used = total(torch.tensor([p.grad is not None for p in parameters])).tolist()
    shared = [p for p, times in zip(parameters, used, strict=True) if times]
    for kind in dict.fromkeys((p.dtype, p.device) for p in shared):
        some = [p for p in shared if (p.dtype, p.device) == kind]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in some])
        _reached(dist.all_reduce, flat)
        parts = torch.split(flat, [p.numel() for p in some])
        for parameter, part in zip(some, parts, strict=True):
            parameter.grad = part.view_as(parameter)


# ── messages ─────────────────────────────────────────────────────────────────────────────────────────────


def from_first(work: Callable[[], bytes]) -> bytes:
    """Do something on rank 0 and return its result on all ranks; an error of it is raised on all of them."""
    if _me.of == 1:
        return work()
    data, failure = b"", None
    if _me.number == 0:
        try:
            data = b"+" + work()
        except Exception as error:
            failure, data = error, f"-{type(error).__name__}: {error}".encode(errors="replace")
    length = total(torch.tensor(len(data)))
    sent = torch.zeros(int(length), dtype=torch.uint8)
    if data:
        sent = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    _reached(dist.broadcast, sent, src=0)
    if failure is not None:
        raise failure
    answer = sent.numpy().tobytes()
    if answer[:1] == b"-":
        raise ValueError(f"rank 0 has refused: {answer[1:].decode(errors='replace')}")
    return answer[1:]


def everyones(data: bytes) -> list[bytes]:
    """Return the messages of all ranks, in their order."""
    if _me.of == 1:
        return [data]
    lengths = gathered(torch.tensor([len(data)])).tolist()
    sent = gathered_unequal(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    return [message.numpy().tobytes() for message in torch.split(sent, lengths)]


@contextmanager
def own_noise(seed: int, update: int) -> Iterator[None]:
    """Let networks draw other random numbers on every rank inside the block, such as those of dropout."""
    if _me.of == 1:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed((seed * 1_000_003 + update) * _me.of + _me.number)
        yield
