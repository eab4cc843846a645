"""Policies, which follow the protocol of `rlseq.types.Policy`; `make_policy` makes them by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from rlseq.mdp.sequence_env import sequence_env, unwrap_task
from rlseq.policies.attention import Learned as Learned
from rlseq.policies.attention import Rotary as Rotary
from rlseq.policies.captioner import Att2in as Att2in
from rlseq.policies.captioner import captioner
from rlseq.policies.hf import pretrained
from rlseq.policies.mlp import MLP, ControlSpec
from rlseq.policies.noise import WithNoise
from rlseq.policies.recurrent import Recurrent
from rlseq.policies.seq2seq import Seq2Seq
from rlseq.policies.speakers import Speakers
from rlseq.policies.spec import TokenSpec, check_sizes
from rlseq.policies.transformer import Transformer as Transformer
from rlseq.utils.arguments import Seed, checked_arguments, keyword_names
from rlseq.utils.errors import check_options, enter, pick

POLICIES: dict[str, Callable[..., nn.Module]] = {
    "lstm": partial(Recurrent, nn.LSTM),
    "gru": partial(Recurrent, nn.GRU),
    "seq2seq": partial(Seq2Seq, nn.LSTM),
    "transformer": Transformer,
    "captioner": captioner,
    "speakers": Speakers,
    "hf": pretrained,
    "mlp": MLP,
}

COMPONENTS: dict[Any, Any] = {part.__name__: part for part in (Learned, Rotary, Att2in, Transformer)}
COMPONENT_SIZES = ("positions", "decoder")  # sizes that are a part, which may be given by its name


@checked_arguments
def make_policy(name: str, env: Any, *, seed: Seed | None = None, **sizes: Any) -> Any:
    """Make a policy by name, on the task's device.

    Args:
        name: "lstm", "gru", "seq2seq", "transformer" or "captioner" for texts, "mlp" for
            `rlseq.adapters.GymEnv`, or one that was registered.
        env: the task; it decides vocabularies, source and device.
        seed: of the initial weights; the task's own seed when not given.
        **sizes: `hidden`, `embedding`, `layers`, `dropout`, `value=True` for a value head; of a transformer
            also `heads` and `positions` (`Learned` or `Rotary`); of a captioner `decoder` (`Att2in` or
            `Transformer`); of an mlp those of `rlseq.policies.mlp.MLP`.
    """
    env = unwrap_task(env)
    control = pick(POLICIES, name, "policy") is MLP
    reads = ControlSpec.of(env) if control else TokenSpec.of(sequence_env(env))
    return build_policy(name, reads, env.seed if seed is None else seed, env.device, sizes)


def build_policy(
    name: str, reads: ControlSpec | TokenSpec, seed: int, device: Any, sizes: Mapping[str, Any]
) -> Any:
    """Make a policy by name, for a task of known sizes.

    Args:
        name: see `make_policy`.
        reads: the ids that it reads and writes, or observations and actions.
        seed: of the initial weights.
        device: where its weights are.
        sizes: see `make_policy`.
    """
    build = pick(POLICIES, name, "policy")
    check_options(sizes, keyword_names(build), f"policy {name!r}")
    check_sizes(reads.read if isinstance(reads, TokenSpec) else reads.width, sizes)
    parts = {
        size: COMPONENTS[part]
        for size in COMPONENT_SIZES
        if isinstance(part := sizes.get(size), str) and part in COMPONENTS
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy: Any = build(reads, **{**sizes, **parts})
        if isinstance(reads, TokenSpec) and reads.noise:
            policy = WithNoise(policy, reads.noise)
        policy = policy.to(device)
    policy.made_from = name, dict(sizes)  # with which `rlseq.load` makes it again
    return policy


def register(name: str, build: Callable[..., nn.Module]) -> None:
    """Make a policy of texts known by its name, to `make_policy`, comparisons and the command line.

    Args:
        name: letters, digits and `_ + . -`.
        build: a class or function of a `TokenSpec`; its keyword-only parameters are the sizes.
    """
    try:
        inspect.signature(build).bind(None)
    except (TypeError, ValueError) as error:
        raise TypeError(
            "a policy is built from a TokenSpec, with its sizes as keywords, build(tokens, *, hidden=64); "
            f"{build!r:.80} cannot be called so: {error}"
        ) from None
    enter(POLICIES, name, build, "policy", getattr(build, "func", build))
