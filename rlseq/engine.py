"""The engine: policy × environment → `Rollout`, in lock-step, without leaving the device.

Six algorithms, one loop, by what is `forced`: a reference prefix, then sampling, is MIXER; a sampled
prefix completed K times is Monte-Carlo search; all T tokens is teacher forcing. `Greedy()` on the same
contexts is the self-critical baseline; `repeat=K` gives groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rlseq.checks import check_takes_behaviour, checked_forcing
from rlseq.decode import Decode, Sample, Search, acting_logits, checked_decoder
from rlseq.env import SequenceEnv
from rlseq.state import checked_state, evaluating, fork
from rlseq.types import RAW, Behaviour, Evaluation, Policy, Rollout, State

LOOK_EVERY = 8  # steps between two looks at whether all rows are done: each look waits for the device
BLOCK = 1 << 21  # logits of one step that a processor's caches still hold; more rows go block by block


@torch.no_grad()
def rollout(
    policy: Policy,
    env: SequenceEnv,
    *,
    decode: Decode | Search = Sample(),
    forced: Tensor | None = None,
    forced_steps: int | Tensor | None = None,
    repeat: int = 1,
    index: Tensor | None = None,
) -> Rollout:
    """Write one text per row and judge them all.

    Args:
        policy: writes; in evaluation mode and without gradients.
        env: is written to; all its rows start afresh.
        decode: how tokens are chosen, `Sample(temperature, top_k, top_p)`, `Greedy()` or `Beam(width)`.
        forced: `[B, F]` tokens written instead of the policy's choice, with their probability under it.
        forced_steps: how many of them to force, one number or one per row `[B]`; all F when not given.
        repeat: K; rows iK … iK+K−1 share a context.
        index: the items to write about, `[B / K]`; drawn at random when not given.
    """
    env, decode = sequence_env(env), checked_decoder(decode)
    if isinstance(decode, Search):
        if forced is not None:
            raise ValueError("a search starts from nothing; forced tokens go with Sample() or Greedy()")
        return decode.best(policy, env, repeat=repeat, index=index)
    forcing = checked_forcing(forced, forced_steps, (env.num_envs, env.max_len), len(env.vocab), env.device)
    context = env.begin(repeat=repeat, index=index)
    with evaluating(policy):
        state = policy.start({name: value[::repeat] for name, value in context.items()})
        state = checked_state(state, env.num_envs // repeat)
        if repeat > 1:  # rows that share a context share its encoding
            state = fork(state, torch.arange(env.num_envs, device=env.device) // repeat)
        token = torch.full((env.num_envs,), env.vocab.bos, device=env.device)
        at_work = [env.num_envs] * env.max_len
        log_probs, support = write(policy, env, token, state, at_work, decode, forcing)
    if not log_probs.isfinite().all():
        rows = (~log_probs.isfinite().all(1)).nonzero().flatten().tolist()
        raise ValueError(f"the policy's logits hold NaN or infinity in rows {rows[:8]}; nothing was judged")
    return harvest(env, log_probs, Behaviour(decode.temperature, support))


def harvest(env: SequenceEnv, log_probs: Tensor, behaviour: Behaviour = RAW) -> Rollout:
    """The episodes of an environment in which every row is finished, judged."""
    mask = env.mask
    return Rollout(
        actions=env.tokens.where(mask, 0),
        mask=mask,
        log_probs=log_probs.where(mask, 0.0),
        rewards=env.score(),
        values=None,
        ends=last_of(mask),
        bootstrap=None,
        context=env.context,
        behaviour=behaviour,
    )


def write(
    policy: Policy,
    env: SequenceEnv,
    token: Tensor,
    state: State,
    at_work: Sequence[int],
    decode: Decode,
    forcing: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Go on writing in all rows until they are done: the one loop of the house.

    Args:
        policy: writes.
        env: is written to.
        token: `[B]`, the last token of every row, still to be read.
        state: the policy's state before it.
        at_work: how many of the first rows may still have something to write, at each step.
        decode: how tokens are chosen.
        forcing: tokens `[B, F]`, and where they are written instead of the policy's choice.

    Returns:
        The log-probability of what was written, `[B, T]`, and the tokens that were allowed, if not all.
    """
    # All random numbers are drawn at once: one per token, whatever the vocabulary.
    shape = len(at_work), env.num_envs
    uniform = torch.rand(shape, generator=env.generator, device=env.device, dtype=torch.float64)
    log_probs = torch.zeros(env.num_envs, env.max_len + 1, device=env.device)
    supports = []
    with env.counts.writing(env):
        for rows in _blocks(env):
            counts = [min(n, rows.stop) - rows.start for n in at_work if n > rows.start]
            where = None if forcing is None else (forcing[0][rows], forcing[1][rows])
            block = env.take(rows), token[rows], fork(state, rows), counts
            supports.append(_write_block(policy, *block, decode, uniform[:, rows], where, log_probs[rows]))
    return log_probs[:, : env.max_len], _joined(supports, env)


