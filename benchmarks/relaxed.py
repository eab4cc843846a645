"""Bias and variance of relaxed and straight-through gradients, beside the exact gradient and REINFORCE.

    python benchmarks/relaxed.py

The setting is that of `variance.py`: `rlseq/Enumerable-v0` with two contexts, an LSTM with random weights,
estimates of 64 texts each. The reward of a text is differentiable, since it is a sum over all texts y of
R(y) ∏ₜ p(yₜ), which is R where every distribution p is one-hot. Of each estimator

* variance: Σ over parameters, divided by that of REINFORCE without a baseline;
* bias: ‖E[ĝ] − ∇J‖ / ‖∇J‖, from 100 further estimates of 4,096 texts each, corrected for their own noise;
* cosine: of the angle between E[ĝ] and ∇J, from the same.

"word distributions" is the gradient of the agent `continuous`: words are sampled, the reward of the
distributions that they were drawn from is differentiated, and no gradient flows through the choice of a word.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import record
import torch
import torch.nn.functional as F
import variance
from torch import Tensor

import rlseq
from rlseq.agents.continuous import Words
from rlseq.discriminators.texts import TextBatch
from rlseq.engine.relaxed import RELAXATIONS, Relaxation, relaxed_rollout
from rlseq.types import Rollout

TEMPERATURES, MANY, TIMES = (2.0, 1.0, 0.5, 0.2), 4096, 100
Write = Callable[[Any, Any], Rollout]  # (policy, task) -> texts with distributions as `inputs`


def value(env: Any, batch: Rollout) -> Tensor:
    """Return Σ_y R(y) ∏ₜ p(yₜ) of every row, over all y of T words, of which R reads those up to EOS."""
    assert isinstance(batch.inputs, Tensor)
    every = torch.cartesian_prod(*[torch.arange(len(env.vocab))] * env.max_len)
    written = (every == env.vocab.eos).cumsum(1) - (every == env.vocab.eos).int() == 0
    paid = [
        env.look_up(every, written, {"index": torch.full((len(every),), item)}) for item in range(env.size)
    ]
    left = torch.stack(paid)[batch.context["index"]].view(-1, *[len(env.vocab)] * env.max_len)
    for p in batch.inputs.unbind(1):
        left = torch.einsum("bv...,bv->b...", left, p)
    return left


def word_distributions(policy: Any, env: Any) -> Rollout:
    """Write texts, with the distributions from which their words were drawn."""
    batch = rlseq.rollout(policy, env)
    return replace(batch, inputs=Words()(policy, TextBatch.of(batch)))


def relaxed(relaxation: Relaxation, temperature: float) -> Write:
    """Return what writes relaxed texts."""
    return lambda policy, env: relaxed_rollout(policy, env, relaxation, temperature)


def estimators() -> dict[str, Write]:
    """Return every estimator by name."""
    pairs = [(name, tau) for name in RELAXATIONS for tau in TEMPERATURES]
    each = {f"{name}, τ = {tau:g}": relaxed(RELAXATIONS[name], tau) for name, tau in pairs}
    return {"word distributions": word_distributions, **each}


def estimates(write: Write, policy: Any, env: Any, rows: int, batches: int) -> Tensor:
    """Return gradients of the objective, `[batches, parameters]`."""
    env, parameters, found = env.replace(num_envs=rows), list(policy.parameters()), []
    for _ in range(batches):
        slopes = torch.autograd.grad(value(env, write(policy, env)).mean(), parameters, allow_unused=True)
        pairs = zip(slopes, parameters, strict=True)
        found.append(torch.cat([(torch.zeros_like(p) if s is None else s).flatten() for s, p in pairs]))
    return torch.stack(found).double()


def bias(found: Tensor, wanted: Tensor) -> tuple[float, float]:
    """Return the relative bias of a mean of estimates, and the cosine of its angle to what is wanted."""
    mean, noise = found.mean(0), float(found.var(0).sum()) / len(found)
    off = max(0.0, float((mean - wanted).square().sum()) - noise) ** 0.5
    return off / float(wanted.norm()), float(F.cosine_similarity(mean, wanted, 0))


def measure(write: Write) -> dict[str, float]:
    """Return the variance and the bias of an estimator."""
    env, policy = variance.setting("alike")
    wanted = variance.flat(rlseq.exact.gradient(policy, env))
    off, cosine = bias(estimates(write, policy, env, MANY, TIMES), wanted)
    spread = estimates(write, policy, env, variance.TEXTS, variance.BATCHES).var(0).sum()
    return {"samples": variance.TEXTS, "variance": float(spread), "bias": off, "cosine": cosine}


def main() -> None:
    """Run all, print a line each, and write the JSON."""
    torch.set_num_threads(1)
    plain = variance.measure(variance.CASES["REINFORCE, none"], "alike")["variance"]
    results = {}
    for name, write in estimators().items():
        start, found = time.process_time(), measure(write)
        results[name] = {**found, "ratio": found["variance"] / plain}
        print(f"{name:36s} {results[name]} {time.process_time() - start:.0f} s", flush=True)
    print(record.write("relaxed", {"texts": variance.TEXTS, "many": MANY, "estimators": results}))


if __name__ == "__main__":
    main()
