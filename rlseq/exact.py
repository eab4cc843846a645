"""Exact objective and gradient on tasks small enough to enumerate: the yardstick for every estimator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlseq.engine import sequence_env
from rlseq.env import SequenceEnv
from rlseq.state import evaluating
from rlseq.types import RAW, Behaviour, Context

LIMIT = 1_000_000  # texts × contexts


def texts(env: SequenceEnv) -> tuple[Tensor, Tensor]:
    """Every text that can be written, `[N, T]` with 0 after its end, and its mask."""
    words, steps, eos = len(env.vocab), env.max_len, env.vocab.eos
    if words**steps * env.size > LIMIT:
        raise ValueError(
            f"{words}^{steps} texts × {env.size} contexts are too many to enumerate (limit {LIMIT:,}); "
            "use a smaller vocabulary or length, as rlseq/Enumerable-v0"
        )
    place = words ** torch.arange(steps - 1, -1, -1, device=env.device)
    tokens = torch.arange(words**steps, device=env.device).unsqueeze(1) // place % words
    ended = torch.zeros_like(tokens, dtype=torch.bool) if eos is None else tokens == eos
    mask = ended.cumsum(1) - ended.int() == 0  # up to and with the first EOS
    one_each = (tokens.where(mask, 0) == tokens).all(1)  # of all that differ after their end, one
    return tokens[one_each], mask[one_each]


@torch.no_grad()
def objective(policy: Any, env: Any, behaviour: Behaviour = RAW) -> Tensor:
    """J = mean over contexts of Σ_y π(y|x) R(x, y): every text, no sampling.

    Args:
        policy: the policy.
        env: a task with few texts; what it does not allow is never written.
        behaviour: the distribution that acts, where it is not the policy on the tokens that are legal.
    """
    return _objective(policy, sequence_env(env), behaviour)


def _objective(policy: Any, env: SequenceEnv, behaviour: Behaviour) -> Tensor:
    tokens, mask = texts(env)
    items = torch.arange(env.size, device=env.device)
    tokens, mask = tokens.repeat(env.size, 1), mask.repeat(env.size, 1)
    index = items.repeat_interleave(len(tokens) // env.size)
    context: Context = {**env.contexts(index), "index": index}
    reward = torch.stack(list(env.judge(tokens, mask, context).values())).sum((0, 2))
    if behaviour.support is None:
        behaviour = behaviour._replace(support=_legal(env, tokens, context))
    with evaluating(policy):
        log_probs = policy.evaluate(tokens, context, *[behaviour] * (behaviour != RAW)).log_probs
    objective: Tensor = ((log_probs * mask).sum(1).exp() * reward).sum() / env.size
    return objective


def _legal(env: SequenceEnv, tokens: Tensor, context: Context) -> Tensor | None:
    """What the task allows after every prefix of every text, bool `[N, T, V]`; None where that is all."""
    spare = torch.full_like(tokens[:, :1], env.vocab.pad)
    done = torch.zeros_like(tokens[:, 0], dtype=torch.bool)
    steps = []
    for t in range(env.max_len):
        prefix = torch.cat([tokens[:, :t], spare.expand(-1, env.max_len + 1 - t)], 1)
        steps.append(env.resumed(context, prefix, torch.full_like(tokens[:, 0], t), done).allowed())
    if steps[0] is None:
        return None
    return torch.stack([step.expand(len(tokens), len(env.vocab)) for step in steps if step is not None], 1)


def gradient(policy: Any, env: Any, behaviour: Behaviour = RAW) -> dict[str, Tensor]:
    """∇J by name of parameter; zeros for parameters that J does not depend on."""
    named = {name: p for name, p in policy.named_parameters() if p.requires_grad}
    grads = torch.autograd.grad(
        _objective(policy, sequence_env(env), behaviour), list(named.values()), allow_unused=True
    )
    return {
        name: torch.zeros_like(p) if grad is None else grad
        for (name, p), grad in zip(named.items(), grads, strict=True)
    }
