"""`rollout(…, compile=True)`: the same steps, compiled, and on a GPU as one captured graph.

`torch.compile` fuses what a step does (policy, sampler, transition). It takes seconds for each number of
rows, once in a process; parameters are read anew at every step. Where there is no compiler, the steps run
uncompiled, after one warning.

On a GPU all steps become one graph, captured once for each number of rows and steps, and replayed: nothing is
launched from the host, and it never waits. A captured step reads its inputs at fixed addresses: where
parameters have been moved (not merely changed), the steps are captured again.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from rlseq.engine.decode import Decode
from rlseq.engine.device import blocks
from rlseq.mdp.sequence_env import SequenceEnv
from rlseq.types import LegalRule, Policy

# Log-probabilities `[B, T]`, the tokens allowed or the rule that allows them, and where none was, `[B, T]`.
Decoded = tuple[Tensor, Tensor | LegalRule | None, Tensor | None]
Capture = Callable[[Callable[[], Decoded]], tuple[Decoded, Callable[[], Any]]]

GRAPHS = 8  # kept for a policy; each holds memory for its inputs and results
BATCH_SIZES_COMPILED = 64  # numbers of rows that are compiled; further ones run uncompiled
_graphs: WeakKeyDictionary[Any, dict[Any, _Graph]] = WeakKeyDictionary()


def compiled(
    decode_loop: Callable[..., Decoded], step: Callable[..., Any], policy: Policy, decode: Decode
) -> Callable[..., Decoded]:
    """Return `decode_loop` with the steps of a policy and a decoder, compiled or captured."""

    def on_any_device(env: SequenceEnv, *rest: Any) -> Decoded:
        device = env.device.type
        fused = _fused(step, device) if compiler_works(device) else step
        loop = partial(decode_loop, partial(fused, policy, decode))
        if device == "cuda":
            with torch.cuda.device(env.device), compiling():  # whose streams capture
                return replayed(loop, (policy, decode), env, rest, captured)
        if fused is step:
            return loop(env, *rest)
        return in_whole_blocks(partial(loop, keep_finished=True), env, *rest)

    return on_any_device


# ── torch.compile ────────────────────────────────────────────────────────────────────────────────────────


@lru_cache
def _fused(step: Callable[..., Any], device: str) -> Callable[..., Any]:
    if device == "cpu":  # launched from C++, not Python
        return torch.compile(step, dynamic=False, options={"cpp_wrapper": True})
    return torch.compile(step, dynamic=False)


def in_whole_blocks(
    loop: Callable[..., Decoded],
    env: SequenceEnv,
    token: Tensor,
    state: Any,
    at_work: Sequence[int],
    *rest: Any,
) -> Decoded:
    """Keep blocks of rows at their size while they are written, as each size would be compiled by itself."""
    size = blocks(env.num_envs, len(env.vocab), env.device)[0].stop
    at_work = [min(-(-n // size) * size, env.num_envs) for n in at_work]
    with compiling():
        return loop(env, token, state, at_work, *rest)


@contextmanager
def compiling() -> Iterator[None]:
    """Compile for many numbers of rows, quietly."""
    with quietly(), torch._dynamo.config.patch(recompile_limit=BATCH_SIZES_COMPILED):
        yield


@contextmanager
def quietly() -> Iterator[None]:
    """Suppress the warnings of PyTorch's compiler about PyTorch itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*lru_cache")
        yield


@lru_cache
def compiler_works(device: str) -> bool:
    """Return whether torch.compile works on a device type; warn, once, if it does not."""
    reason = compiler_error(device)
    if reason is not None:
        captured = " and captured" if device == "cuda" else ""
        warnings.warn(
            f"torch.compile does not work here ({reason}); rollouts run uncompiled{captured}; install a C++ "
            f"compiler{' and Triton' * bool(captured)}, or leave compile=True out",
            RuntimeWarning,
            stacklevel=2,
        )
    return reason is None


