"""Proofs that a policy of your own keeps the protocol."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlseq.engine import evaluating, rescore, rollout, sequence_env
from rlseq.types import Evaluation, Rollout


def check_policy(policy: Any, env: Any, tolerance: float = 1e-4) -> None:
    """Raise `AssertionError` unless `evaluate` agrees with `step`, row by row, whatever stands beside it.

    Checks that re-scoring a rollout gives the log-probabilities with which it was written; that a row's
    scores depend neither on its batch-mates nor on what fills it up after its end; and the shapes.
    """
    env = sequence_env(env)
    batch = rollout(policy, env)
    with torch.no_grad(), evaluating(policy):
        seen = rescore(policy, batch)
        _shapes(seen, batch)
        _equal(seen.log_probs, batch.log_probs, batch.mask, tolerance, "`evaluate` and `step` disagree")
        other = batch.actions.where(batch.mask, len(env.vocab) - 1)
        padded = policy.evaluate(other, batch.context)
        _equal(
            padded.log_probs, seen.log_probs, batch.mask, tolerance, "scores depend on what follows the end"
        )
        order = torch.arange(env.num_envs - 1, -1, -1, device=env.device)[: max(1, env.num_envs // 2)]
        alone = policy.evaluate(
            batch.actions[order], {name: value[order] for name, value in batch.context.items()}
        )
        message = "scores depend on the other rows of the batch"
        _equal(alone.log_probs, seen.log_probs[order], batch.mask[order], tolerance, message)


def _shapes(seen: Evaluation, batch: Rollout) -> None:
    wanted = tuple(batch.actions.shape)
    for name, value in seen._asdict().items():
        if value is not None:
            assert tuple(value.shape) == wanted, f"{name} must be [B, T] = {wanted}, got {tuple(value.shape)}"


def _equal(a: Tensor, b: Tensor, mask: Tensor, tolerance: float, message: str) -> None:
    gap = ((a - b).abs() * mask).nan_to_num(nan=torch.inf)
    row, step = divmod(int(gap.argmax()), gap.shape[1])
    assert gap.max() <= tolerance, f"{message}: by {float(gap.max()):.3g} at row {row}, step {step}"
