"""`complete`: go on from every prefix of a batch of texts to an end, from copied states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rlseq.engine.computing import now
from rlseq.engine.decode import Decode, Sample
from rlseq.engine.device import casting
from rlseq.engine.rollout import draw_uniforms, finished_rollout, make_decode_loop
from rlseq.engine.state import checked_state, pick_rows
from rlseq.mdp.episodes import Episodes
from rlseq.mdp.sequence_env import SequenceEnv, sequence_env
from rlseq.mdp.task import TOKEN_BYTES
from rlseq.types import Behaviour, Policy, Rollout, State
from rlseq.utils.arguments import PositiveInt, checked_arguments
from rlseq.utils.flags import read_once, refuse_where
from rlseq.utils.memory import check_fits
from rlseq.utils.modules import eval_mode


@checked_arguments
@torch.no_grad()
@read_once()
def complete(
    policy: Policy,
    env: Any,
    batch: Rollout,
    *,
    samples: PositiveInt,
    prefixes: Sequence[int] | None = None,
    decode: Decode = Sample(),
    compile: bool = False,
    autocast: torch.dtype | None = None,
) -> Rollout:
    """Complete every prefix of every text: the Monte-Carlo search of SeqGAN, the vines of Schulman et al.

    The texts are read once; every completion goes on from a copy of the state at its own prefix, and all of
    them together, so that there are at most T−1 steps.

    Args:
        policy: writes the completions.
        env: the task of the texts; its episodes are not changed.
        batch: B finished texts.
        samples: N, completions of each prefix.
        prefixes: lengths of those that are completed, in ascending order; 1 … T−1 when not given.
        decode: how tokens are chosen.
        compile: as in `rollout`.
        autocast: as in `rollout`.

    Returns:
        A rollout of P·B·N rows: row (p, b, n) is the n-th completion of the p-th prefix of text b, so
        `.returns.view(P, B, N).mean(2)` are the action values. A text that has ended completes itself.
        `log_probs` are 0 on the prefix, which was not written here.
    """
    env = sequence_env(env)
    compile, autocast = compile or now().rollout, autocast or now().autocast
    _check_can_be_completed(env, batch)
    lengths, rows = _lengths(prefixes, env.max_len), len(batch.actions)
    check_fits(len(lengths) * rows * samples * env.max_len * TOKEN_BYTES, samples=samples, num_envs=rows)
    # In ascending order of prefix: those with most to write come first, and the others drop out at the end.
    lane = torch.arange(len(lengths) * rows * samples, device=env.device) // samples
    on_device = torch.tensor(lengths).to(env.device, non_blocking=True)  # the host goes on
    prefix, text = on_device[lane // rows] - 1, lane % rows
    lanes = _cut(env, batch, text, prefix + 1)
    with env.rollback_on_error(), eval_mode(policy), casting(autocast, env.device):
        states = _states(policy, env, batch)
        state = pick_rows(states, prefix, text)
        unfinished = [sum(env.max_len - n > t for n in lengths) for t in range(env.max_len - lengths[0])]
        at_work = [rows * samples * number for number in unfinished]
        token, uniform = batch.actions[text, prefix], draw_uniforms(lanes, len(at_work), len(lengths))
        with env.counts.writing(lanes):
            written = make_decode_loop(policy, decode, compile)(lanes, token, state, at_work, uniform)
        return finished_rollout(lanes, written, Behaviour(decode.temperature, autocast=autocast))


def _check_can_be_completed(env: SequenceEnv, batch: Rollout) -> None:
    """Refuse texts that have no end, or no prefix but the whole."""
    refuse_where(
        ~batch.ends.any(1).all(),
        lambda: ValueError("complete needs finished texts; some rows of the rollout have no end"),
    )
    if env.max_len < 2:
        raise ValueError("complete needs texts of at least two tokens; every prefix here is a whole text")


def _lengths(prefixes: Sequence[int] | None, longest: int) -> list[int]:
    """Return the lengths of the prefixes to complete, checked."""
    if prefixes is not None and len(prefixes) >= longest:  # before a range is written out
        raise ValueError(
            f"prefixes must be at most {longest - 1} lengths, 1 … {longest - 1}, got {len(prefixes):,}"
        )
    lengths = list(range(1, longest)) if prefixes is None else list(prefixes)
    if not lengths or lengths != sorted(set(lengths)) or not 1 <= lengths[0] <= lengths[-1] < longest:
        raise ValueError(f"prefixes must be lengths in ascending order, 1 … {longest - 1}, got {lengths}")
    return lengths


def _cut(env: SequenceEnv, batch: Rollout, text: Tensor, length: Tensor) -> SequenceEnv:
    """Return the task with the texts of a batch as they were after their first `length` tokens."""
    context = {name: value[text] for name, value in batch.context.items()}
    whole = batch.lengths[text]
    kept = torch.minimum(whole, length)
    episodes = Episodes.of(context, batch.actions[text], kept, whole <= length, env.vocab.pad)
    return env.replace(episodes=episodes)


def _states(policy: Policy, env: SequenceEnv, batch: Rollout) -> list[State]:
    """Return for every proper prefix the state before its last token, which is still to be read."""
    state = checked_state(policy.start(batch.context), len(batch.actions))
    token = torch.full_like(batch.actions[:, 0], env.vocab.bos)
    states = []
    for t in range(env.max_len - 1):
        _, state = policy.step(token, state)
        token = batch.actions[:, t]
        states.append(state)
    return states
