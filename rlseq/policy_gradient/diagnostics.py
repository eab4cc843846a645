"""What an agent shows of itself at every update: scalars that stay on the device until they are printed.

All come from what an update has at hand anyway; what costs more texts is in `rlseq.training.probe`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rlseq.policy_gradient.losses import distance, per_token
from rlseq.types import Evaluation, Metrics, Rollout


@torch.no_grad()
def describe(batch: Rollout) -> Metrics:
    """What was written, and what it earned."""
    returns, lengths, cut = batch.earned
    metrics = {}
    if len(returns):  # of episodes longer than a batch none may have ended yet
        metrics = {
            "reward": returns.mean(),
            "reward_std": returns.std(correction=0),
            "length": lengths.float().mean(),
            "at_limit": cut.float().mean(),  # texts that were cut off, or nearly
        }
    if batch.kl_penalty is not None:
        metrics["kl_penalty"] = batch.kl_penalty.sum(1).mean()
    if batch.samples > 1:
        groups = returns.view(-1, batch.samples)
        metrics["equal_groups"] = (groups == groups[:, :1]).all(1).float().mean()
    if batch.greedy is not None:
        metrics["greedy_gap"] = (returns - batch.greedy).mean()
        metrics["beats_greedy"] = (returns > batch.greedy).float().mean()
    if batch.targets is not None and batch.values is not None:
        metrics["explained_variance"] = explained(batch.values, batch.targets, per_token(batch.mask))
    return metrics


@torch.no_grad()
def watch(seen: Evaluation, batch: Rollout, **beside: Tensor) -> Metrics:
    """What the policy that learns makes of it, and the means of what stands `beside`, `[B, T]`."""
    ratio = (seen.log_probs - batch.log_probs).where(batch.mask, 0.0).exp()
    means = {"entropy": seen.entropy, "kl_behaviour": distance(seen.log_probs, batch.log_probs), **beside}
    if seen.top is not None:
        means["top"] = seen.top
    # One product for all: a step on a small batch spends its time on the number of operations.
    table = torch.stack(list(means.values())).flatten(1)
    summed = table @ per_token(batch.mask).flatten().to(table.dtype)
    least, most = ratio.aminmax()
    return {**dict(zip(means, summed.unbind(), strict=True)), "ratio_min": least, "ratio_max": most}


def explained(values: Tensor, targets: Tensor, real: Tensor) -> Tensor:
    """1 − Var(G − V) / Var(G): 1 where V knows all, 0 where it knows nothing, below where it misleads."""
    left = _variance(targets - values, real)
    return 1 - left / _variance(targets, real).clamp(min=1e-12)


def _variance(x: Tensor, real: Tensor) -> Tensor:
    return ((x - (x * real).sum()).square() * real).sum()


def joined(logs: Sequence[Metrics]) -> Metrics:
    """Metrics of several parts as one: the mean, but of a `…_min` the least and of a `…_max` the most."""
    if len(logs) == 1:
        return logs[0]
    ways = {"min": torch.amin, "max": torch.amax}
    return {
        name: ways.get(name.rpartition("_")[2], torch.mean)(torch.stack([log[name].float() for log in logs]))
        for name in logs[0]
    }