def _write_block(
    policy: Policy,
    env: SequenceEnv,
    token: Tensor,
    state: State,
    at_work: Sequence[int],
    decode: Decode,
    uniform: Tensor,
    forcing: tuple[Tensor, Tensor] | None,
    log_probs: Tensor,
) -> Tensor | None:
    """Token by token. `env` and `log_probs` are views, so what is written stays; returns what was allowed."""
    allowed = None
    for t, rows in enumerate(at_work):
        if rows < env.num_envs:
            env, token, state = env.take(slice(rows)), token[:rows], fork(state, slice(rows))
        logits, state = policy.step(token, state)
        if logits.shape != (rows, len(env.vocab)):
            raise ValueError(
                f"a policy's step must return logits [B, V] = {(rows, len(env.vocab))}, "
                f"got {tuple(logits.shape)}"
            )
        logits, support = _acting(logits, env.allowed(), decode)
        token, log_norm = decode.choose(logits, uniform[t, :rows])
        if forcing is not None and t < forcing[0].shape[1]:
            token = torch.where(forcing[1][:, t], forcing[0][:, t], token)
        place = env.length.unsqueeze(1)  # a finished row's is the spare column, or has been its end
        log_prob = logits.gather(1, token.unsqueeze(1)) - log_norm.unsqueeze(1)
        log_probs[:rows].scatter_(1, place, log_prob.float())
        if support is not None:
            if allowed is None:
                allowed = support.new_ones(*log_probs.shape, len(env.vocab))
            allowed[torch.arange(rows, device=env.device), env.length] = support
        env.append(token)
        if env.vocab.eos is not None and t % LOOK_EVERY == LOOK_EVERY - 1 and env.done.all():
            break
    return allowed


def _acting(logits: Tensor, legal: Tensor | None, decode: Decode) -> tuple[Tensor, Tensor | None]:
    """Logits of the distribution that acts, and the tokens it allows, if not all."""
    logits = acting_logits(logits, Behaviour(decode.temperature, legal))
    support = decode.support(logits)
    if support is None:
        return logits, legal
    return acting_logits(logits, Behaviour(support=support)), support


def rescore(policy: Any, batch: Rollout) -> Evaluation:
    """Score a rollout again, with gradients, under the distribution that acted."""
    more: tuple[Any, ...] = ()  # a policy that never meets a behaviour needs no third argument
    if batch.written is not None:
        more = batch.behaviour, batch.written
    elif batch.behaviour != RAW:
        check_takes_behaviour(policy)
        more = (batch.behaviour,)
    evaluation: Evaluation = policy.evaluate(batch.actions, batch.context, *more)
    return evaluation


def last_of(mask: Tensor) -> Tensor:
    """True on the last real action of every row, `[B, T]`."""
    following = torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], 1)
    return mask & ~following


def sequence_env(env: Any) -> SequenceEnv:
    """The `SequenceEnv` behind whatever `rlseq.make`, `gym.make_vec` or `gym.make` returned."""
    inner = getattr(env, "unwrapped", env)
    inner = getattr(inner, "batch", inner)
    if not isinstance(inner, SequenceEnv):
        raise TypeError(f"expected a SequenceEnv, as rlseq.make returns it, got {type(env).__name__}")
    return inner


def _blocks(env: SequenceEnv) -> list[slice]:
    """All rows at once on an accelerator; on a processor as many as its caches hold the logits of."""
    rows = env.num_envs
    blocks = 1 if env.device.type != "cpu" else -(-rows * len(env.vocab) // BLOCK)
    size = -(-rows // blocks)  # all alike: a small last one would cost as many steps as a large one
    return [slice(i, min(i + size, rows)) for i in range(0, rows, size)]


def _joined(supports: list[Tensor | None], env: SequenceEnv) -> Tensor | None:
    """The blocks' allowed tokens as one, bool `[B, T, V]`."""
    given = [support[:, : env.max_len] for support in supports if support is not None]
    if not given:
        return None
    support = torch.cat(given)
    stuck = (env.mask & ~support.any(2)).any(1)
    if stuck.any():
        rows = stuck.nonzero().flatten().tolist()
        raise ValueError(f"no token is legal in rows {rows[:8]}; `legal` must allow at least one")
    return support
