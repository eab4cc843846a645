"""The rules of CUDA that PyTorch's operations follow: which of them wait, and which refuse a CPU tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

# The sizes of their results depend on values, so the host must see the values first.
SIZED_BY_VALUES = {
    *("nonzero", "masked_select", "bincount", "equal", "is_nonzero"),
    *("_unique", "_unique2", "unique_dim", "unique_consecutive", "unique_dim_consecutive"),
}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
COPIES = {"copy_", "_to_copy"}
# A CPU tensor without dimensions is a number to most operations; not to these.
NO_CPU_NUMBERS = {
    *("cat", "stack", "mm", "bmm", "addmm", "matmul", "dot", "linear", "embedding", "searchsorted"),
    *("gather", "scatter", "scatter_", "scatter_add_", "scatter_reduce", "index_select", "index_copy_"),
}
NO_KERNEL = {
    *("empty", "empty_like", "new_empty", "new_empty_strided", "empty_strided", "resize_", "set_"),
    *("detach", "alias", "lift_fresh", "sym_size", "is_pinned", "_pin_memory", "_local_scalar_dense"),
}


def is_view(func: Any) -> bool:
    """Return whether an operation returns views of its inputs."""
    infos = [result.alias_info for result in func._schema.returns]
    return bool(infos) and all(info is not None and not info.is_write for info in infos)


def launches(func: Any, name: str) -> bool:
    """Return whether an operation launches a kernel."""
    return not is_view(func) and name not in NO_KERNEL


def wait_of(name: str, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """Return the reason for which the host waits in an operation; None if it does not.

    Args:
        name: of the operation.
        func: the operation.
        args: its arguments, some of which are on the device.
        kwargs: its arguments by name.
    """
    if name in COPIES:
        return _wait_of_copy(name, args, kwargs)
    if name == "_local_scalar_dense":
        return "item"
    if name in SIZED_BY_VALUES:
        return name
    if name == "repeat_interleave" and func._overloadname == "Tensor" and kwargs.get("output_size") is None:
        return "repeat_interleave without output_size"
    if name in INDEXING:
        return _wait_of_indexing(name, args)
    return None


def _wait_of_copy(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """Return the reason of a copy between host and device, which waits unless it is asked not to."""
    if name == "copy_":
        to, source = args[0].device, args[1]
        late = kwargs.get("non_blocking") or (len(args) > 2 and args[2])
    else:
        to, source = torch.device(kwargs.get("device") or args[0].device), args[0]
        late = kwargs.get("non_blocking")
    if to.type == source.device.type or late or not source.numel():
        return None
    return "copy to the host" if source.is_cuda else "copy from the host"


def _wait_of_indexing(name: str, args: Sequence[Any]) -> str | None:
    """Return the reason of an index: a mask has as many places as True values."""
    given = [index for index in args[1] if index is not None]
    masks = [index for index in given if index.dtype in (torch.bool, torch.uint8)]
    if masks:
        value = args[2] if name.startswith("index_put") else None
        fills = isinstance(value, Tensor) and value.numel() == 1 and not value.is_cuda
        if not (fills and len(masks) == len(given)):  # x[mask] = 0 is masked_fill
            return "an index that is a mask"
    if args[0].is_cuda and not all(index.is_cuda for index in given):
        return "an index on the host"
    return None


def refused(name: str, args: Sequence[Any], tensors: Sequence[Tensor]) -> str | None:
    """Return the error of CUDA about tensors of several devices; None if they may go together."""
    devices = sorted({str(t.device) for t in tensors if t.is_cuda})
    if name in COPIES:
        return None
    if len(devices) > 1:
        return f"Expected all tensors to be on the same device, but found {' and '.join(devices)} in {name}"
    on_host = [t for t in tensors if not t.is_cuda]
    if name in INDEXING:
        return _refused_index(args)
    if any(t.ndim or name in NO_CPU_NUMBERS for t in on_host):
        shapes = [tuple(t.shape) for t in on_host]
        return (
            f"Expected all tensors to be on the same device, but found {devices[0]} and cpu, "
            f"shapes {shapes}, in {name}"
        )
    return None


def _refused_index(args: Sequence[Any]) -> str | None:
    if not args[0].is_cuda and any(index is not None and index.is_cuda for index in args[1]):
        return "indices should be either on cpu or on the same device as the indexed tensor (cpu)"
    if len(args) > 2 and args[0].is_cuda and not args[2].is_cuda and args[2].ndim:
        return "expected self and source to be on the same device, but the values of an index_put are on cpu"
    return None
