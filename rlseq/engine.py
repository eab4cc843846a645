"""The engine: policy × environment → `Rollout`, in lock-step, without leaving the device.

Six algorithms, one loop, by what is `forced`: a reference prefix, then sampling, is MIXER; a sampled
prefix completed K times is Monte-Carlo search; all T tokens is teacher forcing. `Greedy()` on the same
contexts is the self-critical baseline; `repeat=K` gives groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rlseq.decode import Decode, Sample, acting_logits
from rlseq.env import SequenceEnv
from rlseq.types import RAW, Behaviour, Evaluation, Policy, Rollout

LOOK_EVERY = 8  # steps between two looks at whether all rows are done: each look waits for the device


@torch.no_grad()
def rollout(
    policy: Policy,
    env: SequenceEnv,
    *,
    decode: Decode = Sample(),
    forced: Tensor | None = None,
    forced_steps: int | Tensor | None = None,
    repeat: int = 1,
    index: Tensor | None = None,
) -> Rollout:
    """Write one text per row and judge them all.

    Args:
        policy: writes; in evaluation mode and without gradients.
        env: is written to; all its rows start afresh.
        decode: how tokens are chosen, `Sample(temperature)` or `Greedy()`.
        forced: `[B, F]` tokens written instead of the policy's choice, with their probability under it.
        forced_steps: how many of them to force, one number or one per row `[B]`; all F when not given.
        repeat: K; rows iK … iK+K−1 share a context.
        index: the items to write about, drawn at random when not given.
    """
    env = sequence_env(env)
    forced, is_forced = _forcing(env, forced, forced_steps)
    context = env.begin(repeat=repeat, index=index)
    shape = env.num_envs, env.max_len
    log_probs = torch.zeros(shape, device=env.device)
    supports: list[Tensor] = []
    # All random numbers of a rollout are drawn at once: one per token, whatever the vocabulary.
    uniform = torch.rand(shape[::-1], generator=env.generator, device=env.device, dtype=torch.float64)
    with evaluating(policy):
        state = policy.start(context)
        token = torch.full(shape[:1], env.vocab.bos, device=env.device)
        for t in range(env.max_len):
            logits, state = policy.step(token, state)
            legal = env.legal()
            if legal is not None:
                supports.append(legal)
            logits = acting_logits(logits, Behaviour(decode.temperature, legal))
            token, log_norm = decode.choose(logits, uniform[t])
            if forced is not None and is_forced is not None and t < forced.shape[1]:
                token = torch.where(is_forced[:, t], forced[:, t], token)
            log_probs[:, t] = logits.gather(1, token.unsqueeze(1)).squeeze(1) - log_norm
            env.append(token)
            if env.vocab.eos is not None and t % LOOK_EVERY == LOOK_EVERY - 1 and env.done.all():
                break
    mask = env.mask
    return Rollout(
        actions=env.tokens.where(mask, 0),
        mask=mask,
        log_probs=log_probs * mask,
        rewards=env.score(),
        values=None,
        ends=last_of(mask),
        bootstrap=None,
        context=context,
        behaviour=Behaviour(decode.temperature, _stack_supports(supports, env)),
    )


def demonstrations(env: SequenceEnv) -> Rollout:
    """The references of a fresh batch of contexts, as if they had been acted; they are not judged."""
    context = sequence_env(env).begin()
    if "reference" not in context:
        raise ValueError(f"{type(env).__name__} has no references to learn from; MLE needs them")
    actions, length = context["reference"], context["reference_length"]
    mask = torch.arange(actions.shape[1], device=actions.device) < length.unsqueeze(1)
    nothing = torch.zeros(actions.shape, device=actions.device)
    return Rollout(actions.where(mask, 0), mask, nothing, nothing, None, last_of(mask), None, context)


def rescore(policy: Policy, batch: Rollout) -> Evaluation:
    """Score a rollout again, with gradients, under the distribution that acted."""
    if batch.behaviour == RAW:  # a policy that never meets temperature or masks needs no third argument
        return policy.evaluate(batch.actions, batch.context)
    return policy.evaluate(batch.actions, batch.context, batch.behaviour)


def last_of(mask: Tensor) -> Tensor:
    """True on the last real action of every row, `[B, T]`."""
    return mask & ~mask.roll(-1, 1).index_fill(
        1, torch.tensor([mask.shape[1] - 1], device=mask.device), False
    )


def sequence_env(env: Any) -> SequenceEnv:
    """The `SequenceEnv` behind whatever `rlseq.make`, `gym.make_vec` or `gym.make` returned."""
    inner = getattr(env, "unwrapped", env)
    inner = getattr(inner, "batch", inner)
    if not isinstance(inner, SequenceEnv):
        raise TypeError(f"expected a SequenceEnv, as rlseq.make returns it, got {type(env).__name__}")
    return inner


@contextmanager
def evaluating(policy: Any) -> Iterator[None]:
    """Dropout off inside, and the policy's mode restored after."""
    training = isinstance(policy, nn.Module) and policy.training
    if training:
        policy.eval()
    try:
        yield
    finally:
        if training:
            policy.train()


def _forcing(
    env: SequenceEnv, forced: Tensor | None, steps: int | Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """Check the forced tokens `[B, F]`, and say where they are forced, bool `[B, F]`."""
    if forced is None:
        if steps is not None:
            raise ValueError(f"forced_steps={steps} without forced tokens; pass forced=[B, F]")
        return None, None
    if forced.ndim != 2 or len(forced) != env.num_envs or forced.shape[1] > env.max_len:
        raise ValueError(
            f"forced must be [B, F] with B={env.num_envs} rows and F ≤ T={env.max_len} tokens, "
            f"got {tuple(forced.shape)}"
        )
    if forced.is_floating_point() or forced.dtype == torch.bool:
        raise TypeError(f"forced must hold token ids, got {forced.dtype}")
    forced = forced.to(env.device, torch.int64)
    steps = torch.as_tensor(forced.shape[1] if steps is None else steps, device=env.device)
    is_forced = torch.arange(forced.shape[1], device=env.device) < steps.reshape(-1, 1)
    is_forced = is_forced.expand(forced.shape)
    if ((steps < 0) | (steps > forced.shape[1])).any():
        raise ValueError(
            f"forced_steps must be 0 … {forced.shape[1]}, the forced tokens given, got {steps.tolist()}"
        )
    if (((forced < 0) | (forced >= len(env.vocab))) & is_forced).any():
        raise ValueError(
            f"forced tokens must be 0 … {len(env.vocab) - 1}, got {int(forced.min())} … {int(forced.max())}"
        )
    return forced, is_forced


def _stack_supports(supports: list[Tensor], env: SequenceEnv) -> Tensor | None:
    """The legal tokens of every step, bool, broadcastable to `[B, T, V]`; None when all always are."""
    if not supports:
        return None
    support = torch.stack(supports, dim=-2)  # [(B,) t, V]
    unseen = support.new_ones(*support.shape[:-2], env.max_len - support.shape[-2], support.shape[-1])
    support = torch.cat([support, unseen], dim=-2)
    stuck = env.mask & ~support.any(-1)
    if stuck.any():
        rows = stuck.any(1).nonzero().flatten().tolist()
        raise ValueError(f"no token is legal in rows {rows[:8]}; `legal` must allow at least one")
    return support
