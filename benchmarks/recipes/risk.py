"""What a reward could add to a policy that learns nothing more: minimum Bayes risk.

If likelihood is right about how likely texts are, no text is expected to make fewer errors than the one to
which its own samples are nearest on average (Kumar & Byrne 2004). Where greedy texts are as good as those,
there is nothing to win by moving probability between texts, and moving it is what a policy gradient does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

import rlseq
from rlseq.engine.checks import named_functions
from rlseq.engine.evaluation import subset

ITEMS = 50  # at a time, at most


def least_risk(policy: Any, task: Any, items: int, samples: int) -> dict[str, float]:
    """Mean errors a text, of greedy texts and of the samples nearest to all samples, for the same items.

    Args:
        policy: writes.
        task: makes the task, given a number of rows.
        items: how many, drawn at random by a fixed seed.
        samples: of each item.
    """
    size = task(1).size
    rows = min(ITEMS, size)
    wide, narrow = task(rows * samples), task(rows)
    chosen = subset(size, items)
    batches = [chosen[i : i + rows] for i in range(0, len(chosen) - rows + 1, rows)]
    first = torch.arange(rows) * samples
    greedy = least = 0.0
    for index in batches:
        batch = rlseq.rollout(policy, wide, repeat=samples, index=index)
        nearest = torch.tensor([_nearest(group) for group in _groups(batch, samples)])
        least += float(_errors(wide, batch)[first + nearest].sum())
        greedy += float(
            _errors(narrow, rlseq.rollout(policy, narrow, decode=rlseq.Greedy(), index=index)).sum()
        )
    count = len(batches) * rows
    return {"greedy": greedy / count, "least_risk": least / count, "items": count, "samples": samples}


def _groups(batch: Any, samples: int) -> list[list[list[int]]]:
    """The samples of each item, as ids."""
    texts = [row[:n] for row, n in zip(batch.actions.tolist(), batch.lengths.tolist(), strict=True)]
    return [texts[i : i + samples] for i in range(0, len(texts), samples)]


def _nearest(texts: list[list[int]]) -> int:
    """Which has the least mean distance to all."""
    return int(np.argmin(cdist(texts, texts, scorer=Levenshtein.distance).sum(1)))


def _errors(env: Any, batch: Any) -> torch.Tensor:
    """Distance to the nearest reference."""
    metric = named_functions(env.metrics)["edit_distance"]
    value: Any = getattr(metric, "value", metric)
    return torch.as_tensor(value(batch.actions, batch.mask, batch.context)).double()
