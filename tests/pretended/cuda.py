"""A pretended CUDA: tensors that name a CUDA device, compute on the CPU, and obey CUDA's rules.

Every operation on such a tensor goes through `dispatch`. Tensors of several devices together are an error,
as on a GPU; what makes the host wait is noted with its line, and so are kernels; a graph can be captured and
replayed on the same memory. Not pretended: the choice of kernels (cuDNN, attention), streams that run at the
same time, memory pools, and the precision of products.

`guard.load()` must have been called before torch was imported, and `install()` before tensors are made. There
is no way back: use it in a process of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map

from tests.pretended.cells import CELLS
from tests.pretended.ledger import Ledger, line_of_rlseq
from tests.pretended.rules import is_view, launches, refused, wait_of

DEVICES = 2
LEDGER = Ledger()
aliased: Any = return_and_correct_aliasing
Recorded = tuple[Callable[..., Any], Any, Any, Any]  # a function, its arguments, and what it returned


class State:
    """What the driver would know."""

    current = 0  # the current device
    tape: list[Recorded] | None = None  # of the graph that is being captured


def index_of(device: Any) -> int | None:
    """Return the number of a CUDA device, the current one where it has none; None for another device."""
    device = torch.device(device)
    if device.type != "cuda":
        return None
    return State.current if device.index is None else int(device.index)


def wait(operation: str) -> None:
    """Note that the host waits, which a capture does not allow."""
    if State.tape is not None:
        raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing ({operation})")
    LEDGER.wait(operation)


# ── tensors ──────────────────────────────────────────────────────────────────────────────────────────────


class PretendedTensor(torch.Tensor):
    """A tensor that names a CUDA device, and holds one on the CPU."""

    held: Tensor
    __torch_function__: Any = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor, index: int) -> PretendedTensor:
        made: PretendedTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=torch.device("cuda", index),
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return dispatch(func, args, kwargs or {})

    def tolist(self) -> Any:
        wait("tolist")
        return self.held.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if not force:
            raise TypeError("can't convert cuda device type tensor to numpy. Use Tensor.cpu() first")
        wait("numpy")
        return self.held.detach().numpy()

    def __getitem__(self, index: Any) -> Any:
        return torch.Tensor.__getitem__(self, _on_device(index, self.device))

    def __setitem__(self, index: Any, value: Any) -> None:
        torch.Tensor.__setitem__(self, _on_device(index, self.device), value)

    def __format__(self, spec: str) -> str:
        return format(self.item() if self.ndim == 0 else self.held, spec)

    def new_tensor(self, data: Any, dtype: Any = None, device: Any = None, *_: Any, **__: Any) -> Tensor:
        return torch.tensor(data, dtype=dtype or self.dtype, device=device or self.device)

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"PretendedTensor({self.held!r}, device={self.device})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            copy: Tensor = PretendedTensor(self.held.detach().clone(), int(self.device.index))
            if isinstance(self, torch.nn.Parameter):
                copy = torch.nn.Parameter(copy, self.requires_grad)
            memo[id(self)] = copy
        found: Tensor = memo[id(self)]
        return found


def _on_device(index: Any, device: torch.device) -> Any:
    """Return an index whose lists are tensors of a device: they are made on the host, and copied."""
    if isinstance(index, tuple):
        return tuple(_on_device(part, device) for part in index)
    return torch.tensor(index, device=device) if isinstance(index, list) else index


def unwrapped(value: Any) -> Any:
    """Return the CPU tensor that a pretended one holds; anything else as it is."""
    return value.held if isinstance(value, PretendedTensor) else value


def dispatch(func: Any, args: Any, kwargs: Any) -> Any:
    """Run an operation on the CPU under the rules of CUDA."""
    name = func._schema.name.split("::")[1]
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    on_device = [tensor for tensor in tensors if isinstance(tensor, PretendedTensor)]
    asked = kwargs.get("device")
    target = None if asked is None else index_of(asked)
    if not on_device and target is None:
        return func(*args, **kwargs)
    if name == "_fused_sdp_choice":
        return 0  # attention by plain operations
    if on_device:
        _check(name, args, tensors)
    if (reason := wait_of(name, func, args, kwargs)) is not None:
        wait(reason)
    if launches(func, name):
        LEDGER.kernels[name] += 1
    result = _run(func, name, args, kwargs)
    if asked is None:
        first = args[0] if name == "copy_" else on_device[0]
        target = int(first.device.index) if isinstance(first, PretendedTensor) else None
    if target is None:
        return result
    wrapped = tree_map(lambda leaf: _wrapped(leaf, target), result)
    if func._schema.is_mutable or is_view(func):
        return aliased(func, args, kwargs, wrapped)
    return wrapped


def _check(name: str, args: Sequence[Any], tensors: Sequence[Tensor]) -> None:
    """Refuse tensors of several devices, and numbers on the CPU in a capture."""
    if (error := refused(name, args, tensors)) is not None:
        raise RuntimeError(f"{error}, at {line_of_rlseq()}")
    mixed = any(not isinstance(tensor, PretendedTensor) for tensor in tensors)
    if mixed and State.tape is not None and name not in ("copy_", "_to_copy"):
        raise RuntimeError(f"CUDA error: a CPU tensor is read while the stream is capturing ({name})")


def _run(func: Any, name: str, args: Any, kwargs: Any) -> Any:
    """Run an operation on what the tensors hold, and record it where a graph is captured."""
    args, kwargs = tree_map(unwrapped, (args, dict(kwargs)))
    if "device" in kwargs:
        kwargs["device"] = "cpu" if kwargs["device"] is not None else None
    kwargs.pop("pin_memory", None)
    function = CELLS.get(name, func)
    result = function(*args, **kwargs)
    if State.tape is not None:
        State.tape.append((function, args, kwargs, result))
    return result


def _wrapped(value: Any, index: int) -> Any:
    return PretendedTensor(value, index) if isinstance(value, Tensor) else value


class Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sends operations without a pretended tensor to `dispatch`: `torch.zeros(3, device="cuda")`."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(func, args, kwargs or {})


# ── torch.cuda ───────────────────────────────────────────────────────────────────────────────────────────


class Generator(torch.Generator):
    """A random generator of any device, which draws on the CPU."""

    _index: int | None

    def __new__(cls, device: Any = "cpu") -> Generator:
        new: Any = super().__new__
        made: Generator = new(cls, "cpu")
        made._index = index_of(device)
        return made

    def __init__(self, device: Any = "cpu") -> None:
        pass

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cpu") if self._index is None else torch.device("cuda", self._index)


class Stream:
    """A stream of the device that is current where it is made."""

    def __init__(self, index: int | None = None) -> None:
        self.index = State.current if index is None else index

    def wait_stream(self, other: Stream) -> None:
        if other.index != self.index:
            raise RuntimeError(f"a stream of cuda:{self.index} waits for one of cuda:{other.index}")

    def synchronize(self) -> None:
        wait("stream.synchronize")


class Event:
    """An event of the stream in which it is recorded; `answers` is how often `query` says "not yet"."""

    answers = 0
    recorded: list[int] = []  # noqa: RUF012  # the devices of all events, in order

    def __init__(self, *_: Any, **__: Any) -> None:
        self.left = Event.answers

    def record(self, stream: Stream | None = None) -> None:
        Event.recorded.append(State.current if stream is None else stream.index)

    def query(self) -> bool:
        self.left -= 1
        return self.left < 0

    def synchronize(self) -> None:
        wait("event.synchronize")


class Graph:
    """A captured graph: operations, with the memory that they read and write."""

    made: list[Graph] = []  # noqa: RUF012

    def __init__(self) -> None:
        self.tape: list[Recorded] = []
        self.index, self.shared_pool = State.current, None
        Graph.made.append(self)

    def replay(self) -> None:
        for function, args, kwargs, old in self.tape:
            schema = getattr(function, "_schema", None)
            if schema is not None and is_view(function):
                continue
            new = function(*args, **kwargs)
            if schema is not None and schema.is_mutable:
                continue
            for there, value in zip(tree_flatten(old)[0], tree_flatten(new)[0], strict=True):
                if isinstance(there, Tensor):
                    there.copy_(value)

    def pool(self) -> Any:
        return self.shared_pool


@contextmanager
def capture(graph: Graph, pool: Any = None, **_: Any) -> Iterator[None]:
    """Record all operations inside in a graph."""
    State.tape, graph.index, graph.shared_pool = graph.tape, State.current, pool
    try:
        yield
    finally:
        State.tape = None


class DeviceContext:
    """Makes a device the current one inside; -1 and None change nothing."""

    def __init__(self, which: Any) -> None:
        self._index = which if isinstance(which, int) else None if which is None else index_of(which)

    def __enter__(self) -> None:
        self._before = State.current
        if self._index is not None and self._index >= 0:
            State.current = self._index

    def __exit__(self, *_: object) -> None:
        State.current = self._before


@contextmanager
def nothing(*_: Any, **__: Any) -> Iterator[None]:
    """Do nothing."""
    yield


def install() -> None:
    """Pretend from now on."""
    _replace_factories()
    replace_cuda()
    _move_parameters_in_place()
    for cell in (torch.nn.LSTM, torch.nn.GRU):
        _differentiate_once(cell)
    mode: Any = Mode
    mode().__enter__()
    _pretend_in_threads(mode)


def _pretend_in_threads(mode: Any) -> None:
    """Let new threads pretend, too: a mode holds for the thread that enters it."""
    owner: Any = threading.Thread
    run = owner.run

    def pretending(thread: threading.Thread) -> None:
        with mode():
            run(thread)

    owner.run = pretending


def _differentiate_once(cell: Any) -> None:
    """Let a recurrent network refuse gradients of gradients, as cuDNN does unless it is disabled."""
    forward = cell.forward

    def refuse(gradients: Any) -> None:
        if torch.is_grad_enabled():
            raise RuntimeError("Double backwards is not supported for CuDNN RNNs")

    def once(module: Any, *inputs: Any) -> Any:
        output = forward(module, *inputs)
        if torch.backends.cudnn.enabled and output[0].is_cuda and output[0].grad_fn is not None:
            output[0].grad_fn.register_prehook(refuse)
        return output

    cell.forward = once


def _move_parameters_in_place() -> None:
    """Let `module.to(device)` keep its parameters the same objects, as it does on a GPU."""
    owner: Any = torch.nn.Module
    apply = owner._apply

    def in_place(module: Any, *how: Any, **more: Any) -> Any:
        before = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            return apply(module, *how, **more)
        finally:
            torch.__future__.set_swap_module_params_on_conversion(before)

    owner._apply = in_place


def _replace_factories() -> None:
    """Replace what torch decides by device before any operation is dispatched."""
    owner: Any = torch
    owner.Generator = Generator
    empty, tensor, as_tensor = torch.empty, torch.tensor, torch.as_tensor

    def new_empty(*size: Any, pin_memory: bool = False, **how: Any) -> Tensor:
        return empty(*size, **how)  # pinned memory needs a driver

    def new_tensor(data: Any, *, device: Any = None, **how: Any) -> Tensor:
        if isinstance(data, PretendedTensor):
            return data.detach().clone().to(device or data.device, how.get("dtype"))
        made = tensor(data, **how)
        return made if device is None else made.to(device)

    def new_as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
        if isinstance(data, PretendedTensor):
            return data.to(device or data.device, dtype or data.dtype)
        made = as_tensor(data, dtype=dtype)
        return made if device is None else made.to(device)

    owner.empty, owner.tensor, owner.as_tensor = new_empty, new_tensor, new_as_tensor


def replace_cuda() -> None:
    """Replace the functions of torch.cuda that ask a driver."""
    import torch.cuda.amp.common

    state = torch.zeros(0, dtype=torch.uint8)
    replaced: dict[str, Any] = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "device_count": lambda: DEVICES,
        "current_device": lambda: State.current,
        "set_device": lambda which: setattr(State, "current", index_of(which)),
        "current_stream": lambda device=None: Stream(None if device is None else index_of(device)),
        "is_current_stream_capturing": lambda: State.tape is not None,
        "is_bf16_supported": lambda *_, **__: True,
        "synchronize": lambda *_: wait("torch.cuda.synchronize"),
        "get_rng_state": lambda *_: state,
        "get_rng_state_all": lambda: [state] * DEVICES,
        "set_rng_state": lambda *_: None,
        "graph_pool_handle": lambda: (0, len(Graph.made) + 1),
        "Event": Event,
        "Stream": Stream,
        "CUDAGraph": Graph,
        "graph": capture,
        "stream": nothing,
        "device": DeviceContext,
        "_initialized": True,
    }
    for name, value in replaced.items():
        setattr(torch.cuda, name, value)
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
