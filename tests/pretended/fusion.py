"""The kernels that a compiled step of a rollout launches on a GPU, counted where there is none.

The step is traced with tensors that have a device and no numbers. PyTorch's compiler (Inductor) lowers it for
a GPU and decides which operations become one kernel; this is looked at, and no code is generated. A call of a
library counts as one kernel, as does attention, for which a GPU has a fused one.

python -m tests.pretended.fusion        print the counts, as JSON
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from tests.pretended import guard

if __name__ == "__main__":
    try:
        guard.load()  # before torch is imported
    except guard.NoCompiler as reason:
        sys.exit(f"skipped: {reason}")

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_leaves

import rlseq
from rlseq.engine.decode import Sample
from rlseq.engine.rollout import decode_step
from rlseq.mdp.episodes import Episodes
from tests.pretended import cuda

ROWS, WORDS, LENGTH = 512, 5_000, 20
POLICIES: dict[str, tuple[str, dict[str, Any]]] = {
    "lstm": ("lstm", {"hidden": 256}),
    "transformer, 4 layers": ("transformer", {"hidden": 256, "layers": 4}),
}
H100 = SimpleNamespace(
    type="cuda",
    index=0,
    name="NVIDIA H100",
    major=9,
    minor=0,
    warp_size=32,
    multi_processor_count=132,
    max_threads_per_multi_processor=2_048,
    max_threads_per_block=1_024,
    regs_per_multiprocessor=1 << 16,
    L2_cache_size=50 << 20,
    total_memory=80 << 30,
    shared_memory_per_block_optin=227 << 10,
    gcnArchName="",
)


class Looked(Exception):
    """The compiler has decided; nothing more is needed."""


def compiled_step(policy: str, sizes: dict[str, Any]) -> dict[str, int]:
    """Return how many kernels a compiled step launches: fused ones, and calls of libraries."""
    with a_gpu():
        nodes = scheduled(*traced(policy, sizes))
    launching = [node for node in nodes if type(node.node).__name__ not in ("ConcatKernel", "MultiOutput")]
    called = sum(type(node).__name__ == "ExternKernelSchedulerNode" for node in launching)
    return {"fused": len(launching) - called, "called": called}


def traced(name: str, sizes: dict[str, Any]) -> tuple[torch.fx.GraphModule, list[Tensor]]:
    """Return the operations of a step of a language model with sampling and bookkeeping, and their inputs."""
    env = rlseq.make("rlseq/Oracle-v0", vocab_size=WORDS, length=LENGTH, references=2, num_envs=ROWS)
    device = torch.device("cuda", 0)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        with device:
            policy = rlseq.make_policy(name, env, **sizes).eval().requires_grad_(False)
        part = env.replace(episodes=Episodes.begin({}, ROWS, LENGTH, env.vocab.pad, device))
        token = torch.zeros(ROWS, dtype=torch.int64, device=device)
        state, uniform = policy.start({"index": token}), torch.zeros(ROWS, dtype=torch.float64, device=device)

        def step(token: Tensor, state: Any, uniform: Tensor) -> Any:
            return decode_step(policy, Sample(), part, token, state, uniform, None, None)

        graph = make_fx(step)(token, state, uniform)
    return graph, named_inputs(graph)


def named_inputs(graph: torch.fx.GraphModule) -> list[Tensor]:
    """Turn the tensors that a graph holds, weights and texts, into inputs; return all inputs."""
    body = graph.graph
    inputs = [node.meta["val"] for node in body.nodes if node.op == "placeholder"]
    first = next(node for node in body.nodes if node.op == "call_function")
    made: dict[Any, Any] = {}
    for node in [node for node in body.nodes if node.op == "get_attr"]:
        if node.target not in made:
            inputs.append(getattr(graph, node.target))
            with body.inserting_before(first):
                made[node.target] = body.placeholder(node.target)
        node.replace_all_uses_with(made[node.target])
        body.erase_node(node)
    output = body.output_node()
    output.args = (tuple(leaf for leaf in tree_leaves(output.args[0]) if leaf is not None),)
    body.set_codegen(torch.fx.graph.CodeGen())
    graph.recompile()
    return inputs


def scheduled(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> list[Any]:
    """Return what the compiler would launch, one node for a kernel."""
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx

    found: list[Any] = []

    def look(nodes: Sequence[Any]) -> Any:
        found.extend(nodes)
        raise Looked

    # No graph from a cache, whose nodes are gone; no constants computed, which needs the device.
    options: dict[str, Any] = {"fx_graph_cache": False, "joint_graph_constant_folding": False}
    with config.patch(_post_fusion_custom_pass=look, **options), torch.no_grad():
        try:
            compile_fx(graph, inputs)
        except Exception:
            if not found:
                raise
    return found


def fused_attention(
    q: Tensor, keys: Tensor, values: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
) -> Tensor:
    """Stand for `scaled_dot_product_attention` as it chooses on a GPU: one kernel, for aligned masks."""
    if attn_mask is not None:
        width = attn_mask.shape[-1]
        if width % 8:
            attn_mask = nn.functional.pad(attn_mask, (0, -width % 8))[..., :width]
        attn_mask = attn_mask.expand(*q.shape[:-1], width)
    kernel: Callable[..., Any] = torch.ops.aten._scaled_dot_product_efficient_attention
    found: Tensor = kernel(q, keys, values, attn_mask, False, 0.0, is_causal)[0]
    return found


@contextmanager
def a_gpu() -> Iterator[None]:
    """Let the compiler see a GPU and its own language for kernels, and let tracing think that it compiles."""
    from torch._dynamo.device_interface import CudaInterface
    from torch._inductor import scheduler
    from torch._inductor.fx_passes import fuse_attention, pad_mm

    interfaces = CudaInterface, CudaInterface.Worker
    replaced: list[tuple[Any, str, Any]] = [
        (scheduler, "has_triton", lambda: True),
        *[(fuse_attention, "_sfdp_init", lambda *_: None), (pad_mm, "_pad_mm_init", lambda *_: None)],
        *[(owner, "get_device_properties", lambda *_: H100) for owner in (torch.cuda, *interfaces)],
        (torch.cuda, "get_device_capability", lambda *_: (H100.major, H100.minor)),
        (CudaInterface.Worker, "current_device", lambda: 0),
        (torch.compiler, "_is_compiling_flag", True),
        (nn.functional, "scaled_dot_product_attention", fused_attention),
        (nn.Module, "to", lambda module, *_: module),  # made on the device, whatever that of the task
        (torch.backends.cudnn, "is_acceptable", lambda _: False),
    ]
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for owner, name, value in replaced:
            stack.enter_context(patch.object(owner, name, value))
        yield


def main() -> None:
    """Print the kernels of each policy."""
    cuda.replace_cuda()
    json.dump({name: compiled_step(*how) for name, how in POLICIES.items()}, sys.stdout)


if __name__ == "__main__":
    main()
