"""Metrics of every update: scalars that stay on the device until they are printed.

All are computed from what an update has at hand; what costs more texts is in `rlseq.training.probe`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rlseq.policy_gradient.losses import kl_estimate, per_token
from rlseq.types import EpisodeStats, Evaluation, LearningBatch, Metrics
from rlseq.utils.ranks import gathered, largest_of_ranks, this_rank, total


def episode_metrics(episodes: EpisodeStats) -> Metrics:
    """Return statistics of the episodes of a batch."""
    returns, lengths, cut = map(gathered, episodes)
    if not len(returns):  # of episodes longer than a batch none may have ended yet
        return {}
    return {
        "reward": returns.mean(),
        "reward_std": returns.std(correction=0),
        "length": lengths.float().mean(),
        "at_limit": cut.float().mean(),  # texts that were cut off, or nearly
    }


@torch.no_grad()
def rollout_metrics(batch: LearningBatch) -> Metrics:
    """Return statistics of the episodes and their returns."""
    episodes = batch.episodes
    returns, metrics = gathered(episodes.returns), episode_metrics(episodes)
    if batch.kl_penalty is not None:
        metrics["kl_penalty"] = gathered(batch.kl_penalty.sum(1)).mean()
    if batch.samples > 1:
        groups = returns.view(-1, batch.samples)
        metrics["equal_groups"] = (groups == groups[:, :1]).all(1).float().mean()
    if batch.greedy is not None:
        greedy = gathered(batch.greedy)
        metrics["greedy_gap"] = (returns - greedy).mean()
        metrics["beats_greedy"] = (returns > greedy).float().mean()
    if batch.values is not None:
        metrics["explained_variance"] = explained_variance(batch.values, batch.targets, per_token(batch.mask))
    return metrics


@torch.no_grad()
def step_metrics(evaluation: Evaluation, batch: LearningBatch, **beside: Tensor) -> Metrics:
    """Return statistics of the policy that learns, and the means of the tensors `beside`, `[B, T]`."""
    log_ratio = evaluation.log_probs - batch.log_probs
    ratio = log_ratio.where(batch.mask, 0.0).exp()
    means = {"entropy": evaluation.entropy, "kl_behaviour": kl_estimate(log_ratio), **beside}
    if evaluation.top is not None:
        means["top"] = evaluation.top
    # One product for all: a step on a small batch spends its time on the number of operations.
    table = torch.stack(list(means.values())).flatten(1)
    summed = total(table @ per_token(batch.mask).flatten().to(table.dtype))
    least, most = extremes(ratio)
    return {**dict(zip(means, summed.unbind(), strict=True)), "ratio_min": least, "ratio_max": most}


def explained_variance(values: Tensor, targets: Tensor, real: Tensor) -> Tensor:
    """Return 1 − Var(G − V) / Var(G): 1 where V is perfect, 0 where it is useless, below 0 where it harms."""
    left = _variance(targets - values, real)
    return 1 - left / _variance(targets, real).clamp(min=1e-12)


def _variance(x: Tensor, real: Tensor) -> Tensor:
    return total(((x - total((x * real).sum())).square() * real).sum())


def extremes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least and the largest entry of a tensor, over all ranks."""
    least, most = x.aminmax()
    if this_rank().of == 1:
        return least, most
    least, most = largest_of_ranks(torch.stack([-least, most])).unbind()
    return -least, most


def merge_metrics(logs: Sequence[Metrics]) -> Metrics:
    """Return the metrics of several parts as one: the mean, the least of a `…_min`, the most of a `…_max`."""
    if len(logs) == 1:
        return logs[0]
    ways = {"min": torch.amin, "max": torch.amax}
    return {
        name: ways.get(name.rpartition("_")[2], torch.mean)(torch.stack([log[name].float() for log in logs]))
        for name in logs[0]
    }
