"""Relaxed samples: words that a gradient can pass through on its way from a reward to a policy.

With z the logits, g independent Gumbel noise and τ a temperature, argmax(z + g) is a sample of softmax(z).

* Gumbel-softmax (Jang et al. 2017; Maddison et al. 2017):  y = softmax((z + g)/τ),  a sample as τ → 0;
* straight-through Gumbel-softmax: that sample, one-hot, with the derivative of the above;
* straight-through (Bengio et al. 2013): that sample, with the derivative of softmax(z/τ).

The first differentiates exactly, but an expectation of soft texts; the others write real texts, with a
derivative of another function. Both are biased; tests/test_relaxed.py and benchmarks/relaxed.py measure how.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rlseq.engine.checks import check_device, check_words, checked_step
from rlseq.engine.compiled import Decoded
from rlseq.engine.decode import acting_logits
from rlseq.engine.device import AllDone
from rlseq.engine.rollout import SupportRecorder, finished_rollout
from rlseq.mdp.sequence_env import SequenceEnv, sequence_env
from rlseq.types import BasePolicy, Behaviour, Rollout
from rlseq.utils.modules import eval_mode

Relaxation = Callable[[Tensor, Tensor, float], Tensor]  # (logits z, noise g, τ) -> weights of words, [B, V]


def gumbel_softmax(logits: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """Return softmax((z + g)/τ): soft words, exactly differentiated."""
    return ((logits + noise) / temperature).softmax(-1)


def straight_through_gumbel(logits: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """Return one-hot argmax(z + g), with the derivative of softmax((z + g)/τ)."""
    return _straight_through(logits + noise, gumbel_softmax(logits, noise, temperature))


def straight_through(logits: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """Return one-hot argmax(z + g), with the derivative of softmax(z/τ)."""
    return _straight_through(logits + noise, (logits / temperature).softmax(-1))


def _straight_through(perturbed: Tensor, soft: Tensor) -> Tensor:
    """Return the largest entry as a one-hot row, with the derivative of `soft`."""
    hard = F.one_hot(perturbed.argmax(-1), soft.shape[-1]).to(soft.dtype)
    return hard + (soft - soft.detach())  # the bracket is exactly 0: the row stays exactly one-hot


RELAXATIONS: dict[str, Relaxation] = {
    "gumbel_softmax": gumbel_softmax,
    "straight_through": straight_through,
    "straight_through_gumbel": straight_through_gumbel,
}


def gumbel_noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return standard Gumbel noise, −log(−log u) = −log e with e exponential."""
    e = torch.empty(shape, device=generator.device).exponential_(generator=generator)
    return -e.clamp_(min=torch.finfo(e.dtype).tiny).log_()  # 0 is rare, and its logarithm infinite


def relaxed_rollout(policy: Any, env: Any, relaxation: Relaxation, temperature: float) -> Rollout:
    """Write one text per row, in which every word is relaxed, and let the policy read its relaxed words.

    A gradient flows through all steps, unless this is called without gradients. The `inputs` of the rollout
    are the relaxed words `[B, T, V]`; its `actions` are the words of largest weight, which also decide where
    a text ends and what is legal next. Through these decisions no gradient flows.

    Args:
        policy: the policy that writes, in evaluation mode; it must read distributions over words.
        env: the task; all its rows start afresh.
        relaxation: how logits become words.
        temperature: τ.
    """
    env = sequence_env(env)
    check_device(policy, env.device)
    check_words(policy, env)
    with env.rollback_on_error(), eval_mode(policy), env.counts.writing(env):
        words, written = _write(policy, env, relaxation, temperature)
        batch = finished_rollout(env, written, Behaviour())
    return Rollout(**{**vars(batch), "inputs": words})


def _write(
    policy: Any, env: SequenceEnv, relaxation: Relaxation, temperature: float
) -> tuple[Tensor, Decoded]:
    """Return relaxed words `[B, T, V]`, and what the engine's loop returns of the words of largest weight."""
    state, read = policy.start(env.begin()), torch.full((env.num_envs,), env.vocab.bos, device=env.device)
    rows, words = torch.arange(env.num_envs, device=env.device), len(env.vocab)
    allowed, all_done = SupportRecorder(env.num_envs, env.max_len), AllDone(env.vocab.eos is not None)
    rule, steps, log_probs = env.legal_rule(), [], []
    for _ in range(env.max_len):
        logits, state = checked_step(policy.step(read, state), env.num_envs, words)
        legal = env.allowed(rule)
        allowed.note(rows, env.length, legal, by_rule=rule is not None)
        logits = acting_logits(logits, Behaviour(support=legal))
        noise = gumbel_noise((env.rank.all(env.num_envs), words), env.generator)
        read = relaxation(logits, env.rank.own(noise), temperature)
        token = read.detach().argmax(-1)
        log_probs.append(logits.detach().log_softmax(-1).gather(1, token.unsqueeze(1)))
        steps.append(read)
        env.append(token)
        if all_done(env.done):
            break
    missing = env.max_len - len(steps)  # what follows the end of a text is read by nobody
    support = rule if allowed.mask is None else allowed.mask
    written = F.pad(torch.cat(log_probs, 1), (0, missing)), support, allowed.stuck
    return F.pad(torch.stack(steps, 1), (0, 0, 0, missing)), written


@torch.no_grad()
def check_reads_distributions(policy: Any, env: Any) -> None:
    """Refuse a policy that cannot write relaxed words, because it reads no distributions over words."""
    env = sequence_env(env)
    name = type(policy).__name__
    if isinstance(policy, BasePolicy) and not policy.differentiable_step:
        raise ValueError(
            f"{name} writes its cache in place, so no gradient can pass through the words that it reads; "
            'use a recurrent policy ("gru", "lstm", "seq2seq"), or the agent "continuous"'
        )
    index = torch.zeros(1, dtype=torch.int64, device=env.device)
    with env.preserved():
        context = env.context_of(index)
    word = index + len(env.vocab) - 1
    soft = F.one_hot(word, len(env.vocab)).to(next(policy.parameters()).dtype)
    with eval_mode(policy):
        wanted, _ = policy.step(word, policy.start(context))
        try:
            found, _ = policy.step(soft, policy.start(context))
            reads = found.shape == wanted.shape and torch.allclose(found, wanted, atol=1e-4)
        except (RuntimeError, TypeError, IndexError, ValueError, AttributeError):
            reads = False
    if not reads:
        raise TypeError(
            f"{name} does not read distributions over words: `step` must take floats [B, V] as well as ids "
            "[B], and answer to a one-hot row as to its word; embed words by "
            "rlseq.policies.spec.TokenEmbedding, or multiply the distribution with the table"
        )
