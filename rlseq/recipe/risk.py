"""An estimate of what a reward could add to a policy, before any training: minimum Bayes risk.

If likelihood is right about how likely texts are, no text is expected to score better than the one that its
own samples agree with best on average (Kumar & Byrne 2004). Where greedy texts are as good as those, there is
nothing to win by moving probability between texts, and moving it is all that a policy gradient does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rlseq.engine.decode import Greedy
from rlseq.engine.evaluation import subset
from rlseq.engine.mbr import utilities
from rlseq.engine.rollout import rollout
from rlseq.metrics.fitting import named_reward, references_of
from rlseq.recipe.difference import difference
from rlseq.types import Rollout
from rlseq.utils.files import Json

ITEMS = 50  # at a time, at most


@torch.no_grad()
def least_risk(policy: Any, task: Callable[[int], Any], items: int, samples: int, metric: str) -> Json:
    """Return the mean score of greedy texts, of the samples that agree best with all, and their difference.

    Args:
        policy: writes.
        task: makes the task, given a number of rows.
        items: how many, drawn at random by a fixed seed.
        samples: texts of each item.
        metric: the score, by name, or a sum of rewards; also that by which samples are compared with each
            other.
    """
    rows = min(ITEMS, task(1).size)
    wide, narrow = task(rows * samples), task(rows)
    right = named_reward(metric, references_of(wide))
    chosen = subset(wide.size, items)
    batches = [chosen[i : i + rows] for i in range(0, len(chosen) - rows + 1, rows)]
    first = torch.arange(rows) * samples
    greedy, least = [], []
    for index in batches:
        batch = rollout(policy, wide, repeat=samples, index=index)
        best = expected(batch, samples, metric, wide.vocab).view(rows, samples).argmax(1).cpu()
        least.append(_score(right, batch)[first + best])
        greedy.append(_score(right, rollout(policy, narrow, decode=Greedy(), index=index)))
    new, old = torch.cat(least), torch.cat(greedy)
    return {
        "greedy": float(old.mean()),
        "least_risk": float(new.mean()),
        "change": difference(new.numpy(), old.numpy()),
        "items": len(new),
        "samples": samples,
    }


def expected(batch: Rollout, samples: int, metric: str, vocab: Any) -> Tensor:
    """Return how well each sample agrees with the samples of its item, `[B]`: more is better."""
    return utilities(batch, samples, metric, vocab).double().sum(2).flatten().cpu()


def _score(metric: Any, batch: Rollout) -> Tensor:
    """The metric's own figure of every text, by its references."""
    value = getattr(metric, "value", metric)
    return torch.as_tensor(value(batch.actions, batch.mask, batch.context)).double().cpu()