def compiler_error(device: str) -> str | None:
    """Return why torch.compile does not work on a device type; None if it does."""
    try:
        with quietly():
            torch.compile(torch.neg, dynamic=False)(torch.ones(8, device=device))
    except Exception as error:  # whatever a missing compiler leads to
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        return f"{type(error).__name__}: {reason:.200}"
    return None


# ── CUDA graphs ──────────────────────────────────────────────────────────────────────────────────────────


class _Graph:
    """A captured `decode_loop` with memory of its own: inputs are copied in, and results out."""

    def __init__(self, loop: Callable[..., Decoded], env: SequenceEnv, rest: Any, capture: Capture) -> None:
        own = env.take(torch.arange(env.num_envs, device=env.device))
        rest = _copied(rest)
        self.inputs = [*own.episodes.tensors(), *_leaves(rest)]
        self.episodes = own.episodes
        self.written, self.replay = capture(lambda: loop(own, *rest))

    def __call__(self, env: SequenceEnv, rest: Any) -> Decoded:
        for own, given in zip(self.inputs, [*env.episodes.tensors(), *_leaves(rest)], strict=True):
            own.copy_(given)
        self.replay()
        for given, own in zip(env.episodes.tensors()[:3], self.episodes.tensors(), strict=False):
            given.copy_(own)
        copy: Decoded = _copied(self.written)
        return copy


def replayed(
    loop: Callable[..., Decoded], who: tuple[Policy, Decode], env: SequenceEnv, rest: Any, capture: Capture
) -> Decoded:
    """Replay the graph of this policy for inputs of this shape; capture it if there is none."""
    policy, decode = who
    graphs = _graphs.setdefault(policy, {})
    given = [*env.episodes.tensors(), *_leaves(rest)]
    key = (
        *(decode, type(env), env.generator, env.max_len, env.vocab.eos),  # a generator stands for its task
        tuple(rest[2]),
        tuple((tensor.shape, tensor.dtype) for tensor in given),
        tuple(p.data_ptr() for p in policy.parameters()),  # type: ignore[attr-defined]
        torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None,
    )
    if key not in graphs:
        while len(graphs) >= GRAPHS:
            del graphs[next(iter(graphs))]
        graphs[key] = _Graph(loop, env, rest, capture)
    return graphs[key](env, rest)


def captured(run: Callable[[], Decoded]) -> tuple[Decoded, Callable[[], Any]]:
    """Capture what a function launches; return its result and a function that launches it again."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # libraries make their workspaces at first use, which cannot be captured
        for _ in range(2):
            run()
    torch.cuda.current_stream().wait_stream(side)
    pool, _ = memory_pool(torch.cuda.current_device())
    graph = torch.cuda.CUDAGraph()
    torch.clear_autocast_cache()  # the graph must cast the weights itself, or it would read old copies
    try:
        with torch.cuda.graph(graph, pool=pool):
            written = run()
    except RuntimeError as error:
        raise RuntimeError(
            "this rollout cannot be captured as a CUDA graph: the policy's `step` or the task's `legal` "
            "copies from or to the host, or waits for the device; leave compile=True out"
        ) from error
    finally:
        torch.clear_autocast_cache()  # its copies are in the memory of the graph
    return written, graph.replay


@lru_cache
def memory_pool(device: int) -> tuple[Any, Any]:
    """Return the memory that all graphs of a device share, and a graph that keeps it.

    Graphs are replayed one after the other, and their results are copied at once, so that one may write
    where another has computed.
    """
    graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
    with torch.cuda.graph(graph, pool=pool):
        torch.zeros(1, device=torch.device("cuda", device))
    return pool, graph


def _leaves(tree: Any) -> list[Tensor]:
    if isinstance(tree, (tuple, list)):
        return [leaf for part in tree for leaf in _leaves(part)]
    return [tree] if isinstance(tree, Tensor) else []


def _copied(tree: Any) -> Any:
    if isinstance(tree, (tuple, list)):
        return type(tree)(_copied(part) for part in tree)
    return tree.clone() if isinstance(tree, Tensor) else tree
