"""`rollout`: the loop in which a policy writes texts in a task, and their evaluation under a policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from rlseq.engine.checks import (
    check_device,
    check_takes_behaviour,
    check_words,
    check_written,
    checked_evaluation,
    checked_forcing,
    checked_step,
)
from rlseq.engine.compiled import Decoded, compiled
from rlseq.engine.computing import compiled_features, now
from rlseq.engine.decode import Decode, Sample, Search, acting_logits, checked_decoder
from rlseq.engine.device import AllDone, blocks, casting, unfinished
from rlseq.engine.parts import narrow_source, parts_of
from rlseq.engine.state import RowsError, checked_state, fork
from rlseq.mdp.sequence_env import SequenceEnv, unwrap_task
from rlseq.types import (
    RAW,
    Behaviour,
    Context,
    Evaluation,
    Policy,
    Rollout,
    RuleSupport,
    State,
    SteppedEnv,
)
from rlseq.utils.arguments import PositiveInt, checked_arguments
from rlseq.utils.flags import read_beside, read_once
from rlseq.utils.inplace import unchanged
from rlseq.utils.masks import last_of
from rlseq.utils.modules import eval_mode


class SupportRecorder:
    """The record of which tokens were allowed at each step of a rollout.

    It is one mask `[V]` as long as the task answers with the same tensor, and `[B, T, V]` from then on. Masks
    that a rule makes are not kept.

    Args:
        rows: B.
        steps: T.
    """

    def __init__(self, rows: int, steps: int) -> None:
        self._shape, self._first = (rows, steps + 1), True  # finished rows write into a spare column
        self._by_rule = False
        self._mask: Tensor | None = None
        self._stuck: Tensor | None = None  # where no token was allowed
        self._given: Tensor | None = None  # the task's own tensor, where there was one mask so far,
        self._version = 0  # and how often it had been written

    @property
    def mask(self) -> Tensor | None:
        """The tokens allowed, `[V]` or `[B, T, V]`; None where all were."""
        return self._mask[:, :-1] if self._mask is not None and self._mask.ndim == 3 else self._mask

    @property
    def stuck(self) -> Tensor | None:
        """True where no token was allowed, `[B, T]`; None where all were, always."""
        return None if self._stuck is None else self._stuck[:, :-1]

    def note(self, rows: Tensor, place: Tensor, support: Tensor | None, by_rule: bool = False) -> None:
        """Record the tokens allowed, `[V]`, `[n, V]` or None, of some rows `[n]` at their places `[n]`."""
        if support is not None:
            if self._stuck is None:
                self._stuck = torch.zeros(self._shape, dtype=torch.bool, device=place.device)
            self._stuck[rows, place] = ~support.any(-1)
        if self._first:
            self._by_rule = by_rule
        elif by_rule != self._by_rule:
            raise ValueError(
                "the decoder's `support` must choose among the legal tokens at every step or at none, "
                "where `legal` is a function"
            )
        if not by_rule:
            self._note_mask(rows, place, support)
        self._first = False

    def _note_mask(self, rows: Tensor, place: Tensor, support: Tensor | None) -> None:
        same = support is self._given and (support is None or support._version == self._version)
        if self._first and support is not None and support.ndim == 1:
            self._given, self._version = support, support._version
            self._mask = support.clone()  # as a task may write its next mask into this one
        elif not same:  # to compare values, the host would have to wait for the device
            if self._mask is None or self._mask.ndim == 1:
                words = (self._mask if support is None else support).shape[-1]  # type: ignore[union-attr]
                before = place.new_ones((), dtype=torch.bool) if self._mask is None else self._mask
                self._mask = before.expand(*self._shape, words).clone()
            self._mask[rows, place] = True if support is None else support


DecodeStep = Callable[..., tuple[Tensor, State, Tensor, Tensor | None]]  # `decode_step` of some policy


@checked_arguments
@torch.no_grad()
@read_once()
def rollout(
    policy: Policy,
    env: Any,
    *,
    decode: Decode | Search = Sample(),
    forced: Any = None,
    forced_steps: Any = None,
    repeat: PositiveInt = 1,
    index: Any = None,
    compile: bool = False,
    autocast: torch.dtype | None = None,
) -> Rollout:
    """Write one text per row and compute the rewards.

    Args:
        policy: the policy that writes, in evaluation mode and without gradients.
        env: the task; all its rows start afresh.
        decode: how tokens are chosen, `Sample(temperature, top_k, top_p)`, `Greedy()` or `Beam(width)`.
        forced: `[B, F]` tokens written instead of the policy's choice, with their probability under it.
        forced_steps: how many of them to force, one number or one per row `[B]`; all F when not given.
        repeat: K; rows iK … iK+K−1 share a context.
        index: the items to write about, `[B / K]`; drawn at random when not given.
        compile: write with compiled code, or on a GPU with a captured graph (`rlseq.engine.compiled`); also
            done where an agent that trains says so.
        autocast: torch.bfloat16 or torch.float16, in which networks compute; softmax stays float32. When not
            given, that of the agent that trains, if it has one.
    """
    env, decode = unwrap_task(env), checked_decoder(decode)
    if isinstance(env, SteppedEnv):
        texts = {"forced": forced, "forced_steps": forced_steps, "index": index}
        return env.rollout(policy, decode, repeat=repeat, **texts)
    if isinstance(decode, Search):
        if forced is not None or compile or autocast:
            raise ValueError("forced, compile and autocast go with Sample() or Greedy(), not with a search")
        return decode.best(policy, env, repeat=repeat, index=index)
    forcing = checked_forcing(forced, forced_steps, (env.num_envs, env.max_len), len(env.vocab), env.device)
    return write_texts(policy, env, decode, draw_uniforms, forcing, repeat, index, compile, autocast)


def write_texts(
    policy: Policy,
    env: SequenceEnv,
    decode: Decode,
    draw: Callable[[SequenceEnv, int], Tensor],
    forcing: tuple[Tensor, Tensor] | None = None,
    repeat: int = 1,
    index: Tensor | None = None,
    compile: bool = False,
    autocast: torch.dtype | None = None,
) -> Rollout:
    """Write as `rollout` does, with random numbers `[steps, B]` that `draw(env, steps)` returns."""
    compile, autocast = compile or now().rollout, autocast or now().autocast
    check_device(policy, env.device)
    check_words(policy, env)
    with env.rollback_on_error(), eval_mode(policy), casting(autocast, env.device):
        context = env.begin(repeat=repeat, index=index)
        given = words_at_start(env, context, forcing)
        with unchanged("the policy's start", context):
            first = {name: value[::repeat] for name, value in context.items()}
            state = policy.start(first if compile else _narrowed(env, first))
        state = checked_state(state, env.num_envs // repeat)
        if repeat > 1:  # rows that share a context share its encoding
            state = fork(state, torch.arange(env.num_envs, device=env.device) // repeat)
        token = torch.full((env.num_envs,), env.vocab.bos, device=env.device)
        at_work = [env.num_envs] * env.max_len
        uniform = draw(env, env.max_len)
        with env.counts.writing(env):
            loop = make_decode_loop(policy, decode, compile)
            decoded = loop(env, token, state, at_work, uniform, given or forcing)
        batch = finished_rollout(env, decoded, Behaviour(decode.temperature, autocast=autocast))
        if batch.mask.is_cuda:  # the only wait of a rollout
            batch = replace(batch, longest=read_beside(batch.last_step))
        return batch if given is None else _marked_as_given(env, batch, given[1])


def _narrowed(env: SequenceEnv, context: Context) -> Context:
    """Return a context whose sources have no padding that all of them have, where a CPU would read it."""
    if env.source_vocab is None or env.device.type != "cpu":
        return context
    return narrow_source(context, env.source_vocab.pad)


def words_at_start(env: SequenceEnv, context: Context, forcing: Any) -> tuple[Tensor, Tensor] | None:
    """Return words that the task gives at the start, and where, `[B, T]` each; None where it gives none.

    Args:
        env: the task.
        context: of its rows.
        forcing: words that the caller forces, which cannot go with those of the task.
    """
    given = None if env.starts is None else env.starts.given(context)
    if given is None:
        return None
    if forcing is not None:
        raise ValueError(
            "the task gives words at the start (ReverseCurriculum), and forced gives others; force words on "
            "the task without that, env.replace(starts=None)"
        )
    words, steps = given
    words = torch.nn.functional.pad(words, (0, env.max_len - words.shape[1]))
    return checked_forcing(words, steps, (env.num_envs, env.max_len), len(env.vocab), env.device)


def _marked_as_given(env: SequenceEnv, batch: Rollout, where: Tensor) -> Rollout:
    """Return a batch that says which words the task gave, and count them as imitated."""
    given = where & batch.mask
    env.counts.imitated(env.rank.total(given.sum()))
    return replace(batch, given=given)


def draw_uniforms(env: SequenceEnv, steps: int, blocks: int = 1) -> Tensor:
    """Draw the random numbers of all steps at once, `[steps, B]`: one per token, whatever the vocabulary.

    Args:
        env: the task.
        steps: the number of steps.
        blocks: the number of blocks that the rows are made of, each of which is divided among ranks.
    """
    shape = steps, blocks, env.rank.all(env.num_envs // blocks)
    drawn = torch.rand(shape, generator=env.generator, device=env.device, dtype=torch.float64)
    return env.rank.own(drawn, 2).flatten(1)


def finished_rollout(env: SequenceEnv, written: Decoded, behaviour: Behaviour) -> Rollout:
    """Return the episodes of a task in which every row is finished, with their rewards."""
    mask = env.mask
    log_probs, support, stuck = written
    log_probs, actions = log_probs.where(mask, 0.0), env.tokens.where(mask, 0)
    check_written(log_probs, stuck, mask)
    return Rollout(
        actions=actions,
        mask=mask,
        log_probs=log_probs,
        rewards=env.score(),
        values=None,
        ends=last_of(mask),
        bootstrap=None,
        context=env.context,
        behaviour=behaviour._replace(support=RuleSupport(support, actions) if callable(support) else support),
    )


def make_decode_loop(policy: Policy, decode: Decode, compile: bool = False) -> Callable[..., Decoded]:
    """Return `decode_loop` with the steps of a policy and a decoder."""
    if compile:
        return compiled(decode_loop, decode_step, policy, decode)
    return partial(decode_loop, partial(decode_step, policy, decode))


def decode_step(
    policy: Policy,
    decode: Decode,
    env: SequenceEnv,
    token: Tensor,
    state: State,
    uniform: Tensor,
    legal: Tensor | None,
    forced: Sequence[Tensor] | None,
) -> tuple[Tensor, State, Tensor, Tensor | None]:
    """Read the last tokens, choose and append the next; return (token, state, log-probability, support)."""
    logits, state = checked_step(policy.step(token, state), len(token), len(env.vocab))
    logits = acting_logits(logits, Behaviour(decode.temperature, legal))
    support = decode.support(logits)
    if support is not None:
        logits = acting_logits(logits, Behaviour(support=support))
    token, log_norm = decode.choose(logits, uniform)
    if forced is not None:
        token = torch.where(forced[1], forced[0], token)
    log_prob = logits.gather(1, token.unsqueeze(1)).squeeze(1) - log_norm
    env.append(token)
    return token, state, log_prob, support


class _Writing:
    """The rows of a block that are still written: their texts, last words and the policy's states.

    Rows that are kept by a slice are views of the task; others are copies, which `put_back` writes back.

    Args:
        env: the task.
        block: its rows.
        word: their last words.
        past: their states.
    """

    def __init__(self, env: SequenceEnv, block: slice, word: Tensor, past: State) -> None:
        self._env, self._start = env, int(block.start)
        self.part, self.word, self.past = env.take(block), word, past
        self.lanes: slice | Tensor = slice(len(word))  # among the rows of the block

    @property
    def rows(self) -> slice | Tensor:
        """The rows among those of the task."""
        if isinstance(self.lanes, Tensor):
            return self.lanes + self._start
        return slice(self._start, self._start + int(self.lanes.stop))

    def keep_first(self, n: int) -> None:
        """Keep those of the first n rows of the block."""
        if isinstance(self.lanes, Tensor):
            n = int((self.lanes < n).sum())
        if n < len(self.word):
            self.keep(slice(n))

    def keep(self, which: slice | Tensor) -> None:
        """Keep some of the rows, in ascending order."""
        self.put_back()
        self.part, self.word, self.past = self.part.take(which), self.word[which], fork(self.past, which)
        self.lanes = which if isinstance(self.lanes, slice) else self.lanes[which]

    def advance(
        self, step: DecodeStep, uniform: Tensor, legal: Tensor | None, forced: Sequence[Tensor] | None
    ) -> tuple[Tensor, Tensor | None]:
        """Write one token in every row; return the log-probabilities and the support of the decoder."""
        try:
            found = step(self.part, self.word, self.past, uniform[self.rows], legal, forced)
        except RuntimeError as error:
            if not isinstance(self.lanes, Tensor):
                raise
            raise RowsError(
                f"the policy's `step` failed after finished rows had left the batch: {error}; all that it "
                "remembers of a text must be in the state that it returns, whose rows are copied"
            ) from error
        self.word, self.past, log_prob, support = found
        return log_prob, support

    def put_back(self) -> None:
        """Write the texts of copied rows back."""
        if isinstance(self.lanes, Tensor):
            self._env.episodes.put(self.lanes + self._start, self.part.episodes)


def decode_loop(
    step: DecodeStep,
    env: SequenceEnv,
    token: Tensor,
    state: State,
    at_work: Sequence[int],
    uniform: Tensor,
    forcing: tuple[Tensor, Tensor] | None = None,
    *,
    keep_finished: bool = False,
) -> Decoded:
    """Write in all rows until they are done, one block of rows after the other.

    On a CPU, rows that are finished leave the block when they are many.

    Args:
        step: `decode_step` of a policy and a decoder.
        env: the task, with texts under way.
        token: the last token of every row, `[B]`, which the policy has not read yet.
        state: the policy's state before that token.
        at_work: for every step t, the number of first rows that may have something to write.
        uniform: random numbers, one per step and row.
        forcing: tokens to force and where to force them.
        keep_finished: whether a block keeps its rows, for steps that are compiled for a number of them.
    """
    keep_finished = keep_finished or env.device.type != "cpu" or env.vocab.eos is None
    log_probs = torch.zeros(env.num_envs, env.max_len + 1, device=env.device)
    lane, allowed = torch.arange(env.num_envs, device=env.device), SupportRecorder(env.num_envs, env.max_len)
    rule = env.legal_rule()
    for block in blocks(env.num_envs, len(env.vocab), env.device):
        counts = [min(n, block.stop) - block.start for n in at_work if n > block.start]
        writing = _Writing(env, block, token[block], fork(state, block))
        place = writing.part.length.unsqueeze(1) + torch.arange(len(counts), device=env.device)
        place.clamp_(max=env.max_len)  # finished rows go on writing in a spare column
        done, found = AllDone(env.vocab.eos is not None), log_probs.new_zeros(len(counts), len(place))
        for t, n in enumerate(counts):
            writing.keep_first(n)
            if not len(writing.word):  # those of the first n have left, and the others are full
                break
            part, lanes, rows = writing.part, writing.lanes, writing.rows
            legal = part.allowed(rule)
            forced = None if forcing is None or t >= forcing[0].shape[1] else [f[rows, t] for f in forcing]
            log_prob, support = writing.advance(step, uniform[t], legal, forced)
            found[t, lanes] = log_prob.to(found.dtype)
            by_rule, chosen_from = rule is not None and support is None, legal if support is None else support
            allowed.note(lane[rows], place[lanes, t], chosen_from, by_rule)
            if done(part.done):
                break
            if not keep_finished and (left := unfinished(part.done, t)) is not None:
                writing.keep(left)
        writing.put_back()
        log_probs[block].scatter_(1, place, found.t())
    return log_probs[:, : env.max_len], rule if allowed.mask is None else allowed.mask, allowed.stuck


def evaluate_actions(
    policy: Any, batch: Rollout, mode: Callable[[Any], AbstractContextManager[None]] = eval_mode
) -> Evaluation:
    """Score a rollout again, with gradients, under the distribution that acted.

    Args:
        policy: the policy.
        batch: whose actions are scored.
        mode: of the policy; `nullcontext` leaves it as it is, so that dropout acts in training.
    """
    if not len(batch.actions):
        raise ValueError("a batch that is scored must have one text at least, got none")
    if _packs(policy, batch) and not now().learning:  # compiled code is for whole rectangles
        return _evaluate_whole(policy, batch, mode, batch.mask)
    parts = parts_of(batch.mask)
    if parts is None:
        return _evaluate_whole(policy, batch, mode)
    words = getattr(policy, "words", None)
    pad = None if words is None or words.source is None else words.source_pad
    with mode(policy):  # once for all parts: it looks at every module
        return parts.joined([_evaluate_whole(policy, part, nullcontext) for part in parts.of(batch, pad)])


def _packs(policy: Any, batch: Rollout) -> bool:
    """Return whether no work is done on padding; the `evaluate` of a subclass may not take the mask."""
    packs = batch.mask.device.type == "cpu" and getattr(policy, "packs", False)
    return packs and "mask" in signature(policy.evaluate).parameters


def _evaluate_whole(
    policy: Any,
    batch: Rollout,
    mode: Callable[[Any], AbstractContextManager[None]],
    mask: Tensor | None = None,
) -> Evaluation:
    """Score a rollout in one pass; the mask is for a policy that packs."""
    behaviour = batch.behaviour
    more: tuple[Any, ...] = ()  # a policy that is always scored as it is needs no third argument
    if mask is not None:
        more = behaviour, batch.inputs, mask
    elif batch.inputs is not None:
        more = behaviour, batch.inputs
    elif behaviour._replace(autocast=None) != RAW:
        check_takes_behaviour(policy)
        more = (behaviour,)
    given = unchanged("the policy's evaluate", batch.context, actions=batch.actions)
    precision = casting(behaviour.autocast or now().autocast, batch.actions.device)
    code = compiled_features(policy) if now().learning else nullcontext()
    with precision, code, mode(policy), given:
        answer = policy.evaluate(batch.actions, batch.context, *more)
        evaluation = checked_evaluation(answer, tuple(batch.mask.shape))
    if behaviour.support is not None:  # the token of the padding may not be allowed: −∞ · 0 is NaN
        evaluation = evaluation._replace(log_probs=evaluation.log_probs.where(batch.mask, 0.0))
    return evaluation


@torch.no_grad()
def evaluate_frozen(policy: Any, batch: Rollout) -> Evaluation:
    """Score a rollout again, without gradients."""
    return evaluate_actions(policy, batch)
